"""The next day is ingested, and what its ticks publish computed, while the day before is served: a process of its own, one day ahead.

Nothing of the next day can reach an answer: it is written to the online store only when its turn comes, and everything else reads the lake
at a recorded version.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType

import pandas as pd

from components.contracts.artifacts import DataVersion
from components.contracts.features import FeatureSet
from components.contracts.loading import LoadedUseCase, load_usecase
from components.data_engineering.ingest import ingest_period, source_reader
from components.data_engineering.lake import groups
from components.data_engineering.materialise import ticks_of
from pipelines.runners.step_process import die_with_parent

DAY = timedelta(days=1)


@dataclass(frozen=True)
class PreparedDay:
    """The lake's version at the day's end, and the rows that the day's ticks publish, by served view name."""

    version: DataVersion
    ticks: dict[str, pd.DataFrame]


def prepare_day(usecase_folder: Path, lake_uri: str, feature_sets: Sequence[FeatureSet], day: datetime) -> PreparedDay:
    """Ingest one day (idempotent) and compute what its ticks publish."""
    usecase = _usecase(usecase_folder)
    version = ingest_period(usecase, lake_uri, day, day + DAY)
    views = {view.served_name: view for features in feature_sets for view in features.views}
    return PreparedDay(version, ticks_of(usecase, lake_uri, views.values(), version, day, day + DAY))


@cache
def _usecase(folder: Path) -> LoadedUseCase:
    return load_usecase(folder)


@dataclass
class DayAhead:
    """Use as a context; leaving it ends the process. Days from `end` on are not prepared."""

    usecase_folder: Path
    lake_uri: str
    end: datetime
    _pool: ProcessPoolExecutor = field(init=False)
    _asked: tuple[datetime, tuple[str, ...]] | None = None
    _coming: Future[PreparedDay] | None = None

    def __enter__(self) -> DayAhead:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_follow_the_loop)
        self._pool.submit(_warm_up, self.usecase_folder)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def take(self, day: datetime, feature_sets: Sequence[FeatureSet]) -> PreparedDay:
        """The day, and the next one begun. What was begun for other feature sets (a release was rolled over meanwhile) is computed anew."""
        wanted = (day, _hashes(feature_sets))
        if self._coming is None or self._asked != wanted:
            self._begin(day, feature_sets)
        assert self._coming is not None
        prepared = self._coming.result()
        self._coming = None
        if day + DAY < self.end:
            self._begin(day + DAY, feature_sets)
        return prepared

    def _begin(self, day: datetime, feature_sets: Sequence[FeatureSet]) -> None:
        self._asked = (day, _hashes(feature_sets))
        self._coming = self._pool.submit(prepare_day, self.usecase_folder, self.lake_uri, list(feature_sets), day)


def _hashes(feature_sets: Sequence[FeatureSet]) -> tuple[str, ...]:
    return tuple(features.definition_hash for features in feature_sets)


def _warm_up(usecase_folder: Path) -> None:
    """Read what the source keeps in memory."""
    usecase = _usecase(usecase_folder)
    table, group = groups(usecase.config)[0]
    nothing = datetime(1970, 1, 1, tzinfo=UTC)
    source_reader(usecase)(table, group, nothing, nothing)


def _follow_the_loop() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the loop, which ends us
    die_with_parent()
