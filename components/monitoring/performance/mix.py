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
from components.evaluation.metrics import Scored, samples_of

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 200
FEWEST_ROWS = 100  # of a part in the reference; smaller ones, and parts that it does not know, count as one part with the performance of all


def expected_from_mix(metric: Metric, reference: pd.DataFrame, segment: pd.Series[str], window: pd.Series[str], confidence: float) -> MixExpectation | None:
    """`reference`: prediction_moment, probability, label [rows] with `segment` [rows], the part of each; `window`: the parts of the window's rows.

    None where the reference spans a single day, or no part's metric can be computed.
    """
    if reference["prediction_moment"].dt.floor("D").nunique() < 2 or not len(window):
        return None
    bootstrap = DayBootstrap.draw(reference["prediction_moment"], DRAWS, confidence, 0)
    scored = Scored.undecided(reference["probability"].to_numpy(np.float64), reference["label"].to_numpy(np.bool_))
    whole = samples_of(metric, scored, bootstrap)
    parts: dict[Hashable, FloatArray] = {}
    for part in segment.unique():
        rows = (segment == part).to_numpy(np.bool_)
        samples = samples_of(metric, scored.part(rows), bootstrap.part(rows)) if rows.sum() >= FEWEST_ROWS else whole[:1] * np.nan
        if np.isfinite(samples[0]):
            parts[part] = np.where(np.isfinite(samples), samples, samples[0])
    shares, usual = (each.value_counts(normalize=True) for each in (window, segment))
    found = bootstrap.interval(_weighted(parts, shares, whole)) if parts.keys() & set(shares.index) else None
    return None if found is None else MixExpectation(value=found.value, low=found.low, high=found.high, reference=float(_weighted(parts, usual, whole)[0]))


def _weighted(parts: Mapping[Hashable, FloatArray], shares: pd.Series[float], whole: FloatArray) -> FloatArray:
    """The parts' samples weighted by their shares; what is in no part of `parts` counts as the whole."""
    unknown = 1.0 - sum(share for part, share in shares.items() if part in parts)
    return np.asarray(sum((share * parts[part] for part, share in shares.items() if part in parts), unknown * whole))
