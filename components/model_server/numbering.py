"""A replica's answers are numbered without gaps, so that a missing number in the log is a lost event (the executor's logger is lossy)."""

from __future__ import annotations

import os
import secrets
import threading


def new_instance(name: str = "") -> str:
    """A name for one start of one replica: `<name or host>-<8 random hex digits>`. A restart counts from 1 again, so it needs a new name."""
    return f"{name or os.environ.get('HOSTNAME', 'server')}-{secrets.token_hex(4)}"


class AnswerNumbers:
    """1, 2, 3, ... across threads. Take a number only for an answer that is complete: a refused request consumes none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def take(self) -> int:
        with self._lock:
            self._last += 1
            return self._last

    @property
    def last(self) -> int:
        """The number taken last; 0 before the first."""
        return self._last
