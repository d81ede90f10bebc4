"""Faults of a feed that look like drift: a stuck sensor and a changed unit. They page whoever owns the feed; a model must not learn from them.

Looked for only where a numeric feature alarms, so they add no false alarm: they say what an alarm is. Missing values have a test of their own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.monitoring.detectors.base import DetectorResult, PartResult, TwoSampleTest
from components.monitoring.detectors.effect import numbers, numeric_difference

FAULTS = "faults"
# A stuck sensor repeats one value: this much more of the rows, and this many times as often, as any value of the reference.
STUCK_POINTS, STUCK_TIMES = 0.15, 3.0
# A conversion explains a change when it takes most of it away, down to what is natural between periods.
EXPLAINED_SHARE = 0.5

_FACTORS = {
    "miles and kilometres": 1.609344,
    "knots and miles an hour": 1.150779,
    "knots and kilometres an hour": 1.852,
    "metres a second and miles an hour": 2.236936,
    "metres a second and kilometres an hour": 3.6,
    "feet and metres": 3.28084,
    "inches and millimetres": 25.4,
    "inches and centimetres": 2.54,
    "pounds and kilograms": 2.204623,
    "inches of mercury and hectopascals": 33.86389,
    "seconds and minutes, or minutes and hours": 60.0,
    "shares and percent": 100.0,
    "a thousandfold prefix": 1000.0,
    "seconds and hours": 3600.0,
}
# (what changed, values as they were from values as they are)
CONVERSIONS: tuple[tuple[str, float, float], ...] = (
    ("Celsius instead of Fahrenheit", 1.8, 32.0),
    ("Fahrenheit instead of Celsius", 1 / 1.8, -32.0 / 1.8),
    ("Kelvin instead of Celsius", 1.0, -273.15),
    ("Celsius instead of Kelvin", 1.0, 273.15),
    ("its sign", -1.0, 0.0),
    *((name, factor, 0.0) for name, factor in _FACTORS.items()),
    *((name, 1 / factor, 0.0) for name, factor in _FACTORS.items()),
)


def diagnose(
    reference: pd.DataFrame, window: pd.DataFrame, results: Iterable[DetectorResult], numeric: Iterable[str], library: TwoSampleTest
) -> DetectorResult | None:
    """The faults behind alarms of kind `data_drift`, as one result of kind `data_quality`; None where drift is all that is seen.

    Frames [rows, features]. A part's statistic is the alarm's own; its effect the share of stuck rows in points, or the factor between units.
    """
    names = set(numeric)
    drifted = [result for result in results if result.kind == "data_drift" and result.alarm]
    alarmed = [part for result in drifted for part in result.parts if part.alarm and part.part in names]
    found = [fault for part in alarmed for fault in [_stuck(part, reference, window) or _other_unit(part, reference, window, library)] if fault is not None]
    if not found:
        return None
    worst = max(found, key=lambda part: part.statistic / part.threshold)
    return DetectorResult(
        detector=FAULTS,
        kind="data_quality",
        alarm=True,
        subject=", ".join(part.part for part in found),
        statistic=worst.statistic,
        threshold=worst.threshold,
        p_value=min(result.p_value for result in drifted),
        effect="; ".join(part.text for part in found),
        rows=len(window),
        parts=tuple(found),
    )


def _stuck(part: PartResult, reference: pd.DataFrame, window: pd.DataFrame) -> PartResult | None:
    before, after = _values(reference[part.part]), _values(window[part.part])
    usual = float(np.unique(before, return_counts=True)[1].max()) / len(before)
    values, counts = np.unique(after, return_counts=True)
    share, value = float(counts.max()) / len(after), float(values[counts.argmax()])
    if share < max(usual + STUCK_POINTS, STUCK_TIMES * usual):
        return None
    text = f"{part.part}: stuck at {value:.4g} in {100 * share:.0f}% of the rows, where no value was in more than {100 * usual:.0f}%"
    return part.model_copy(update={"effect": 100 * share, "unit": "points stuck", "text": text})


def _other_unit(part: PartResult, reference: pd.DataFrame, window: pd.DataFrame, library: TwoSampleTest) -> PartResult | None:
    before, after = _values(reference[part.part]), _values(window[part.part])
    best: tuple[float, str, float] | None = None
    for name, factor, offset in CONVERSIONS:
        difference = numeric_difference(part.part, library, before, factor * after + offset)
        if difference is not None and (best is None or difference.statistic < best[0]):
            best = difference.statistic, name, factor
    if best is None or best[0] > min(part.threshold, EXPLAINED_SHARE * part.statistic):
        return None
    text = f"{part.part}: its unit seems to have changed ({best[1]}): median {np.median(before):.4g} -> {np.median(after):.4g}, converted it is as it was"
    return part.model_copy(update={"effect": best[2], "unit": "factor", "text": text})


def _values(column: pd.Series[float]) -> npt.NDArray[np.float64]:
    values = numbers(column)
    finite: npt.NDArray[np.float64] = values[np.isfinite(values)]
    return finite
