"""Performance without labels: NannyML's confidence-based performance estimation (CBPE), with an error that is measured, not assumed.

CBPE takes a calibrated probability at its word: a row predicted with 0.3 counts as 0.3 of a positive and 0.7 of a negative, and the
expected metric follows (https://nannyml.readthedocs.io/en/stable/how_it_works/performance_estimation.html). It sees a change in the
inputs, never one in what they mean.

The interval joins two errors. Sampling: NannyML's standard error of the metric over that many rows. Backtest: CBPE on past rows whose
labels are known by now (blocks of the release's reference, earlier measured windows) against what came true; the mean square of the
differences, less what sampling explains of it, so that nothing counts twice. With k such differences the interval uses Student's t
with k degrees of freedom: a short record of the estimator makes a wide interval.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.contracts.errors import CrisplineError
from components.monitoring.performance.metric import days_of, metric_value

if TYPE_CHECKING:
    import pandas as pd

ESTIMABLE = ("roc_auc", "average_precision")
ASSUMPTION = "Assumes that there is no concept drift: that the probabilities still mean what they meant when they were calibrated."
SHORTEST_RECORD = 4  # blocks into which the reference is cut at least, where it is long enough: fewer say little of the estimator's error
CLASS_ROWS = 10  # rows of either class below which a block's metric is noise rather than a difference to learn from

Probabilities = npt.NDArray[np.float64]


class NotEstimable(CrisplineError):
    """A metric that the estimator cannot estimate without labels."""


@dataclass(frozen=True)
class Difference:
    """One entry of the estimator's record: estimate minus realised value, and the realised value's own standard error."""

    difference: float
    sampling_error: float


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float
    high: float
    sampling_error: float
    backtest_error: float
    record: int


def require_estimable(metric: str) -> None:
    """Raises NotEstimable with the remedy."""
    if metric not in ESTIMABLE:
        raise NotEstimable(
            f"metric {metric!r} cannot be estimated without labels; a threshold on it would be blind until they come"
            f"\n    remedy: promise one of {', '.join(ESTIMABLE)} under retraining.metric"
        )


def expected_metric(metric: str, probability: Probabilities) -> float:
    """CBPE's expectation of the metric for calibrated probabilities [rows]. Raises NotEstimable; NaN when all probabilities are 0 or all 1."""
    require_estimable(metric)
    _quiet()
    from nannyml.performance_estimation.confidence_based.metrics import estimate_ap, estimate_roc_auc

    function = estimate_roc_auc if metric == "roc_auc" else estimate_ap
    return float(function(probability, probability))


def sampling_error(metric: str, reference: pd.DataFrame, rows: int) -> float:
    """NannyML's standard error of the metric over `rows` rows like the reference's (columns `label`, `probability`)."""
    require_estimable(metric)
    _quiet()
    import pandas as pd
    from nannyml.sampling_error import binary_classification as errors

    label = reference["label"].astype("int64").reset_index(drop=True)
    probability = reference["probability"].astype("float64").reset_index(drop=True)
    data = pd.DataFrame(index=range(rows))
    if metric == "roc_auc":
        return float(errors.auroc_sampling_error(errors.auroc_sampling_error_components(label, probability), data))
    with _seeded():
        return float(errors.ap_sampling_error(errors.ap_sampling_error_components(label, probability), data))


def backtest(metric: str, reference: pd.DataFrame, window: timedelta) -> list[Difference]:
    """CBPE against the truth on contiguous blocks of the reference (columns `prediction_moment`, `probability`, `label`).

    Blocks are whole days, at most a window long, and at least `SHORTEST_RECORD` of them where the reference allows. They are taken in
    time order, never shuffled: rows of one day share their weather. Blocks shorter than the window overstate the error, the safe side.
    """
    require_estimable(metric)
    day = days_of(reference["prediction_moment"], timedelta(days=1))
    span = int(day.max() - day.min()) + 1
    length = max(1, min(window // timedelta(days=1), span // SHORTEST_RECORD))
    block = (day - day.min()) // length
    label, probability = reference["label"].to_numpy(dtype=np.int64), reference["probability"].to_numpy(dtype=np.float64)
    found = []
    for number in range(span // length):  # a shorter rest at the end is left out
        rows = block == number
        if min(label[rows].sum(), (1 - label[rows]).sum()) < CLASS_ROWS:
            continue
        difference = expected_metric(metric, probability[rows]) - metric_value(metric, label[rows], probability[rows])
        found.append(Difference(difference, sampling_error(metric, reference, int(rows.sum()))))
    return found


def backtest_error(record: Sequence[Difference]) -> float:
    """Standard error of the estimator beyond sampling: sqrt(mean(difference^2 - sampling_error^2)), not below 0. Raises for an empty record."""
    if not record:
        raise CrisplineError(
            "the estimator has no record: the release's reference has no block with enough rows of both classes"
            "\n    remedy: lengthen model.test_period, which the reference is taken from"
        )
    return math.sqrt(max(0.0, float(np.mean([entry.difference**2 - entry.sampling_error**2 for entry in record]))))


def estimate(metric: str, probability: Probabilities, reference: pd.DataFrame, record: Sequence[Difference], confidence: float) -> Estimate:
    """Estimate the metric on unlabelled rows; `record` holds at least one difference (see `backtest`), low and high are clipped to [0, 1]."""
    value = expected_metric(metric, probability)
    sampling, beyond = sampling_error(metric, reference, len(probability)), backtest_error(record)
    half = student(confidence, len(record)) * math.hypot(sampling, beyond)
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), sampling, beyond, len(record))


def student(confidence: float, degrees: int) -> float:
    """Two-sided quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.5 + confidence / 2, max(1, degrees)))


def _quiet() -> None:
    os.environ.setdefault("NML_DISABLE_USAGE_LOGGING", "1")


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """NannyML resamples with numpy's global generator; the same reference must give the same error, and nobody else's draws may move."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
