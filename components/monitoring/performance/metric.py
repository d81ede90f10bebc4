"""The metric of `retraining.metric`, and the stretches of time whose rows may depend on each other."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd


def metric_value(metric: str, label: npt.NDArray[np.int64], probability: npt.NDArray[np.float64]) -> float:
    """ROC AUC or average precision of labels 0/1 [rows] and scores [rows], as scikit-learn computes them. NaN when a class is absent."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if len(np.unique(label)) < 2:
        return math.nan
    return float((roc_auc_score if metric == "roc_auc" else average_precision_score)(label, probability))


def days_of(moments: pd.Series, day: timedelta) -> npt.NDArray[np.int64]:
    """The number of the day (or other length) since the epoch, UTC, of each moment [rows]."""
    import pandas as pd

    nanoseconds = pd.to_datetime(moments, utc=True).dt.as_unit("ns").astype("int64").to_numpy()
    return np.asarray(nanoseconds // (int(day.total_seconds()) * 1_000_000_000), dtype=np.int64)


def block_length(window: timedelta) -> timedelta:
    """A day; for windows shorter than a week a seventh of the window, so that there is something to leave out."""
    return min(timedelta(days=1), window / 7)
