"""Intervals by a block bootstrap over days.

Rows of one day share its weather and its disruptions, so they are not independent: resampling rows would give intervals that are far too
narrow. Whole days are drawn with replacement instead (Künsch 1989, https://doi.org/10.1214/aos/1176347265; non-overlapping blocks of one
UTC day of event time). A metric depends on a draw only through how often each day was drawn, so a draw is a row of counts and all
samples of a metric come out of one matrix product (see `components.evaluation.metrics`).

With few days the percentile interval is too narrow; its quantiles are expanded as Hesterberg (2015, https://doi.org/10.1080/00031305.2015.1089789,
section 4.3) proposes: alpha/2 becomes Phi(-sqrt(n / (n - 1)) * t(1 - alpha/2, n - 1)) for n days.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.contracts.errors import CrisplineError
from components.contracts.evaluation import MetricValue

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Below this share of samples in which a metric is defined, an interval would describe the samples that happened to be lucky.
MINIMUM_DEFINED_SHARE = 0.5


@dataclass(frozen=True)
class DayBootstrap:
    """`day`: each row's day as a position [rows]; `weights` [1 + samples, days]: row 0 counts every day once (the estimate), each further
    row is one draw. `tail`: the expanded quantile of the lower end."""

    day: IntArray
    weights: FloatArray
    tail: float

    @classmethod
    def draw(cls, event_time: pd.Series, samples: int, confidence: float, seed: int) -> DayBootstrap:
        """Draw `samples` times from the UTC days of `event_time` (aware). Raises CrisplineError for fewer than two days."""
        day, days = pd.factorize(event_time.dt.tz_convert("UTC").dt.floor("D"), sort=True)
        if len(days) < 2:
            raise CrisplineError(f"the test split covers {len(days)} day(s); an interval needs at least two, so lengthen model.test_period")
        drawn = np.random.default_rng(seed).multinomial(len(days), np.full(len(days), 1 / len(days)), size=samples)
        weights = np.vstack([np.ones(len(days)), drawn]).astype(np.float64)
        return cls(day.astype(np.int64), weights, expanded_tail(confidence, len(days)))

    @property
    def days(self) -> int:
        return int(self.weights.shape[1])

    def part(self, rows: BoolArray | IntArray) -> DayBootstrap:
        """The same draws for some of the rows, so that what is compared stays paired."""
        return DayBootstrap(self.day[rows], self.weights, self.tail)

    def interval(self, samples: FloatArray) -> MetricValue | None:
        """The estimate (`samples[0]`) with its interval; None where it is undefined, or was in half of the draws.

        The interval is widened to contain the estimate: a biased statistic such as the calibration error may lie outside of its quantiles.
        """
        drawn = samples[1:]
        defined = drawn[np.isfinite(drawn)]
        if not np.isfinite(samples[0]) or len(defined) < MINIMUM_DEFINED_SHARE * len(drawn):
            return None
        low, high = np.quantile(defined, [self.tail, 1 - self.tail])
        value = float(samples[0])
        return MetricValue(value=value, low=min(float(low), value), high=max(float(high), value))


def expanded_tail(confidence: float, days: int) -> float:
    """The quantile of the lower end for `confidence` (0.95 gives 0.025 with very many days, less with few)."""
    from scipy.stats import t

    quantile = float(t.ppf(0.5 + confidence / 2, days - 1)) * (days / (days - 1)) ** 0.5
    return NormalDist().cdf(-quantile)
