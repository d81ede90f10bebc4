"""What a person sees while a pipeline runs: one line a step, on stderr; and the same in a file, for who follows a run from afar."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.status import Status


class Progress(Protocol):
    """Told of each step's start and end. `seconds` is wall time."""

    def started(self, step: str) -> None: ...

    def finished(self, step: str, seconds: float, cached: bool) -> None: ...

    def failed(self, step: str, seconds: float) -> None: ...


class Silent:
    """For runs in the background, whose progress stands in the run store."""

    def started(self, step: str) -> None: ...

    def finished(self, step: str, seconds: float, cached: bool) -> None: ...

    def failed(self, step: str, seconds: float) -> None: ...


class WrittenProgress:
    """A line of JSON an event, appended to a file of the run's."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()  # a resumed run goes on in the same file

    def started(self, step: str) -> None:
        self._write({"event": "started", "step": step})

    def finished(self, step: str, seconds: float, cached: bool) -> None:
        self._write({"event": "finished", "step": step, "seconds": seconds, "cached": cached})

    def failed(self, step: str, seconds: float) -> None:
        self._write({"event": "failed", "step": step, "seconds": seconds})

    def _write(self, event: dict[str, object]) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps(event) + "\n")


class FollowedProgress:
    """Tells another progress what a WrittenProgress has written since the last look."""

    def __init__(self, file: Path, told: Progress) -> None:
        self._file, self._told, self._position = file, told, 0

    def look(self) -> None:
        if not self._file.exists():
            return
        with self._file.open() as file:
            file.seek(self._position)
            while (line := file.readline()).endswith("\n"):
                self._position = file.tell()
                self._tell(json.loads(line))

    def _tell(self, event: dict[str, object]) -> None:
        step, seconds = str(event["step"]), float(str(event.get("seconds", 0.0)))
        if event["event"] == "started":
            self._told.started(step)
        elif event["event"] == "finished":
            self._told.finished(step, seconds, bool(event["cached"]))
        else:
            self._told.failed(step, seconds)


class PlainProgress:
    """Lines that a log or a pipe can hold."""

    def started(self, step: str) -> None:
        print(f"{step}: started", file=sys.stderr, flush=True)

    def finished(self, step: str, seconds: float, cached: bool) -> None:
        print(f"{step}: " + ("cached" if cached else f"done in {seconds:.1f} s"), file=sys.stderr, flush=True)

    def failed(self, step: str, seconds: float) -> None:
        print(f"{step}: failed after {seconds:.1f} s", file=sys.stderr, flush=True)


class TerminalProgress:
    """A spinner for what runs, a line for what ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: list[str] = []
        self._status: Status | None = None
        self._lock = threading.Lock()

    def started(self, step: str) -> None:
        with self._lock:
            self._running.append(step)
            self._show()

    def finished(self, step: str, seconds: float, cached: bool) -> None:
        with self._lock:
            self._ended(step, f"[green]✓[/] {step:<28} [dim]{'cached' if cached else f'{seconds:6.1f} s'}[/]")

    def failed(self, step: str, seconds: float) -> None:
        with self._lock:
            self._ended(step, f"[red]✗[/] {step:<28} [dim]{seconds:6.1f} s[/]")

    def _ended(self, step: str, line: str) -> None:
        if step in self._running:
            self._running.remove(step)
        self._show()
        self._console.print(line)

    def _show(self) -> None:
        if not self._running:
            if self._status is not None:
                self._status.stop()
                self._status = None
            return
        text = ", ".join(self._running)
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)


def progress_for_stderr() -> Progress:
    console = Console(stderr=True, highlight=False)
    return TerminalProgress(console) if console.is_terminal else PlainProgress()
