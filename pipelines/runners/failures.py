"""The reason of a step's failure, read from its log."""

from __future__ import annotations

from pathlib import Path

_TRACEBACK = "Traceback (most recent call last):"
_LINES_WITHOUT_TRACEBACK = 15


def failure_of_log(step: str, log: Path) -> str:
    """A message for a person: the step, the log's place and the step's own traceback (or the log's last lines, where there is none)."""
    text = log.read_text(errors="replace") if log.exists() else ""
    at = text.rfind(_TRACEBACK)
    while (
        at > 0
        and (start := text.rfind(_TRACEBACK, 0, at)) >= 0
        and "exception" in text[start:at].rstrip().splitlines()[-1]
        and text[start:at].rstrip().endswith(":")
    ):
        at = start  # a chain ("During handling of the above exception, another exception occurred:") is one failure
    reason = text[at:].rstrip() if at >= 0 else "\n".join(text.splitlines()[-_LINES_WITHOUT_TRACEBACK:]) or "it ended without a word"
    return f"step {step} failed; log: {log}\n{reason}"
