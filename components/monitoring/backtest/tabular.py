"""Histories out of plain tables: features as numbers or categories, learnt by the trials' own model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.monitoring.backtest.history import History, Matrix, Rows, Scorer, Vector
from components.monitoring.performance.trial import fit_trial


@dataclass(frozen=True)
class TrialLearner:
    """`fit_trial` on rows of a matrix [rows, features]; scores are its probabilities, uncalibrated."""

    matrix: Matrix
    label: npt.NDArray[np.int8]
    feature_types: tuple[str, ...]
    threads: int = 1

    def __call__(self, known: Rows, weight: Vector) -> Scorer | None:
        booster = fit_trial(self.matrix[known], self.label[known], weight, self.feature_types, self.threads)
        if booster is None:
            return None
        return lambda rows: np.asarray(booster.inplace_predict(self.matrix[rows]), dtype=np.float64)


def encoded(rows: pd.DataFrame) -> tuple[Matrix, tuple[str, ...]]:
    """Columns as float32: numbers as they are, categories and text as positions in the sorted list of their values; missing is NaN."""
    matrix, types = np.empty((len(rows), len(rows.columns)), dtype=np.float32), []
    for position, name in enumerate(rows.columns):
        column = rows[name]
        number = pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype)
        types.append("float" if number else "c")
        if number:
            matrix[:, position] = pd.to_numeric(column).to_numpy(dtype=np.float32, na_value=np.nan)
        else:
            codes = column.astype("string").astype("category").cat.codes.to_numpy().astype(np.float32)
            matrix[:, position] = np.where(codes < 0, np.nan, codes)
    return matrix, tuple(types)


def history_of_table(
    name: str,
    rows: pd.DataFrame,
    features: Sequence[str],
    start: datetime,
    window: timedelta,
    delay: timedelta,
    training_window: timedelta,
) -> History:
    """`rows`: `moment` (UTC), `label` (0 or 1) and the features, in order of time; each label is known `delay` after its row's moment."""
    matrix, types = encoded(rows[list(features)])
    label = rows["label"].to_numpy(dtype=np.int8)
    moment = pd.DatetimeIndex(rows["moment"])
    return History(name, moment, moment + delay, label, start, window, training_window, TrialLearner(matrix, label, types))


def promise(history: History) -> tuple[float, float]:
    """(AUC, share of positives) that the time before the start delivers: learnt on its first three quarters, judged on the last."""
    from components.monitoring.backtest.grid import rank_auc

    before = history.known(0)
    before = before[history.position[before] < 0]
    cut = len(before) * 3 // 4
    scorer = history.learner(before[:cut], np.ones(cut))
    label = history.label[before[cut:]]
    auc = rank_auc(label, scorer(before[cut:])) if scorer is not None else float("nan")
    return auc, float(history.label[before].mean())
