"""Trials: small models of the labels known at some moment, to learn what newer labels bring and which of them to learn from.

A trial is one XGBoost fit with fixed parameters, without tuning, calibration, gates, release or people. It is no run, and it is not for nothing:
benchmarks/retraining_decision.py counts what all trials of a stream cost, in runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import xgboost as xgb

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

TRAINING_WINDOWS = ("sliding", "short", "growing", "weighted")
MAXIMUM_BINS = 64
PARAMETERS = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 4,
    "learning_rate": 0.1,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "max_bin": MAXIMUM_BINS,
    "seed": 1,
}
ROUNDS = 60
LEAST_WEIGHT = 0.02  # rows that weigh less are left out


def row_weights(name: str, age: Vector, training_window: float) -> Vector:
    """The weight of each row [rows] in a training window, by its `age`, in the unit of `training_window` (`retraining.training_window`).

    `sliding`: rows no older than the training window; `short`: than half of it; `growing`: all; `weighted`: all, a row of half the training window's
    age counts half.
    """
    match name:
        case "sliding":
            return np.asarray(age <= training_window, dtype=np.float64)
        case "short":
            return np.asarray(age <= training_window / 2, dtype=np.float64)
        case "growing":
            return np.ones_like(age)
        case "weighted":
            return np.asarray(0.5 ** (age / (training_window / 2)), dtype=np.float64)
    raise ValueError(f"{name!r} is no training window; use one of: {', '.join(TRAINING_WINDOWS)}")


def fit_trial(matrix: Matrix, label: npt.ArrayLike, weight: Vector, feature_types: Sequence[str], threads: int = 1) -> xgb.Booster | None:
    """Fit on rows [rows, features] (categories as positions, NaN is missing) with weights [rows]; None where a class is absent."""
    import xgboost as xgb

    use = weight > LEAST_WEIGHT
    labels = np.asarray(label, dtype=np.float64)[use]
    if len(labels) == 0 or labels.min() == labels.max():
        return None
    data = xgb.QuantileDMatrix(
        matrix[use], labels, weight=weight[use], feature_types=list(feature_types), enable_categorical=True, max_bin=MAXIMUM_BINS, nthread=threads
    )
    return xgb.train({**PARAMETERS, "nthread": threads}, data, num_boost_round=ROUNDS)
