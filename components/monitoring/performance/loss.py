"""Log loss of a window, what the probabilities promise of it, and what it costs.

A calibrated probability p promises a log loss of -p log p - (1 - p) log(1 - p) for its row. What lies above that neither chance nor the inputs
explain: what the model was taught is no longer true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.contracts.usecase import Business

Vector = npt.NDArray[np.float64]
Blocks = npt.NDArray[np.int64]

CLIP = 1e-6  # probabilities are kept this far off 0 and 1, so that one row cannot decide a window
FEWEST_BLOCKS = 4  # below, a standard error over blocks is itself too uncertain, and rows count as blocks


@dataclass(frozen=True)
class Loss:
    """Per row. `error`: standard error of `value - expected`."""

    value: float
    expected: float
    error: float


def losses(label: npt.ArrayLike, probability: npt.ArrayLike) -> Vector:
    """Log loss of each row [rows]."""
    clipped = np.clip(np.asarray(probability, dtype=np.float64), CLIP, 1 - CLIP)
    return np.asarray(-np.log(np.where(np.asarray(label) > 0.5, clipped, 1 - clipped)), dtype=np.float64)


def window_loss(label: npt.ArrayLike, probability: npt.ArrayLike, blocks: Blocks) -> Loss:
    """Log loss of a window's rows. `blocks`: each row's stretch of time (a day); rows of one block may depend on each other."""
    clipped = np.clip(np.asarray(probability, dtype=np.float64), CLIP, 1 - CLIP)
    each = losses(label, clipped)
    promised = -(clipped * np.log(clipped) + (1 - clipped) * np.log(1 - clipped))
    by_chance = math.sqrt(float(np.sum(clipped * (1 - clipped) * np.log(clipped / (1 - clipped)) ** 2))) / len(each)
    return Loss(float(each.mean()), float(promised.mean()), max(mean_error(each - promised, blocks), by_chance))


def mean_error(values: Vector, blocks: Blocks) -> float:
    """Standard error of the mean of `values` [rows], delete-one-block jackknife; over rows where there are fewer than `FEWEST_BLOCKS` blocks."""
    names, position = np.unique(blocks, return_inverse=True)
    if len(names) < FEWEST_BLOCKS:
        return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.inf
    sums, counts = np.bincount(position, values), np.bincount(position)
    without = (values.sum() - sums) / (len(values) - counts)
    return math.sqrt((len(names) - 1) / len(names) * float(np.sum((without - without.mean()) ** 2)))


def loss_price(probability: npt.ArrayLike, business: Business) -> float:
    """Money per row that an increase of 1 in log loss per row costs, for decisions at the cheapest threshold t = false alarm / (false alarm + miss).

    For a small error e of the log odds the log loss rises by p (1 - p) e^2 / 2, the expected cost by (false alarm + miss) times the density of the
    probabilities at t times (t (1 - t) e)^2 / 2 (the decision changes only where e carries a row across t). With errors of one size everywhere
    the price is the ratio of the two. The density is a Gaussian kernel estimate.
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), CLIP, 1 - CLIP)
    both = business.cost_false_alarm + business.cost_miss
    threshold = business.cost_false_alarm / both
    width = max(0.05, 1.06 * float(np.std(p)) * len(p) ** -0.2)
    density = float(np.mean(np.exp(-0.5 * ((p - threshold) / width) ** 2))) / (width * math.sqrt(2 * math.pi))
    return float(both * density * (threshold * (1 - threshold)) ** 2 / float(np.mean(p * (1 - p))))
