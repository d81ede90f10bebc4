"""What the mix of segments alone would do to the performance: each part's performance in the reference, weighted by today's mix.

It answers "is it the model, or are there more of the hard cases?": a measured value within this interval needs no other explanation. The interval
draws the days of the reference (`components.evaluation.bootstrap`); the mix of the window is known, not estimated.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from components.contracts.events import MixExpectation
from components.contracts.usecase import Metric
from components.evaluation.bootstrap import DayBootstrap, FloatArray
from components.evaluation.metrics import Costs, Scored, samples_of

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 200
FEWEST_ROWS = 100  # of a part in the reference; smaller ones, and parts that it does not know, count as one part with the performance of all
_UNUSED = Costs(1.0, 1.0)


def expected_from_mix(metric: Metric, reference: pd.DataFrame, segment: pd.Series[str], window: pd.Series[str], confidence: float) -> MixExpectation | None:
    """`reference`: prediction_moment, probability, label [rows] with `segment` [rows], the part of each; `window`: the parts of the window's rows.

    None where the reference spans a single day, or no part's metric can be computed.
    """
    if reference["prediction_moment"].dt.floor("D").nunique() < 2 or not len(window):
        return None
    bootstrap = DayBootstrap.draw(reference["prediction_moment"], DRAWS, confidence, 0)
    scored = Scored(reference["probability"].to_numpy(np.float64), reference["label"].to_numpy(np.bool_), 0.5, _UNUSED)
    whole = samples_of(metric, scored, bootstrap)
    shares: Mapping[Hashable, float] = window.value_counts(normalize=True).to_dict()
    expected, known = np.zeros_like(whole), 0.0
    for part, share in shares.items():
        rows = (segment == part).to_numpy(np.bool_)
        if rows.sum() < FEWEST_ROWS:
            continue
        samples = samples_of(metric, scored.part(rows), bootstrap.part(rows))
        if not np.isfinite(samples[0]):
            continue
        expected, known = expected + share * np.where(np.isfinite(samples), samples, samples[0]), known + share
    if known == 0.0:
        return None
    found = bootstrap.interval(expected + (1 - known) * whole)
    usual = _usual(metric, scored, bootstrap, segment, whole)
    return None if found is None else MixExpectation(value=found.value, low=found.low, high=found.high, reference=usual)


def _usual(metric: Metric, scored: Scored, bootstrap: DayBootstrap, segment: pd.Series[str], whole: FloatArray) -> float:
    """The same with the reference's own mix, so that the two differ by the mix alone."""
    total, known = 0.0, 0.0
    for part, share in segment.value_counts(normalize=True).items():
        rows = (segment == part).to_numpy(np.bool_)
        value = float(samples_of(metric, scored.part(rows), bootstrap.part(rows))[0]) if rows.sum() >= FEWEST_ROWS else float("nan")
        if np.isfinite(value):
            total, known = total + float(share) * value, known + float(share)
    return total + (1 - known) * float(whole[0])
