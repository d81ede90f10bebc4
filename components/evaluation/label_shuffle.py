"""What is left to learn when the training labels are shuffled: nothing, unless the pipeline lets a label in by another door.

A model of shuffled labels that ranks the true labels of the test period has seen them: through a trainer that does not use the labels it is
given, a split that is none, or an evaluation that looks twice (a permutation test of the whole pipeline, Ojala and Garriga 2010,
https://www.jmlr.org/papers/v11/ojala10a.html).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.contracts.evaluation import ShuffledLabels
from components.contracts.loading import LoadedUseCase
from components.evaluation.bootstrap import BoolArray, DayBootstrap, FloatArray
from components.evaluation.metrics import Scored, roc_auc

# Each model of noise ranks a test period by chance somewhat above or below a coin; the mean of several is closer to it.
SHUFFLES = 8
ROUNDS = 30

Learner = Callable[[npt.NDArray[np.float64]], FloatArray]


def measure_label_shuffle(learn: Learner, training_label: FloatArray, test_label: BoolArray, bootstrap: DayBootstrap, seed: int) -> ShuffledLabels | None:
    """Mean AUC on the test rows [rows of `bootstrap`] of models that learned from `training_label` shuffled; None where it cannot be computed.

    `learn`: labels of the training rows -> scores of the test rows.
    """
    random = np.random.default_rng(seed)
    samples = [roc_auc(Scored.undecided(learn(random.permutation(training_label)), test_label), bootstrap) for _ in range(SHUFFLES)]
    auc = bootstrap.interval(np.mean(samples, axis=0))
    return None if auc is None else ShuffledLabels(auc=auc, shuffles=SHUFFLES)


def booster_learner(usecase: LoadedUseCase, train: pd.DataFrame, test: pd.DataFrame) -> Learner:
    """The use case's own booster, in its smallest form: fixed parameters and rounds, the model's encoding."""
    import xgboost as xgb

    from components.model_engineering.rows import encoding_of

    encoding = encoding_of(usecase)
    names = {"feature_names": list(encoding.feature_names), "feature_types": encoding.feature_types, "enable_categorical": True}
    matrix = xgb.QuantileDMatrix(encoding.encode(train), np.zeros(len(train)), max_bin=64, **names)
    asked = encoding.encode(test)
    parameters = {"objective": "binary:logistic", "tree_method": "hist", "max_depth": 5, "eta": 0.3, "max_bin": 64, "seed": usecase.config.model.seed}

    def learn(label: npt.NDArray[np.float64]) -> FloatArray:
        matrix.set_label(label)
        return np.asarray(xgb.train(parameters, matrix, ROUNDS).inplace_predict(asked), dtype=np.float64)

    return learn
