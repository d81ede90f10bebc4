"""What a retraining would be worth: what the champion's age has cost so far, and how many runs the share of windows allows.

The rule is that of renewing a machine that wears: renew when what its wear has cost since the last renewal equals what a renewal costs. For
wear that grows evenly that is the interval with the lowest total (Harris 1913, the economic order quantity). What age costs is measured by
trials (`components.contracts.events.Trial`), window by window, in log loss, and put into money by the declared costs of errors.

The constants were chosen on the development streams of benchmarks/retraining_decision.py and are judged on others (docs/adr/0015).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from components.contracts.events import Performance

TrainingWindow = Literal["sliding", "short", "growing", "weighted"]

WINDOWS_PER_RUN = 4  # one run for as many windows with new labels, in the long run
ADVANCE = 1  # runs that may be taken before as many windows have passed: a young model learns most from its first new labels
SURE = 1.0  # standard errors by which what age has cost must be above zero, when one run is left
BREAK_ERRORS, BREAK_LOSS = 2.0, 0.02  # a break: log loss above what the probabilities promise, in standard errors and per row
RECORD = 12  # windows over which training windows are compared


@dataclass(frozen=True)
class Worth:
    """What age has cost in `windows` measured windows since the champion was trained.

    `gain`: log loss per row, summed over the windows; `error`: its standard error; `money`: the same in the currency of the use case. `left`: runs
    that the share of windows still allows.
    """

    windows: int
    gain: float
    error: float
    money: float
    left: int

    @property
    def is_sure(self) -> bool:
        """The more runs are left unused, the less sure it has to be."""
        return self.windows > 0 and self.gain > SURE * self.error / max(1, self.left)

    def pays(self, cost_of_run: float) -> bool:
        return self.is_sure and self.money >= cost_of_run


def worth_of_run(measured: Iterable[Performance], model_version: str, since: datetime | None, left: int) -> Worth:
    """Sum the trials of one model's measured windows that were assessed after `since` (the last run's decision; None: all).

    A trial without any error compared a model with itself: no label was newer when its window began, so it says nothing.
    """
    own = (one for one in measured if one.model_version == model_version and (since is None or one.as_of > since))
    counted = [one for one in own if one.trial is not None and one.trial.error > 0]
    trials = [one.trial for one in counted if one.trial is not None]
    return Worth(
        windows=len(counted),
        gain=sum(trial.gain for trial in trials),
        error=math.sqrt(sum(trial.error**2 for trial in trials)),
        money=sum(one.trial.gain * (one.loss_price or 0.0) * _labelled(one) for one in counted if one.trial is not None),
        left=left,
    )


def is_broken(one: Performance) -> bool:
    """Whether the probabilities no longer mean what they say: a loss that neither chance nor the inputs explain."""
    if one.log_loss is None or one.expected_log_loss is None or one.log_loss_error is None:
        return False
    return one.log_loss - one.expected_log_loss >= max(BREAK_LOSS, BREAK_ERRORS * one.log_loss_error)


def runs_left(windows_with_labels: int, runs: int) -> int:
    """Runs that the share of windows still allows: never more than a quarter of the windows from the fourth on."""
    return max(ADVANCE, windows_with_labels // WINDOWS_PER_RUN) - runs


def best_training_window(measured: Sequence[Performance]) -> TrainingWindow | None:
    """The training window whose trials had the lowest log loss per row over the last `RECORD` measured windows; None without any trial."""
    latest: dict[datetime, Performance] = {one.window_start: one for one in measured if one.trial is not None}
    record = [latest[start] for start in sorted(latest)][-RECORD:]
    names = set.intersection(*(set(one.trial.windows) for one in record if one.trial is not None)) if record else set()
    if not names:
        return None
    rows = [_labelled(one) for one in record]
    loss = {name: sum(one.trial.windows[name] * count for one, count in zip(record, rows, strict=True) if one.trial is not None) for name in names}
    known: tuple[TrainingWindow, ...] = ("sliding", "growing", "weighted", "short")
    return min((name for name in known if name in names), key=lambda name: loss[name])


def _labelled(one: Performance) -> float:
    return one.rows * one.labelled_share
