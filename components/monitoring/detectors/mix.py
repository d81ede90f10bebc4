"""Differences in the mix: expected share of positives, shares of a segment, shares of missing values."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import numpy as np
import pandas as pd

from components.monitoring.detectors.base import PROBABILITY, Difference, Frozen, TwoSampleTest
from components.monitoring.detectors.effect import Categories, categorical_difference


class ClassMixComparison(Frozen):
    """The expected share of positives: the mean calibrated probability. It assumes that the calibration still holds."""

    kind: Literal["class_mix"] = "class_mix"
    minimum_ratio: float = 0.0

    def compare(self, library: TwoSampleTest, reference: pd.DataFrame, window: pd.DataFrame) -> list[Difference]:  # noqa: ARG002 - a difference of means needs no library
        before, after = reference[PROBABILITY].to_numpy(np.float64), window[PROBABILITY].to_numpy(np.float64)
        change = float(after.mean() - before.mean())
        deviation = float(before.std()) * math.sqrt(1 / len(before) + 1 / len(after))
        noise = max(deviation, 1e-9) * math.sqrt(2 / math.pi)
        p_value = 2 * (1 - NormalDist().cdf(abs(change) / max(deviation, 1e-9)))
        text = f"expected share of positives {100 * before.mean():.1f}% -> {100 * after.mean():.1f}% ({100 * change:+.1f} points)"
        return [Difference(part="expected_positives", statistic=abs(change), p_value=p_value, noise=noise, effect=100 * change, unit="points", text=text)]


class SegmentMixComparison(Frozen):
    """The shares of the values of one column."""

    kind: Literal["segment_mix"] = "segment_mix"
    column: str
    categories: Categories
    minimum_ratio: float = 0.0

    def compare(self, library: TwoSampleTest, reference: pd.DataFrame, window: pd.DataFrame) -> list[Difference]:
        difference = categorical_difference(self.column, library, self.categories, reference[self.column], window[self.column])
        return [] if difference is None else [difference]


class MissingComparison(Frozen):
    """The share of missing values of every feature: a fault of a feed, not drift.

    Values go missing by hours and days, not by rows, so a feature's natural variation is at least what one bad day in the reference would
    make (rule of succession over days), and the threshold at least the family-wise normal limit in multiples of it.
    """

    kind: Literal["missing"] = "missing"
    features: tuple[str, ...]
    day_noise: float
    minimum_ratio: float

    @classmethod
    def fit(cls, features: tuple[str, ...], reference_days: int, window_days: float, alpha: float) -> MissingComparison:
        share = 1 / (reference_days + 2)
        noise = math.sqrt(share * (1 - share) * (1 / max(window_days, 1.0) + 1 / max(reference_days, 1)))
        return cls(features=features, day_noise=noise, minimum_ratio=NormalDist().inv_cdf(1 - alpha / (2 * max(len(features), 1))))

    def compare(self, library: TwoSampleTest, reference: pd.DataFrame, window: pd.DataFrame) -> list[Difference]:  # noqa: ARG002 - shares need no library
        before, after = reference[list(self.features)].isna().mean(), window[list(self.features)].isna().mean()
        found = []
        for name in self.features:
            change = float(after[name] - before[name])
            pooled = (before[name] * len(reference) + after[name] * len(window)) / (len(reference) + len(window))
            deviation = math.sqrt(max(pooled * (1 - pooled), 0.0) * (1 / len(reference) + 1 / len(window)))
            p_value = 2 * (1 - NormalDist().cdf(abs(change) / deviation)) if deviation > 0 else 1.0
            text = f"{name}: missing in {100 * before[name]:.1f}% -> {100 * after[name]:.1f}% of the rows"
            found.append(
                Difference(part=name, statistic=abs(change), p_value=p_value, noise=self.day_noise, effect=100 * change, unit="points missing", text=text)
            )
        return found
