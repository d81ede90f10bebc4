"""Windows by event time over the prediction log: multiples of `monitoring.window` since an origin, closed at a watermark.

The watermark is the highest prediction moment in the log, of any replica, less the lateness. A closed window leaves one file for each model
and a marker; the marker is written last and never again, so a restart or another replica goes on from there. By count there are no windows:
the log has no committed order across replicas.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from upath import UPath

from components.contracts.storage import create_atomically, read_whole, storage_path, write_atomically
from components.contracts.usecase import Moment

if TYPE_CHECKING:
    import pandas as pd

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CLOSED = "closed.json"


@dataclass(frozen=True, order=True)
class Window:
    start: datetime
    end: datetime

    @classmethod
    def of(cls, moment: datetime, length: timedelta, origin: datetime = EPOCH) -> Window:
        """The window that holds `moment`: start included, end not."""
        start = origin + (moment - origin) // length * length
        return cls(start, start + length)


def closable(days: Sequence[date], latest: datetime, length: timedelta, lateness: timedelta, origin: datetime = EPOCH) -> list[Window]:
    """The windows with rows (`days`: dates that have any) that end at or before the watermark `latest - lateness`, in order."""
    windows = set()
    for day in days:
        moment = datetime.combine(day, datetime.min.time(), UTC)
        window = Window.of(moment, length, origin)
        while window.start < moment + timedelta(days=1):
            windows.add(window)
            window = Window(window.end, window.end + length)
    return sorted(window for window in windows if window.end <= latest - lateness)


class Closed(BaseModel):
    """A closed window. `last_number`: of each replica's instance the highest answer number accounted for so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_start: Moment
    window_end: Moment
    watermark: Moment
    rows: int
    models: tuple[str, ...]
    last_number: dict[str, int]


class ClosedWindows:
    """The markers under `<prediction log>/<usecase>/windows/`, shared by all replicas."""

    def __init__(self, prediction_log_uri: str, usecase: str) -> None:
        self.root = storage_path(prediction_log_uri) / usecase / "windows"
        self._known: dict[datetime, Closed] = {}

    def get(self, window: Window) -> Closed | None:
        if window.start not in self._known:
            with suppress(FileNotFoundError):
                self._known[window.start] = Closed.model_validate_json(read_whole(self.folder(window.start) / _CLOSED))
        return self._known.get(window.start)

    def before(self, window: Window) -> Closed | None:
        """The last closed window before this one."""
        known = [start for start in self._known if start < window.start]
        return self._known[max(known)] if known else None

    def close(self, closed: Closed) -> None:
        """Write the marker; one that another replica has written meanwhile stands."""
        path = self.folder(closed.window_start) / _CLOSED
        create_atomically(path, closed.model_dump_json(indent=1).encode())
        self._known[closed.window_start] = Closed.model_validate_json(read_whole(path))

    def record_late(self, window: Window, ids: Sequence[str]) -> None:
        """Keep which predictions came after the window had been closed; the same ones leave the same file."""
        content = json.dumps({"rows": len(ids), "ids": sorted(ids)}, indent=1).encode()
        write_atomically(self.folder(window.start) / f"late-{hashlib.sha256(content).hexdigest()[:24]}.json", content)

    def folder(self, start: datetime) -> UPath:
        return self.root / start.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


@dataclass(frozen=True)
class LostEvents:
    """Numbered answers of one model in one window: how many are in the log, how many are missing between them."""

    seen: int
    lost: int

    @property
    def share(self) -> float:
        return self.lost / (self.seen + self.lost) if self.lost else 0.0


def lost_events(answers: pd.DataFrame, window: Window, last_number: dict[str, int]) -> tuple[dict[str, LostEvents], dict[str, int]]:
    """Lost events by model version, and the updated highest number of each instance.

    `answers`: from `PredictionLog.answers`, from before the window up to now (replicas answer for several moments at a time, so a number may
    belong to a neighbouring window). Numbers start at 1; a number counts as lost in the window of the highest number seen above it.
    """
    counts: dict[str, LostEvents] = {}
    numbers = dict(last_number)
    for instance, group in answers.groupby("instance", sort=True):
        inside = group[(group["first"] >= window.start) & (group["first"] < window.end)]
        if inside.empty:
            continue
        low, high = numbers.get(str(instance), 0), int(inside["sequence"].max())
        present = set(group["sequence"].astype(int))
        lost = sum(1 for number in range(low + 1, high + 1) if number not in present)
        version = str(inside["model_version"].iloc[-1])
        before = counts.get(version, LostEvents(0, 0))
        counts[version] = LostEvents(before.seen + len(inside), before.lost + lost)
        numbers[str(instance)] = max(low, high)
    return counts, numbers
