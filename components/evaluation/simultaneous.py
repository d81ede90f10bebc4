"""Bounds that hold for many parts at once.

With a dozen slices some interval always lies beyond a limit by chance. The largest studentised deviation over all parts is drawn instead, on
the same bootstrap draws, so that what the parts have in common (a bad day hits all of them) is not paid for twice, as Bonferroni would
(single-step max-T: Westfall and Young 1993, "Resampling-Based Multiple Testing"; for the bootstrap Romano and Wolf 2005,
https://doi.org/10.1111/j.1468-0262.2005.00615.x).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from components.contracts.evaluation import MetricValue
from components.evaluation.bootstrap import MINIMUM_DEFINED_SHARE, DayBootstrap, FloatArray


def simultaneous_bounds(samples: Sequence[FloatArray], bootstrap: DayBootstrap, confidence: float) -> list[MetricValue | None]:
    """One value with bounds for each of `samples` [1 + draws]; None where the estimate or half of the draws are undefined.

    With probability `confidence` no truth lies below its `low`; likewise none above its `high` (one-sided each, over all parts).
    """
    from scipy.stats import norm, t

    usable = [index for index, each in enumerate(samples) if np.isfinite(each[0]) and np.isfinite(each[1:]).mean() >= MINIMUM_DEFINED_SHARE]
    bounds: list[MetricValue | None] = [None] * len(samples)
    if not usable:
        return bounds
    stacked = np.array([samples[index] for index in usable])
    value, draws = stacked[:, 0], stacked[:, 1:]
    error = np.nanstd(draws, axis=1, ddof=1)
    deviation = np.divide(draws - value[:, None], error[:, None], out=np.zeros_like(draws), where=(error[:, None] > 0) & np.isfinite(draws))
    days = bootstrap.days

    def critical(extreme: FloatArray) -> float:
        """The quantile of the largest deviation. A bootstrap of few days has a normal tail at best: what it gives is turned into the t quantile of the same
        probability, which matters the more the more parts there are."""
        normal = max(0.0, float(np.quantile(extreme, confidence)))
        quantile = float(t.isf(norm.sf(normal), days - 1))
        return quantile * math.sqrt(days / (days - 1))

    up, down = critical(deviation.max(axis=0)), critical((-deviation).max(axis=0))
    for index, estimate, spread in zip(usable, value, error, strict=True):
        low, high = estimate - up * spread, estimate + down * spread
        bounds[index] = MetricValue(value=float(estimate), low=float(low), high=float(high))
    return bounds
