"""alibi-detect as the library behind the detectors: KSDrift for numbers, ChiSquareDrift for categories.

A single missing value turns a column's p-value into NaN without an error (0.13), so callers pass values without missing ones; absent
categories make the chi-square table refuse, so only those are passed that either sample has.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from typing import Any

import numpy as np
import numpy.typing as npt


@functools.cache
def load_library() -> Any:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()):  # it announces which optional packages it did not find
        import alibi_detect.cd
    return alibi_detect.cd


class AlibiDetect:
    """Kolmogorov-Smirnov distance per column; Cramér's V from the chi-square statistic. p-values are per column, uncorrected."""

    def numeric(self, reference: npt.NDArray[Any], window: npt.NDArray[Any]) -> list[tuple[float, float]]:
        detector = load_library().KSDrift(_columns(reference), p_val=0.05, correction="fdr")
        found = detector.predict(_columns(window), drift_type="feature", return_p_val=True, return_distance=True)["data"]
        return [(float(distance), float(p_value)) for distance, p_value in zip(found["distance"], found["p_val"], strict=True)]

    def categorical(self, reference: npt.NDArray[Any], window: npt.NDArray[Any], categories: int) -> tuple[float, float]:
        present = np.unique(np.concatenate([reference, window]))
        if len(present) < 2:
            return 0.0, 1.0
        codes = np.zeros(categories, dtype=np.int64)
        codes[present] = np.arange(len(present))
        detector = load_library().ChiSquareDrift(_columns(codes[reference]), p_val=0.05, categories_per_feature={0: list(range(len(present)))})
        found = detector.predict(_columns(codes[window]), drift_type="feature", return_p_val=True, return_distance=True)["data"]
        rows = len(reference) + len(window)
        return float(np.sqrt(max(float(found["distance"][0]), 0.0) / rows)), float(found["p_val"][0])


def _columns(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.reshape(len(values), -1).astype(np.float64)
