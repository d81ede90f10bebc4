"""The bounds that the canary's rule compares with its margins. Each is one-sided: it fails with at most (about) the probability given.

- Shares (errors, slow calls): the difference of two independent shares by MOVER (Zou and Donner 2008, https://doi.org/10.1002/sim.3095)
  over exact limits of each share (Clopper and Pearson 1934, https://doi.org/10.1093/biomet/26.4.404). Exact limits, because errors are
  rare: at none in 400 a normal approximation would claim to know everything.
- Distributions (predictions): the largest distance of two distribution functions (Kolmogorov-Smirnov), within the band of Dvoretzky,
  Kiefer and Wolfowitz with Massart's constant (1990, https://doi.org/10.1214/aop/1176990746). It holds for every sample size and every
  distribution, ties included.
- Performance: the difference of a metric whose standard error comes from a bootstrap over requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.contracts.usecase import Metric

if TYPE_CHECKING:
    from components.evaluation.bootstrap import DayBootstrap

Numbers = npt.NDArray[np.float64]
DRAWS, BLOCKS = 200, 200


@dataclass(frozen=True)
class Difference:
    """Challenger minus champion (or a distance), and its one-sided bounds."""

    value: float
    low: float
    high: float


def share_limits(events: int, trials: int, alpha: float) -> tuple[float, float]:
    """Exact limits of a share, each failing with probability at most `alpha`."""
    from scipy.stats import beta

    low = 0.0 if events == 0 else float(beta.ppf(alpha, events, trials - events + 1))
    high = 1.0 if events == trials else float(beta.ppf(1 - alpha, events + 1, trials - events))
    return low, high


def share_difference(challenger: tuple[int, int], champion: tuple[int, int], alpha_low: float, alpha_high: float) -> Difference:
    """Difference of two shares, each given as (events, trials) with at least one trial."""
    (x, n), (y, m) = challenger, champion
    p, q = x / n, y / m
    low = p - q - math.hypot(p - share_limits(x, n, alpha_low)[0], share_limits(y, m, alpha_low)[1] - q)
    high = p - q + math.hypot(share_limits(x, n, alpha_high)[1] - p, q - share_limits(y, m, alpha_high)[0])
    return Difference(p - q, max(-1.0, low), min(1.0, high))


def distribution_distance(challenger: Numbers, champion: Numbers, alpha_low: float, alpha_high: float) -> Difference:
    """Kolmogorov-Smirnov distance of two samples [rows], each with at least one row."""
    from scipy.stats import ks_2samp

    with np.errstate(divide="ignore"):  # its p-value, which is not used, divides by zero for a handful of rows
        distance = float(ks_2samp(challenger, champion, method="asymp").statistic)
    widths = [sum(math.sqrt(math.log(4 / alpha) / (2 * len(sample))) for sample in (challenger, champion)) for alpha in (alpha_low, alpha_high)]
    return Difference(distance, max(0.0, distance - widths[0]), min(1.0, distance + widths[1]))


@dataclass(frozen=True)
class Labelled:
    """Labelled predictions of one model: label 0/1 [rows], probability [rows] and the request that each row came with [rows]."""

    label: npt.NDArray[np.int64]
    probability: Numbers
    request: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def usable(self) -> bool:
        return len(np.unique(self.label)) == 2


@dataclass(frozen=True)
class Stratum:
    """What both models did in one stage of the canary. `paired`: the same rows in the same order (a shadow)."""

    challenger: Labelled
    champion: Labelled
    paired: bool = False


def performance_loss(metric: Metric, strata: Sequence[Stratum], alpha_low: float, alpha_high: float) -> Difference | None:
    """How much worse the challenger's metric is than the champion's (positive: worse), over stages weighted by the challenger's rows.

    Stages are compared one by one, because the share of the challenger differs from stage to stage, and what is hard to predict differs from
    hour to hour: pooled rows would compare hours. None without a stage in which both have rows of both classes.
    """
    from scipy.stats import norm

    usable = [stratum for stratum in strata if stratum.challenger.usable and stratum.champion.usable]
    if not usable:
        return None
    sizes = np.array([len(stratum.challenger) for stratum in usable], dtype=np.float64)
    weights = sizes / sizes.sum()
    drawn = [_losses(metric, stratum, seed) for seed, stratum in enumerate(usable)]
    value = float(weights @ np.array([losses[0] for losses in drawn]))
    error = math.sqrt(float(weights**2 @ np.array([np.nanvar(losses[1:], ddof=1) for losses in drawn])))
    if not math.isfinite(error):
        return None
    return Difference(value, value - float(norm.isf(alpha_low)) * error, value + float(norm.isf(alpha_high)) * error)


def _losses(metric: Metric, stratum: Stratum, seed: int) -> Numbers:
    """Champion's metric less the challenger's [1 + draws]: of all rows, then of each draw."""
    random = np.random.default_rng(seed)
    ours = _draw(stratum.challenger, random)
    theirs = ours if stratum.paired else _draw(stratum.champion, random)
    return _metric(metric, stratum.champion, theirs) - _metric(metric, stratum.challenger, ours)


def _draw(rows: Labelled, random: np.random.Generator) -> DayBootstrap:
    """Draws of whole requests, in at most `BLOCKS` blocks of them: rows of one request are no independent draws, and blocks bound the work."""
    from components.evaluation.bootstrap import DayBootstrap

    requests, position = np.unique(rows.request, return_inverse=True)
    blocks = min(BLOCKS, len(requests))
    block = random.permutation(len(requests)) % blocks
    counts = random.multinomial(blocks, np.full(blocks, 1 / blocks), size=DRAWS)
    return DayBootstrap(block[position].astype(np.int64), np.vstack([np.ones(blocks), counts]).astype(np.float64), 0.0)


def _metric(metric: Metric, rows: Labelled, bootstrap: DayBootstrap) -> Numbers:
    from components.evaluation.metrics import Scored, samples_of

    return samples_of(metric, Scored.undecided(rows.probability, rows.label.astype(bool)), bootstrap)
