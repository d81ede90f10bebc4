"""What a person reads while the loop runs: calm lines on stderr, one bar for the replay."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from components.contracts.runs import Run


class Narration:
    """On a terminal a bar moves; in a pipe each window has a line."""

    def __init__(self, start: datetime, end: datetime) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(), console=self._console, transient=True
        )
        self._start, self._end = start, end
        self._task = self._bar.add_task("replay", total=(end - start).days, visible=False)
        self._began = time.monotonic()
        self._quiet = {"monitoring"}  # once a window: the line of the window says it

    def __enter__(self) -> Narration:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._began:5.0f} s[/dim]  {text}")

    def following(self, run: Run, state: Path) -> None:
        """A pipeline's run was submitted; its steps are told as they start."""
        if run.pipeline not in self._quiet:
            self.note(f"pipeline {run.pipeline} (run {run.id}, logs in {_shown(state / 'runs' / run.id)})")

    def step(self, run: Run, name: str) -> None:
        if run.pipeline not in self._quiet:
            self.note(f"  {name}")

    def day(self, day: datetime) -> None:
        """A day was replayed."""
        done = (day - self._start).days + 1
        self._bar.update(self._task, completed=done, visible=True, description=f"replay, {day:%d %b %Y}")

    def window(self, text: str) -> None:
        self.note(text)


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
