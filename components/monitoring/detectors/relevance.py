"""What the drift of one feature does to the predictions: moved rows count by what the model says where they came from and where they went.

The reference is cut into bins of equal mass by the feature; the mean prediction of each bin and the window's shares of the bins give the mean
prediction to expect, all else equal. A feature that the model does not use has the same mean prediction in every bin and so no relevance,
however far it moves. It is a marginal view: what several features do together shows in the predictions' own test.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.monitoring.detectors.base import PROBABILITY, DetectorResult, PartResult
from components.monitoring.detectors.effect import numbers

BINS = 20


def weigh(results: list[DetectorResult], reference: pd.DataFrame, window: pd.DataFrame) -> list[DetectorResult]:
    """Alarms of kind `data_drift` with the relevance of each drifted part in their words and order: what moves the predictions most comes first."""
    return [_weighed(result, reference, window) if result.alarm and result.kind == "data_drift" else result for result in results]


def relevance(part: str, reference: pd.DataFrame, window: pd.DataFrame) -> float:
    """Points of probability by which the predictions are moved, rows up and rows down counted alike (they may cancel out in the mean)."""
    before, after = _bins(reference[part], window[part])
    prediction = reference[PROBABILITY].to_numpy(dtype=np.float64)
    bins = int(max(before.max(), after.max())) + 1
    rows = np.bincount(before, minlength=bins)
    mean = np.divide(np.bincount(before, weights=prediction, minlength=bins), rows, out=np.full(bins, float(prediction.mean())), where=rows > 0)
    moved = np.bincount(after, minlength=bins) / len(after) - rows / len(before)
    return 100.0 * float(np.abs(moved * (mean - prediction.mean())).sum())


def _weighed(result: DetectorResult, reference: pd.DataFrame, window: pd.DataFrame) -> DetectorResult:
    points = {part.part: relevance(part.part, reference, window) for part in result.parts if part.alarm}
    parts = tuple(_told(part, points[part.part]) if part.alarm else part for part in result.parts)
    drifted = sorted((part for part in parts if part.alarm), key=lambda part: -points[part.part])
    return result.model_copy(
        update={"parts": parts, "subject": ", ".join(part.part for part in drifted), "effect": "; ".join(part.text for part in drifted[:5])}
    )


def _told(part: PartResult, points: float) -> PartResult:
    words = "moves the predictions by less than 0.1 points" if points < 0.1 else f"moves the predictions by {points:.1f} points"
    return part.model_copy(update={"relevance": points, "text": f"{part.text}, which {words}"})


def _bins(reference: pd.Series[float], window: pd.Series[float]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each row's bin, missing values in one of their own."""
    if pd.api.types.is_numeric_dtype(reference):
        known, now = numbers(reference), numbers(window)
        finite = known[np.isfinite(known)]
        edges = np.unique(np.quantile(finite, np.linspace(0, 1, BINS + 1)[1:-1])) if len(finite) else np.empty(0)
        return tuple(np.where(np.isfinite(each), np.searchsorted(edges, each) + 1, 0).astype(np.int64) for each in (known, now))  # type: ignore[return-value]
    names = {name: number + 1 for number, name in enumerate(sorted(reference.dropna().astype(str).unique()))}
    return tuple(each.map(lambda value: 0 if pd.isna(value) else names.get(str(value), len(names) + 1)).to_numpy(np.int64) for each in (reference, window))  # type: ignore[return-value]
