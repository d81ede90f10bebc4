"""A use case's own history: its feature frame, from a lake that is there or from its source, and the settings that it declares."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pandas as pd

from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.monitoring.backtest.history import History, Matrix
from components.monitoring.backtest.tabular import TrialLearner
from components.monitoring.performance.trial import TRAINING_WINDOWS


def feature_frame(usecase: LoadedUseCase, platform: Platform, start: datetime, end: datetime, cache: Path, from_source: bool) -> pd.DataFrame:
    """Every labelled row with prediction moments in [start, end): `entity`, `prediction_moment`, `label_known_at`, `label`, features.

    `from_source`: ingest the period into a lake of the cache; else the lake of `platform` is read. Built once: a Parquet file in `cache`.
    """
    from components.data_engineering.ingest import ingest_period
    from components.data_engineering.lake import current_version
    from components.data_engineering.offline_features import training_frame

    own = Platform.embedded(cache / "platform")
    if from_source:
        known_by = end + usecase.config.data.label.never_after
        version = ingest_period(usecase, own.lake_uri, start - usecase.config.retraining.training_window, known_by)
        read = own
    else:
        version = current_version(platform.lake_uri, usecase, end)
        # Checks and snapshots of a backtest are its own: the platform's records tell of runs, not of what-if.
        read = own.model_copy(update={"lake_uri": platform.lake_uri, "labels_uri": platform.labels_uri})
    file = cache / f"frame-{version.id}-{usecase.features.definition_hash[:12]}-{start:%Y%m%d}-{end:%Y%m%d}.parquet"
    if not file.exists():
        frame, _ = training_frame(usecase, read, version, start)
        frame = frame[frame["label"].notna() & (frame["prediction_moment"] < end)]
        partial = file.with_suffix(".partial")
        frame[["entity", "prediction_moment", "label_known_at", "label", *usecase.features.feature_names]].to_parquet(partial)
        partial.replace(file)
    return pd.read_parquet(file)


def history_of_usecase(usecase: LoadedUseCase, frame: pd.DataFrame, start: datetime, rows: int) -> History:
    """`start`: when the first model goes live. At most `rows` rows are kept, drawn without regard to time or label.

    Raises InvalidData when nothing was labelled before the start, or too little comes after it.
    """
    from components.model_engineering.rows import encoding_of

    config, encoding = usecase.config, encoding_of(usecase)
    if len(frame) > rows:
        frame = frame.sample(rows, random_state=config.model.seed)
    frame = frame.sort_values(["prediction_moment", "entity"], kind="stable", ignore_index=True)
    if not (frame["label_known_at"] <= pd.Timestamp(start)).any():
        raise InvalidData(
            f"no label was known at {format_moment(start)}, when the first model should go live\n    remedy: a later --live-from, or an earlier --start"
        )
    matrix: Matrix = encoding.encode(frame)
    label = frame["label"].astype(bool).to_numpy().astype("int8")
    return History(
        config.name,
        pd.DatetimeIndex(frame["prediction_moment"]),
        pd.DatetimeIndex(frame["label_known_at"]),
        label,
        start,
        config.monitoring.window,
        config.retraining.training_window,
        TrialLearner(matrix, label, tuple(encoding.feature_types)),
    )


def training_windows(usecase: LoadedUseCase) -> tuple[str, ...]:
    """Those that the pipeline can train on: half the training window must leave rows beside test period, embargo and validation."""
    config = usecase.config
    needed = config.model.test_period + config.data.label.delay * 2
    return tuple(name for name in TRAINING_WINDOWS if name != "short" or config.retraining.training_window / 2 > needed * 1.5)


def default_start(frame: pd.DataFrame, usecase: LoadedUseCase) -> datetime:
    """The training window after the first row."""
    first: datetime = frame["prediction_moment"].min().to_pydatetime()
    start = first + usecase.config.retraining.training_window
    if start >= frame["prediction_moment"].max():
        raise CrisplineError(f"the history begins at {format_moment(first)} and holds no more than one training window; a backtest needs more time after it")
    return start
