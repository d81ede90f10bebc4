"""Compare what policies served: means, worst window, time below the promise, runs, money, and paired intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from components.contracts.usecase import Business, UseCase
from components.monitoring.backtest.history import History
from components.monitoring.backtest.replay import Served

SAMPLES, SEED = 4000, 20
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """`below`: share of windows with the AUC below the promise. `money`: cost of errors and runs, in the currency of the use case."""

    name: str
    auc: float
    log_loss: float
    worst: float
    below: float
    runs: int
    money: float


@dataclass(frozen=True)
class Difference:
    """Mean over the windows of one policy less another, with its paired interval. Better is above 0 for AUC, below 0 for log loss."""

    value: float
    low: float
    high: float


Verdict = Literal["held", "undecided", "missed"]


@dataclass(frozen=True)
class Margin:
    """What one run per window would buy: the loss in AUC, and the rise in log loss, that cost as much as the run."""

    auc: float
    log_loss: float


def summary(served: Served, history: History, config: UseCase) -> Summary:
    """Windows count alike, however many rows they have; in `money` rows count."""
    rows = np.diff(history.edges)
    known = np.isfinite(served.auc)
    return Summary(
        served.name,
        float(np.nanmean(served.auc)),
        float(np.nanmean(served.log_loss)),
        float(np.nanmin(served.auc)),
        float(np.mean(served.auc[known] < config.retraining.threshold)),
        len(served.runs),
        float(np.nansum(served.cost * rows)) + len(served.runs) * config.retraining.cost_of_run,
    )


def paired(mine: Vector, other: Vector, confidence: float) -> Difference:
    """Circular block bootstrap over windows (Politis and Romano 1992) of the mean difference; blocks of the cube root of their number, rounded up.

    Its quantiles are expanded for few blocks as in `components.evaluation.bootstrap`.
    """
    difference = mine - other
    difference = difference[np.isfinite(difference)]
    count = len(difference)
    if count < 4:
        return Difference(float("nan"), -math.inf, math.inf)
    length = math.ceil(count ** (1 / 3))
    blocks = math.ceil(count / length)
    starts = np.random.default_rng(SEED).integers(0, count, (SAMPLES, blocks))
    drawn = (starts[:, :, None] + np.arange(length)) % count
    means = difference[drawn.reshape(SAMPLES, -1)[:, :count]].mean(axis=1)
    tail = _expanded_tail(confidence, blocks)
    low, high = np.quantile(means, [tail, 1 - tail])
    value = float(difference.mean())
    return Difference(value, min(float(low), value), max(float(high), value))


def not_worse(difference: Difference, margin: float, higher_is_better: bool) -> Verdict:
    """held: the whole interval lies within the margin or better; missed: all of it beyond; undecided otherwise."""
    low, high = (difference.low, difference.high) if higher_is_better else (-difference.high, -difference.low)
    return "held" if low >= -margin else "missed" if high < -margin else "undecided"


def margin(config: UseCase, auc: float, share: float, rows_per_window: float) -> Margin:
    """The losses that cost as much as one run per window, by the declared costs of errors.

    In the binormal model (scores of both classes normal with one variance) one number, the distance of the classes, gives AUC, log loss and expected
    cost at the cheapest threshold, so money per row turns into the other two. `auc`: the first model's on its history; `share`: of positives there.
    """
    distance = math.sqrt(2) * NormalDist().inv_cdf(min(max(auc, 0.51), 0.999))
    allowed = config.retraining.cost_of_run / rows_per_window
    before = _binormal(distance, share, config.business)
    low, high = 0.0, distance
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _binormal(distance - middle, share, config.business)[2] - before[2] < allowed else (low, middle)
    after = _binormal(distance - low, share, config.business)
    return Margin(before[0] - after[0], after[1] - before[1])


def pooled(differences: Sequence[tuple[Difference, Difference]]) -> tuple[Difference, Difference]:
    """The mean over streams of (AUC, log loss) differences, with Student's interval over the streams: each counts as one draw."""
    from scipy.stats import t

    found = []
    for number in (0, 1):
        values = np.array([pair[number].value for pair in differences])
        half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
        found.append(Difference(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half))
    return found[0], found[1]


def margin_of_pool(margins: Sequence[Margin]) -> Margin:
    return Margin(float(np.mean([one.auc for one in margins])), float(np.mean([one.log_loss for one in margins])))


def _binormal(distance: float, share: float, business: Business) -> tuple[float, float, float]:
    """AUC, log loss and expected cost per row of calibrated scores whose classes lie `distance` standard deviations apart."""
    grid = np.linspace(-8, 8 + distance, 4001)
    step = grid[1] - grid[0]
    negative, positive = np.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi), np.exp(-0.5 * (grid - distance) ** 2) / math.sqrt(2 * math.pi)
    odds = math.log(share / (1 - share)) + distance * grid - distance**2 / 2
    p = 1 / (1 + np.exp(-odds))
    loss = -(share * positive * np.log(np.maximum(p, 1e-300)) + (1 - share) * negative * np.log(np.maximum(1 - p, 1e-300))).sum() * step
    decided = p >= business.cost_false_alarm / (business.cost_false_alarm + business.cost_miss)
    cost = np.where(decided, (1 - share) * negative * business.cost_false_alarm, share * positive * business.cost_miss).sum() * step
    return NormalDist().cdf(distance / math.sqrt(2)), float(loss), float(cost)


def _expanded_tail(confidence: float, count: int) -> float:
    from scipy.stats import t

    quantile = float(t.ppf(0.5 + confidence / 2, count - 1)) * (count / (count - 1)) ** 0.5
    return NormalDist().cdf(-quantile)
