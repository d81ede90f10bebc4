"""One XGBoost fit with early stopping; tuning and training call the same one, so a tuned value means the same in both."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from components.model_engineering.rows import LabelledRows
from components.model_server.encoding import Encoding

Parameters = Mapping[str, float | int | str]
OBJECTIVE = "log loss"


@dataclass(frozen=True)
class Fit:
    """`booster` is cut to its best round; `best_iteration` counts from 0; `loss` is the log loss on the stopping rows at that round."""

    booster: xgb.Booster
    best_iteration: int
    loss: float


@dataclass
class FitData:
    """Training and stopping rows as XGBoost's quantised matrices, built once for each `max_bin` and shared by all fits."""

    encoding: Encoding
    train: LabelledRows
    stopping: LabelledRows

    def __post_init__(self) -> None:
        self._matrices: dict[int, tuple[xgb.QuantileDMatrix, xgb.QuantileDMatrix]] = {}
        self._encoded = [self.encoding.encode(rows.frame) for rows in (self.train, self.stopping)]

    def matrices(self, max_bin: int, threads: int) -> tuple[xgb.QuantileDMatrix, xgb.QuantileDMatrix]:
        if max_bin not in self._matrices:
            common = {
                "feature_names": list(self.encoding.feature_names),
                "feature_types": self.encoding.feature_types,
                "enable_categorical": True,
                "max_bin": max_bin,
                "nthread": threads,
            }
            train = xgb.QuantileDMatrix(self._encoded[0], self.train.label, **common)
            self._matrices[max_bin] = (train, xgb.QuantileDMatrix(self._encoded[1], self.stopping.label, ref=train, **common))
        return self._matrices[max_bin]


def fit_booster(
    data: FitData,
    parameters: Parameters,
    *,
    seed: int,
    maximum_rounds: int,
    early_stopping_rounds: int,
    callbacks: Sequence[xgb.callback.TrainingCallback] = (),
    threads: int | None = None,
) -> Fit:
    """Fit on `data.train`, stop by the log loss on `data.stopping`.

    Same rows, parameters and seed give the same bytes for any number of `threads` (default: the CPUs this process may use).
    """
    threads = threads or len(os.sched_getaffinity(0))
    train, stopping = data.matrices(int(parameters.get("max_bin", 256)), threads)
    settings = {"objective": "binary:logistic", "eval_metric": "logloss", "tree_method": "hist", **parameters, "seed": seed, "nthread": threads}
    history: dict[str, dict[str, list[float]]] = {}
    booster = xgb.train(
        settings,
        train,
        num_boost_round=maximum_rounds,
        evals=[(stopping, "stopping")],
        evals_result=history,  # type: ignore[arg-type]
        early_stopping_rounds=early_stopping_rounds,
        callbacks=list(callbacks),
        verbose_eval=False,
    )
    best = int(booster.best_iteration)
    cut = booster[: best + 1]
    cut.set_attr(best_iteration=None, best_score=None)
    return Fit(cut, best, float(history["stopping"]["logloss"][best]))


def predict_raw(booster: xgb.Booster, encoding: Encoding, rows: LabelledRows) -> npt.NDArray[np.float64]:
    """The booster's probability [rows], before calibration."""
    return np.asarray(booster.inplace_predict(encoding.encode(rows.frame)), dtype=np.float64)
