"""The folder in which one loop lives: made, locked and emptied only by the loop that owns it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from components.contracts.errors import CrisplineError
from components.contracts.storage import write_atomically

MARKER = ".crispline-state"
PROGRESS = "progress.json"


@dataclass(frozen=True)
class Progress:
    """How far a loop has come: what is needed to go on. `next_day`: first day (RFC 3339) that was not replayed to its end."""

    settings: dict[str, str]
    next_day: str
    first_release: str
    requests: int
    rows: int
    seconds: float


@contextlib.contextmanager
def owned(state: Path) -> Iterator[Path]:
    """Hold the folder for this process. Raises CrisplineError when another loop runs in it, or when it holds something that is not a loop's."""
    state = state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    if not (state / MARKER).exists():
        if any(state.iterdir()):
            raise CrisplineError(f"{state} is not empty and was not made by crispline; name another folder with --state")
        (state / MARKER).write_text("This folder is made by `crispline demo`; it may be deleted.\n")
    with (state / MARKER).open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CrisplineError(f"another loop runs in {state}; wait for it, or name another folder with --state") from error
        yield state


def empty(state: Path) -> None:
    """Remove everything but the marker: start over."""
    for entry in state.iterdir():
        if entry.name != MARKER:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def save(state: Path, progress: Progress) -> None:
    write_atomically(state / PROGRESS, json.dumps(asdict(progress), indent=1).encode())


def load(state: Path) -> Progress | None:
    path = state / PROGRESS
    return Progress(**json.loads(path.read_text())) if path.exists() else None
