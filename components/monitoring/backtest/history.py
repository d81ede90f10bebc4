"""A history to replay: rows with the moments at which their labels became known, cut into windows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.contracts.errors import InvalidData

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

BLOCKS = 7  # stretches of a window within which rows may depend on each other, as days in a week


class Scorer(Protocol):
    def __call__(self, rows: Rows) -> Vector: ...


class Learner(Protocol):
    """How a model is built: of the rows [known] with their weights; None where they do not suffice. The scorer takes any rows of the history."""

    def __call__(self, known: Rows, weight: Vector) -> Scorer | None: ...


@dataclass(frozen=True)
class History:
    """Rows in order of `moment` [rows, UTC]; `known_at`: when each label became known; `label` 0 or 1. The first model goes live at `start`.

    Window k covers [start + k * window, start + (k + 1) * window). A model trained at the start of window k knows the labels known by then.
    """

    name: str
    moment: pd.DatetimeIndex
    known_at: pd.DatetimeIndex
    label: npt.NDArray[np.int8]
    start: datetime
    window: timedelta
    training_window: timedelta
    learner: Learner

    def __post_init__(self) -> None:
        if not self.moment.is_monotonic_increasing:
            raise InvalidData(f"the rows of {self.name} are not in order of time")
        if self.windows < 4:
            raise InvalidData(f"{self.name} has {self.windows} windows from {self.start:%Y-%m-%d} on; four are the least to compare policies on")

    @cached_property
    def position(self) -> Vector:
        """Each row's time in windows since the start [rows]; negative before it."""
        return np.asarray((self.moment - pd.Timestamp(self.start)) / self.window, dtype=np.float64)

    @cached_property
    def windows(self) -> int:
        """Windows that the history covers to their end, and the last one when it covers half of it."""
        return int(np.floor(self.position[-1] + 0.5)) if len(self.moment) else 0

    @cached_property
    def edges(self) -> Rows:
        """Position of the first row of each window, and the end of the last [windows + 1]."""
        return np.searchsorted(self.position, np.arange(self.windows + 1))

    def rows(self, window: int) -> slice:
        return slice(int(self.edges[window]), int(self.edges[window + 1]))

    def moment_of(self, window: int) -> datetime:
        moment: datetime = self.start + window * self.window
        return moment

    @cached_property
    def known_position(self) -> Vector:
        """When each label became known, in windows since the start [rows]."""
        return np.asarray((self.known_at - pd.Timestamp(self.start)) / self.window, dtype=np.float64)

    def known(self, window: int) -> Rows:
        """Rows whose label is known at the start of `window`."""
        return np.flatnonzero(self.known_position <= window)

    @cached_property
    def measured_at(self) -> list[int]:
        """For each window the first window at whose start all its labels are known; beyond the last one: never in this history."""
        return [
            max(number + 1, int(np.ceil(self.known_position[self.rows(number)].max()))) if self.edges[number + 1] > self.edges[number] else self.windows + 1
            for number in range(self.windows)
        ]

    @cached_property
    def with_new_labels(self) -> list[int]:
        """Windows at whose start labels are known that were not at the start of the one before."""
        counts = [int((self.known_position <= number).sum()) for number in range(self.windows)]
        return [number for number in range(1, self.windows) if counts[number] > counts[number - 1]]

    def blocks(self, window: int) -> npt.NDArray[np.int64]:
        """The stretch of the window in which each of its rows lies [rows of the window]; by count where time does not tell them apart."""
        inside = self.position[self.rows(window)] - window
        by_time = np.minimum((inside * BLOCKS).astype(np.int64), BLOCKS - 1)
        if len(np.unique(by_time)) >= BLOCKS // 2 + 1:
            return by_time
        return np.asarray(np.arange(len(inside)) * BLOCKS // max(1, len(inside)), dtype=np.int64)
