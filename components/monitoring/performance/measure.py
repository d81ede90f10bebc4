"""Performance with labels: the metric, an interval that respects days, and whether the inputs explain it.

Rows of one day share their weather, so rows are no independent draws. The standard error is the delete-one-day jackknife (Efron and Stein
1981, https://doi.org/10.1214/aos/1176345462) and the interval uses Student's t with (days - 1) degrees of freedom. It needs no random
numbers, works for any metric, and for a window of seven days it is honest about how little seven days say.

Concept drift is what the inputs do not explain: CBPE on the very same rows gives the metric to be expected if the probabilities still
meant what they meant at calibration. The rule, one-sided at (1 - confidence) / 2:

    explained - measured > t(days - 1) * sqrt(jackknife error of the difference^2 + backtest error of CBPE on the reference^2)

The difference is jackknifed itself, because both sides move together with the rows. The backtest error of the *reference* enters, not that
of later windows: earlier drift must not excuse today's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.monitoring.performance.estimate import expected_metric, student
from components.monitoring.performance.metric import block_length, days_of, metric_value

if TYPE_CHECKING:
    import pandas as pd

Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Measurement:
    """`error`: jackknife standard error of `value`; `drift_limit`: how far `value` may lie below `explained` before it is concept drift."""

    value: float
    low: float
    high: float
    error: float
    days: int
    explained: float
    drift_limit: float

    @property
    def concept_drift(self) -> bool:
        return self.explained - self.value > self.drift_limit


def jackknife(statistic: Callable[[Rows], float], days: npt.NDArray[np.int64]) -> tuple[float, int]:
    """Standard error of `statistic(mask)` by leaving out one day at a time, and the number of days. NaN with fewer than two usable days."""
    values = np.array([statistic(days != day) for day in np.unique(days)])
    values = values[np.isfinite(values)]
    count = len(values)
    if count < 2:
        return math.nan, count
    return math.sqrt((count - 1) / count * float(np.sum((values - values.mean()) ** 2))), count


def measure(metric: str, labelled: pd.DataFrame, window: timedelta, reference_error: float, confidence: float) -> Measurement | None:
    """Measure on labelled rows (columns `prediction_moment`, `probability`, `label`); `reference_error`: CBPE's backtest error on the reference.

    None when it cannot be measured: one class only, or fewer than two days.
    """
    label, probability = labelled["label"].to_numpy(dtype=np.int64), labelled["probability"].to_numpy(dtype=np.float64)
    value = metric_value(metric, label, probability)
    days = days_of(labelled["prediction_moment"], block_length(window))
    error, count = jackknife(lambda rows: metric_value(metric, label[rows], probability[rows]), days)
    if not (math.isfinite(value) and math.isfinite(error)):
        return None
    unexplained, _ = jackknife(lambda rows: expected_metric(metric, probability[rows]) - metric_value(metric, label[rows], probability[rows]), days)
    t = student(confidence, count - 1)
    return Measurement(
        value=value,
        low=max(0.0, value - t * error),
        high=min(1.0, value + t * error),
        error=error,
        days=count,
        explained=expected_metric(metric, probability),
        drift_limit=t * math.hypot(unexplained, reference_error),
    )


def by_slice(slices: Mapping[str, Rows], minimum: Mapping[str, int], statistic: Callable[[Rows], Any]) -> dict[str, float]:
    """`statistic(mask)` for each slice "<slice>=<part>" that has its minimum of rows and a finite value."""
    values = {name: float(statistic(rows)) for name, rows in slices.items() if int(rows.sum()) >= minimum[name]}
    return {name: value for name, value in values.items() if math.isfinite(value)}
