"""Drift of each feature over time, as the sidecar recorded it, ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.monitoring.drift import read_drift


@dataclass(frozen=True)
class DriftHistory:
    """`ratios`, shape (features, windows): statistic over alarm threshold, NaN where a feature was not tested in that window."""

    windows: Sequence[datetime]
    features: Sequence[str]
    ratios: npt.NDArray[np.float64]


def read_drift_history(platform: Platform, usecase: LoadedUseCase) -> DriftHistory:
    """What the sidecar tested feature by feature, of whichever model served most rows in a window."""
    tested = read_drift(platform.prediction_log_uri, usecase.name)
    tested = tested[(tested["kind"] == "data_drift") & (tested["threshold"] > 0)]
    if tested.empty:
        return DriftHistory([], [], np.empty((0, 0)))
    most = tested.groupby("window_start")["rows"].transform("max")
    served = tested[tested["rows"] == most].assign(ratio=lambda frame: frame["statistic"] / frame["threshold"])
    table = served.pivot_table(index="part", columns="window_start", values="ratio", aggfunc="max")
    order = [name for name in usecase.features.feature_names if name in table.index]
    return DriftHistory([pd.Timestamp(stamp).to_pydatetime() for stamp in table.columns], order, table.loc[order].to_numpy(dtype=np.float64))
