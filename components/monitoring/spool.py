"""The spool: events on disk, fsynced before they are acknowledged, until they are in the prediction log.

Segments are files of JSON lines. Appending commits in groups: whatever has arrived while the disk was busy goes with the next fsync. Sealing
ends the segment that is written to, so that it can be moved as a whole and removed; a segment that a killed process left is moved by the next
one. A line that was torn by a crash was never acknowledged.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from components.contracts.errors import CrisplineError

_SUFFIX = ".jsonl"


@dataclass(frozen=True)
class SpooledEvent:
    """A CloudEvent as received: its attributes that matter here, and the body untouched. `time` is the sender's wall clock (RFC 3339) or empty."""

    id: str
    type: str
    time: str
    request_id: str
    predictor: str
    body: bytes

    def line(self) -> bytes:
        return json.dumps({**asdict(self), "body": base64.b64encode(self.body).decode()}, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> SpooledEvent:
        """Raises ValueError for a torn or foreign line."""
        try:
            event = cls(**json.loads(line))
            return replace(event, body=base64.b64decode(event.body, validate=True))
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from error


class Spool:
    """One process owns a spool's folder. `append` is safe from any thread."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._owner = (folder / "owner.lock").open("w")
        try:
            fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CrisplineError(f"another sidecar uses the spool {folder}\n    remedy: give each replica a spool folder of its own") from error
        self._lock = threading.Lock()
        self._descriptor = -1
        self._number = max((_number(path) for path in self._segments()), default=0)
        self._active: Path | None = None
        self._pending = {path: sum(1 for _ in self.read(path)) for path in self._segments()}
        self._queue: queue.SimpleQueue[tuple[SpooledEvent, Future[None]] | None] = queue.SimpleQueue()
        self._committer = threading.Thread(target=self._commit_groups, name="spool", daemon=True)
        self._committer.start()

    def append(self, event: SpooledEvent) -> Future[None]:
        """The future is done once the event is on disk; it carries an OSError when the disk refuses."""
        done: Future[None] = Future()
        self._queue.put((event, done))
        return done

    def seal(self) -> list[Path]:
        """End the active segment and return all that are complete, oldest first."""
        with self._lock:
            self._close_active()
            return self._segments()

    def read(self, segment: Path) -> Iterator[SpooledEvent]:
        """The events of a segment; a torn last line ends it silently, as it was never acknowledged."""
        with segment.open("rb") as file:
            for line in file:
                try:
                    yield SpooledEvent.parse(line)
                except ValueError:
                    continue

    def remove(self, segment: Path) -> None:
        segment.unlink(missing_ok=True)
        with self._lock:
            self._pending.pop(segment, None)

    @property
    def pending(self) -> int:
        """Acknowledged events that are not yet moved."""
        with self._lock:
            return sum(self._pending.values())

    def close(self) -> None:
        """Commit what was handed in, then stop."""
        self._queue.put(None)
        self._committer.join()
        with self._lock:
            self._close_active()
        self._owner.close()

    def _segments(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.suffix == _SUFFIX)

    def _commit_groups(self) -> None:
        while True:
            first = self._queue.get()
            group = [first]
            while not self._queue.empty():
                group.append(self._queue.get())
            entries = [entry for entry in group if entry is not None]
            if entries:
                self._commit(entries)
            if len(entries) < len(group):
                return

    def _commit(self, entries: list[tuple[SpooledEvent, Future[None]]]) -> None:
        try:
            data = b"".join(event.line() for event, _ in entries)
            with self._lock:
                self._write(data, len(entries))
        except OSError as error:
            for _, done in entries:
                done.set_exception(error)
        else:
            for _, done in entries:
                done.set_result(None)

    def _write(self, data: bytes, events: int) -> None:
        if self._active is None:
            self._number += 1
            path = self.folder / f"segment-{self._number:012d}{_SUFFIX}"
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self._active = path
            self._pending[path] = 0
            directory = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        before = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, before)
            raise
        self._pending[self._active] += events

    def _close_active(self) -> None:
        if self._active is not None:
            os.close(self._descriptor)
            self._active = None


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("segment-"))
