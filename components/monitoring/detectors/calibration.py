"""When a difference is an alarm: thresholds from blocks of reference time, so that natural variation between periods is no alarm.

Rows of a day are not independent, so a test that takes them as such fires every week. Here the reference is cut into windows like those in
service; each block is compared with reference time that it is not part of, and a new window alarms only when it differs more than blocks of
the reference do among themselves, at the promised rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.contracts.errors import InvalidData
from components.monitoring.detectors.base import AlertKind, Comparison, DetectorResult, Difference, Frozen, PartResult, TwoSampleTest

MAXIMUM_SAMPLE = 10_000
MINIMUM_BLOCKS = 4
_BASE_BLOCKS = 3  # forward comparison: the first block that is tested has that many before it
_FORWARD_TESTS = 6
_LOWEST_RATIO = 0.5  # smaller ratios count as this: they say nothing of the upper tail, but their logarithms would widen it without bound
Blocks = list[npt.NDArray[np.int64]]


class Calibration(Frozen):
    """A part's threshold is `limit * scale[part]`.

    `method`: `order_statistic` when the blocks are many enough for the promised rate (exact for exchangeable blocks, Vovk et al. 2005);
    otherwise `prediction_limit`: Student's prediction limit for one new value, of the logarithm. `blocks`: values that it rests on.
    """

    scale: dict[str, float]
    limit: float
    alpha: float
    method: Literal["order_statistic", "prediction_limit"]
    blocks: int
    block_length_seconds: float
    scheme: Literal["forward", "leave_one_out"]
    log_mean: float
    log_deviation: float
    values: tuple[float, ...]

    def p_value(self, ratio: float) -> float:
        """Share of reference-like windows with a ratio at least as large."""
        if self.method == "order_statistic":
            return (1 + sum(value >= ratio for value in self.values)) / (len(self.values) + 1)
        from scipy.stats import t

        spread = max(self.log_deviation, 1e-9) * math.sqrt(1 + 1 / self.blocks)
        return float(t.sf((math.log(max(ratio, 1e-12)) - self.log_mean) / spread, self.blocks - 1))


def cut_blocks(moments: pd.Series[Any], window: timedelta, minimum_rows: int) -> tuple[Blocks, timedelta]:
    """Row numbers of each block in time order, and the blocks' length.

    Blocks are windows (multiples of `window` since the epoch) with at least half the median number of rows. Where the reference holds fewer
    than four, days are taken instead: they vary more than windows do, so thresholds err on the quiet side. Raises InvalidData when
    there are fewer than four of these too.
    """
    for length in (window, timedelta(days=1)):
        numbers = ((moments - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(length)).to_numpy()
        groups = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
        half = float(np.median([len(group) for group in groups])) / 2 if groups else 0.0
        smallest = minimum_rows if length == window else min(minimum_rows, 30)
        blocks = [group for group in groups if len(group) >= max(half, smallest, 1)]
        if len(blocks) >= MINIMUM_BLOCKS:
            return blocks, length
    raise InvalidData(
        f"the reference holds {len(blocks)} days with enough rows; drift thresholds need at least {MINIMUM_BLOCKS} blocks of time"
        "\n    remedy: train on a longer period or lower monitoring.minimum_rows"
    )


def even_sample(rows: npt.NDArray[np.int64], maximum: int = MAXIMUM_SAMPLE) -> npt.NDArray[np.int64]:
    """At most `maximum` of the row numbers, evenly spread in their order: deterministic, and every period keeps its weight."""
    return rows if len(rows) <= maximum else rows[np.linspace(0, len(rows) - 1, maximum).round().astype(np.int64)]


def calibrate(comparison: Comparison, library: TwoSampleTest, frame: pd.DataFrame, blocks: Blocks, length: timedelta, alpha: float) -> Calibration:
    """Compare each block with reference time outside of it and derive scale and limit for a false-alarm rate of `alpha` per window.

    With nine blocks or more each is compared with those before it, as in service; with fewer, with all others. A part's scale is its mean
    distance over the blocks, not less than the sampling noise; the limit is for the largest ratio over all parts, so that parts do not add
    false alarms.
    """
    forward = len(blocks) >= _BASE_BLOCKS + _FORWARD_TESTS
    tested = range(_BASE_BLOCKS, len(blocks)) if forward else range(len(blocks))
    compared = []
    for number in tested:
        others = blocks[:number] if forward else [block for other, block in enumerate(blocks) if other != number]
        reference = frame.iloc[even_sample(np.sort(np.concatenate(others)))]
        compared.append(comparison.compare(library, reference, frame.iloc[even_sample(blocks[number])]))
    return _limits(compared, alpha, length, "forward" if forward else "leave_one_out", comparison.minimum_ratio)


def judge(name: str, kind: AlertKind, calibration: Calibration, differences: Sequence[Difference], rows: int) -> DetectorResult:
    """The verdict on a window. A part that the reference never had values for is not judged."""
    parts = []
    for difference in differences:
        scale = calibration.scale.get(difference.part)
        if scale is None:
            continue
        threshold = calibration.limit * scale
        parts.append(
            PartResult(
                part=difference.part,
                statistic=difference.statistic,
                threshold=threshold,
                p_value=difference.p_value,
                effect=difference.effect,
                unit=difference.unit,
                text=difference.text,
                alarm=difference.statistic > threshold,
            )
        )
    if not parts:
        return DetectorResult(
            detector=name, kind=kind, alarm=False, subject="", statistic=0.0, threshold=0.0, p_value=1.0, effect="nothing to compare", rows=rows, parts=()
        )
    ordered = sorted(parts, key=lambda part: part.statistic / part.threshold, reverse=True)
    drifted = [part for part in ordered if part.alarm]
    worst = ordered[0]
    return DetectorResult(
        detector=name,
        kind=kind,
        alarm=bool(drifted),
        subject=", ".join(part.part for part in drifted or ordered[:1]),
        statistic=worst.statistic,
        threshold=worst.threshold,
        p_value=calibration.p_value(calibration.limit * worst.statistic / worst.threshold),
        effect="; ".join(part.text for part in (drifted or ordered[:1])[:5]),
        rows=rows,
        parts=tuple(parts),
    )


def _limits(
    compared: list[list[Difference]], alpha: float, length: timedelta, scheme: Literal["forward", "leave_one_out"], minimum_ratio: float
) -> Calibration:
    by_part: dict[str, list[Difference]] = {}
    for differences in compared:
        for difference in differences:
            by_part.setdefault(difference.part, []).append(difference)
    scale = {
        part: max(float(np.mean([difference.statistic for difference in found])), float(np.mean([difference.noise for difference in found])))
        for part, found in by_part.items()
    }
    values = np.array([max((difference.statistic / scale[difference.part] for difference in found), default=0.0) for found in compared if found])
    count = len(values)
    if count < MINIMUM_BLOCKS:
        raise InvalidData(
            f"only {count} blocks of the reference could be compared\n    remedy: a column of the detector is missing almost everywhere; choose another"
        )
    logs = np.log(np.maximum(values, _LOWEST_RATIO))
    mean, deviation = float(logs.mean()), float(logs.std(ddof=1))
    exceeding = math.floor(alpha * (count + 1))
    if exceeding >= 1:
        method: Literal["order_statistic", "prediction_limit"] = "order_statistic"
        limit = float(np.sort(values)[-exceeding])
    else:
        from scipy.stats import t

        method = "prediction_limit"
        limit = max(math.exp(mean + float(t.isf(alpha, count - 1)) * deviation * math.sqrt(1 + 1 / count)), float(values.max()))
    return Calibration(
        scale=scale,
        limit=max(limit, minimum_ratio, 1e-6),
        alpha=alpha,
        method=method,
        blocks=count,
        block_length_seconds=length.total_seconds(),
        scheme=scheme,
        log_mean=mean,
        log_deviation=deviation,
        values=tuple(map(float, values)),
    )
