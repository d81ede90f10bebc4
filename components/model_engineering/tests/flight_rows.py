"""Small datasets in the shape that the flights use case trains on, with a signal of known strength."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from components.contracts.artifacts import DatasetManifest, DataVersion
from components.contracts.loading import LoadedUseCase
from components.model_engineering.rows import encoding_of

START = datetime(2013, 1, 1, tzinfo=UTC)


def flight_rows(usecase: LoadedUseCase, rows: int = 3000, seed: int = 1, signal: float = 1.0, days: int = 60, offset: float = -1.5) -> pd.DataFrame:
    """`signal` scales the log odds that the features carry; 0 makes the label pure noise. About 1% of the flights are cancelled."""
    random = np.random.default_rng(seed)
    encoding = encoding_of(usecase)
    frame = pd.DataFrame({"entity": [f"flight-{number:06d}" for number in range(rows)]})
    seconds = np.sort(random.integers(0, days * 86_400, rows))
    frame["prediction_moment"] = pd.Series(pd.Timestamp(START) + pd.to_timedelta(seconds, unit="s")).astype("datetime64[us, UTC]")
    frame["event_time"] = frame["prediction_moment"] + usecase.config.data.prediction.lead
    for name in encoding.feature_names:
        if name in encoding.categorical:
            frame[name] = random.choice(encoding.categorical[name], rows)
        else:
            frame[name] = random.normal(size=rows)
    frame["dep_minute"] = random.integers(300, 1400, rows)
    frame["month"] = frame["prediction_moment"].dt.month
    frame.loc[random.random(rows) < 0.1, "temp"] = np.nan
    odds = offset + signal * (
        0.003 * (frame["dep_minute"] - 850)
        + 1.2 * frame["origin_delay_2h"] * (frame["origin"] == "EWR")
        + 0.5 * frame["precip"]
        + 0.8 * (frame["carrier"] == "EV")
    )
    frame["label"] = pd.array(random.random(rows) < 1 / (1 + np.exp(-odds)), dtype="boolean")
    cancelled = random.random(rows) < 0.01
    frame["outcome"] = np.where(cancelled, "cancelled", "arrived")
    frame.loc[cancelled, "label"] = pd.NA
    frame["label_known_at"] = frame["event_time"] + timedelta(days=14)
    share = np.arange(rows) / rows
    frame["split"] = np.select([share < 0.5, share < 0.75, share < 0.8], ["train", "validation", "embargo"], "test")
    return frame


def manifest_of(usecase: LoadedUseCase, frame: pd.DataFrame, as_of: datetime | None = None) -> DatasetManifest:
    """The manifest that belongs to `frame`; `as_of` defaults to the moment at which its last label is known."""
    content = hashlib.sha256(pd.util.hash_pandas_object(frame.sort_values("entity"), index=False).to_numpy().tobytes()).hexdigest()
    moment = as_of or frame["label_known_at"].max().to_pydatetime()
    split = frame.groupby("split")
    return DatasetManifest(
        id=content[:12],
        usecase=usecase.name,
        data_version=DataVersion(id="data-1", usecase=usecase.name, as_of=moment, tables={}),
        feature_set=usecase.features.definition_hash,
        rows=len(frame),
        rows_by_split={str(name): len(part) for name, part in split},
        label_share_by_split={str(name): float(part["label"].mean()) for name, part in split if part["label"].notna().any()},
        outcomes={str(name): int(count) for name, count in frame["outcome"].value_counts().items()},
        boundaries={},
        content_hash=content,
    )
