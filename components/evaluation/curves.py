"""Points of the curves that the reports draw."""

from __future__ import annotations

import numpy as np

from components.contracts.evaluation import ReliabilityBin
from components.evaluation.bootstrap import DayBootstrap, FloatArray
from components.evaluation.metrics import Scored, calibration_bins, observed_share

POINTS = 120

Points = tuple[tuple[float, float], ...]


def roc(scored: Scored) -> Points:
    """(false positive rate, true positive rate) from (0, 0) to (1, 1), one point per distinct probability, thinned to 120."""
    positive, negative = _cumulative(scored)
    return _thin(np.r_[0.0, negative / negative[-1]], np.r_[0.0, positive / positive[-1]])


def precision_recall(scored: Scored) -> Points:
    """(recall, precision) by falling threshold, thinned to 120 points."""
    positive, negative = _cumulative(scored)
    return _thin(positive / positive[-1], positive / (positive + negative))


def reliability(scored: Scored, bootstrap: DayBootstrap) -> tuple[ReliabilityBin, ...]:
    """The reliability curve over the bins of `calibration_error`: mean probability and observed share with its interval."""
    bins = calibration_bins(scored.probability)
    found = []
    for number in range(int(bins.max()) + 1):
        inside = bins == number
        observed = bootstrap.part(inside).interval(observed_share(scored.part(inside), bootstrap.part(inside)))
        if observed is not None:
            found.append(ReliabilityBin(predicted=float(scored.probability[inside].mean()), observed=observed, rows=int(inside.sum())))
    return tuple(found)


def _cumulative(scored: Scored) -> tuple[FloatArray, FloatArray]:
    """Positives and negatives at or above each distinct probability, highest first."""
    _, rank = np.unique(-scored.probability, return_inverse=True)
    size = int(rank.max()) + 1
    return np.cumsum(np.bincount(rank, scored.label, size)), np.cumsum(np.bincount(rank, ~scored.label, size))


def _thin(x: FloatArray, y: FloatArray) -> Points:
    keep = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int)) if len(x) > POINTS else np.arange(len(x))
    return tuple((float(x[i]), float(y[i])) for i in keep)
