"""The metrics of binary probabilities, each for the estimate and all bootstrap draws at once.

Every function returns an array [1 + samples] (see `DayBootstrap.weights`), NaN where a draw leaves the metric undefined. Rank metrics need
only the counts of positives and negatives per distinct probability and day; the others are sums per day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from components.contracts.errors import CrisplineError
from components.contracts.evaluation import MetricValue
from components.contracts.usecase import HIGHER_IS_BETTER, Metric
from components.evaluation.bootstrap import BoolArray, DayBootstrap, FloatArray, IntArray

# Log loss is unbounded; a probability counts as at least this far from 0 and 1 (a calibrator's flat ends are exactly 0 or 1).
PROBABILITY_FLOOR = 1e-6
CALIBRATION_BINS = 10
# A bin's observed share has a standard error of up to 0.05 at this many rows; fewer rows would measure noise as miscalibration.
ROWS_PER_BIN = 100
DRAWS_AT_ONCE = 64


@dataclass(frozen=True)
class Costs:
    """Money per false alarm and per miss; a right decision costs nothing."""

    false_alarm: float
    miss: float


@dataclass(frozen=True)
class Scored:
    """Probabilities [rows], labels [rows], and the decision taken with each model's own threshold."""

    probability: FloatArray
    label: BoolArray
    threshold: float
    costs: Costs

    @classmethod
    def undecided(cls, probability: FloatArray, label: BoolArray) -> Scored:
        """For metrics that read no decision: threshold and costs do not matter."""
        return cls(probability, label, 0.5, Costs(1.0, 1.0))

    def part(self, rows: BoolArray | IntArray) -> Scored:
        return Scored(self.probability[rows], self.label[rows], self.threshold, self.costs)

    @property
    def decided(self) -> BoolArray:
        return np.asarray(self.probability >= self.threshold)


def samples_of(metric: Metric, scored: Scored, bootstrap: DayBootstrap) -> FloatArray:
    """The metric [1 + samples]."""
    return METRICS[metric](scored, bootstrap)


def measure(metrics: Iterable[Metric], scored: Scored, bootstrap: DayBootstrap) -> dict[Metric, MetricValue]:
    """Each metric with its interval. Undefined ones (a single class) are left out."""
    values = ((metric, bootstrap.interval(samples_of(metric, scored, bootstrap))) for metric in metrics)
    return {metric: value for metric, value in values if value is not None}


def improvement(metric: Metric, model: FloatArray, opponent: FloatArray) -> FloatArray:
    """Paired difference [1 + samples], positive where the model is better."""
    return model - opponent if HIGHER_IS_BETTER[metric] else opponent - model


def roc_auc(scored: Scored, bootstrap: DayBootstrap) -> FloatArray:
    """Area under the ROC curve: the probability that a positive ranks above a negative, ties counted half (Mann-Whitney).

    The pairs of each two days are counted once, so a draw costs only a quadratic form in its weights.
    """
    positive, negative = _counts(scored, bootstrap)
    below = np.cumsum(negative, axis=0) - negative / 2
    won = np.einsum("si,ij,sj->s", bootstrap.weights, positive.T @ below, bootstrap.weights, optimize=True)
    return _divided(won, (bootstrap.weights @ positive.sum(axis=0)) * (bootstrap.weights @ negative.sum(axis=0)))


def average_precision(scored: Scored, bootstrap: DayBootstrap) -> FloatArray:
    """Sum over thresholds of precision times the step in recall, as scikit-learn's `average_precision_score`."""

    positive, negative = (counts[::-1] for counts in _counts(scored, bootstrap))
    parts = []
    for start in range(0, len(bootstrap.weights), DRAWS_AT_ONCE):
        weights = bootstrap.weights[start : start + DRAWS_AT_ONCE].T
        step = positive @ weights
        found = np.cumsum(step, axis=0)
        alarms = found + np.cumsum(negative @ weights, axis=0)
        precision = np.divide(found, alarms, out=np.zeros_like(found), where=alarms > 0)
        parts.append(_divided((step * precision).sum(axis=0), found[-1]))
    return np.concatenate(parts)


def brier(scored: Scored, bootstrap: DayBootstrap) -> FloatArray:
    """Mean squared difference of probability and label."""
    return _mean((scored.probability - scored.label) ** 2, bootstrap)


def log_loss(scored: Scored, bootstrap: DayBootstrap) -> FloatArray:
    """Mean negative log likelihood in nats."""
    given = np.clip(np.where(scored.label, scored.probability, 1 - scored.probability), PROBABILITY_FLOOR, 1)
    return _mean(-np.log(given), bootstrap)


def expected_cost(scored: Scored, bootstrap: DayBootstrap) -> FloatArray:
    """Money per row at the decision threshold, with the business costs of a false alarm and of a miss."""
    wrong = scored.decided != scored.label
    return _mean(wrong * np.where(scored.label, scored.costs.miss, scored.costs.false_alarm), bootstrap)


def calibration_error(scored: Scored, bootstrap: DayBootstrap) -> FloatArray:
    """Expected calibration error: mean over rows of |mean probability - observed share| of the row's bin.

    Bins have equal mass (up to ten, of at least 100 rows; equal probabilities share a bin) and are cut once on all rows. The error of a
    perfectly calibrated model is above zero in a finite sample, and a resampled one higher still: the interval errs on the cautious side.
    """
    bins = calibration_bins(scored.probability)
    total = np.zeros(len(bootstrap.weights))
    for number in range(int(bins.max()) + 1 if len(bins) else 0):
        inside = bins == number
        total += np.abs(_sums(np.where(inside, scored.probability - scored.label, 0.0), bootstrap))
    return _divided(total, _rows(bootstrap))


def calibration_bins(probability: FloatArray) -> IntArray:
    """Each row's bin of equal mass, from 0, by probability [rows]."""
    count = max(1, min(CALIBRATION_BINS, len(probability) // ROWS_PER_BIN))
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, count + 1)[1:-1])) if len(probability) else np.empty(0)
    # A row on an edge belongs to the bin below it; `unique` closes the gaps that ties leave.
    return np.unique(np.searchsorted(edges, probability, side="left"), return_inverse=True)[1].astype(np.int64)


def observed_share(scored: Scored, bootstrap: DayBootstrap) -> FloatArray:
    """Share of positives [1 + samples]."""
    return _mean(scored.label.astype(np.float64), bootstrap)


METRICS: dict[Metric, Callable[[Scored, DayBootstrap], FloatArray]] = {
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "brier": brier,
    "log_loss": log_loss,
    "expected_cost": expected_cost,
    "calibration_error": calibration_error,
}


def require_both_classes(label: BoolArray, place: str) -> None:
    """Raises CrisplineError when there is nothing to tell apart."""
    if len(label) == 0 or label.all() or not label.any():
        raise CrisplineError(
            f"{place} has {int(label.sum())} positive and {int((~label).sum())} negative labels; lengthen model.test_period, or wait for labels"
        )


def _counts(scored: Scored, bootstrap: DayBootstrap) -> tuple[FloatArray, FloatArray]:
    """Positives and negatives [distinct probabilities ascending, days]."""
    distinct, rank = np.unique(scored.probability, return_inverse=True)
    shape = (len(distinct), bootstrap.days)
    cell = rank * bootstrap.days + bootstrap.day
    positive, negative = (np.bincount(cell[mask], minlength=shape[0] * shape[1]) for mask in (scored.label, ~scored.label))
    return positive.reshape(shape).astype(np.float64), negative.reshape(shape).astype(np.float64)


def _sums(values: FloatArray, bootstrap: DayBootstrap) -> FloatArray:
    return np.asarray(bootstrap.weights @ np.bincount(bootstrap.day, weights=values, minlength=bootstrap.days))


def _rows(bootstrap: DayBootstrap) -> FloatArray:
    return _sums(np.ones(len(bootstrap.day)), bootstrap)


def _mean(values: FloatArray, bootstrap: DayBootstrap) -> FloatArray:
    return _divided(_sums(values, bootstrap), _rows(bootstrap))


def _divided(total: FloatArray, rows: FloatArray) -> FloatArray:
    return np.divide(total, rows, out=np.full_like(total, np.nan), where=rows > 0)
