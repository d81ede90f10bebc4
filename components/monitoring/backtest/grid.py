"""Every model that a policy could have trained, and how it did in every later window. Policies are then compared without fitting anything."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from components.monitoring.backtest.history import History, Vector
from components.monitoring.performance.loss import losses
from components.monitoring.performance.trial import TRAINING_WINDOWS, row_weights

FEWEST_ROWS = 20  # in a window, below which nothing is measured
Table = npt.NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Model:
    """Trained at the start of window `window`, on the rows of `training_window`."""

    window: int
    training_window: str

    @property
    def version(self) -> str:
        return f"m{self.window}-{self.training_window}"


@dataclass
class Grid:
    """`auc`, `log_loss`, `cost` by training window: [window of training, window of service], NaN where there is no model or too few rows.

    `cost`: money per row by the declared costs of errors, at the cheapest threshold. `seconds`: time of one fit, mean.
    """

    history: History
    probability: dict[Model, npt.NDArray[np.float32]]
    auc: dict[str, Table]
    log_loss: dict[str, Table]
    cost: dict[str, Table]
    seconds: float = 0.0
    _scores: dict[tuple[Model, int], Vector] = field(default_factory=dict)

    def has(self, model: Model) -> bool:
        return model in self.probability

    def scores(self, model: Model, window: int) -> Vector:
        """Probabilities of a window's rows."""
        first, rows = int(self.history.edges[model.window]), self.history.rows(window)
        return self.probability[model][rows.start - first : rows.stop - first].astype(np.float64)

    def losses(self, model: Model, window: int) -> Vector:
        return losses(self.history.label[self.history.rows(window)], self.scores(model, window))


def build_grid(
    history: History, threshold: float, costs: tuple[float, float], say: Callable[[int, int], None], names: Sequence[str] = TRAINING_WINDOWS
) -> Grid:
    """Fit each training window at the start of each window that has new labels. `costs`: of a false alarm and of a miss; `threshold`: of the decision.

    `say(done, all)` is called after each window.
    """
    count = history.windows
    auc, log_loss, cost = ({name: np.full((count, count), np.nan) for name in names} for _ in range(3))
    grid = Grid(history, {}, auc, log_loss, cost)
    unit = history.training_window / history.window
    began, fits = time.monotonic(), 0
    due = {0, *history.with_new_labels}
    for window in range(count):
        known = history.known(window)
        rows = np.arange(int(history.edges[window]), int(history.edges[-1]))
        for name in names:
            if window not in due:
                continue
            scorer = history.learner(known, row_weights(name, window - history.position[known], unit))
            fits += 1
            if scorer is None:
                continue
            model = Model(window, name)
            grid.probability[model] = scorer(rows).astype(np.float32)
            _score(grid, model, threshold, costs)
        say(window + 1, count)
    grid.seconds = (time.monotonic() - began) / max(1, fits)
    return grid


def _score(grid: Grid, model: Model, threshold: float, costs: tuple[float, float]) -> None:
    history = grid.history
    for window in range(model.window, history.windows):
        label = history.label[history.rows(window)]
        if len(label) < FEWEST_ROWS:
            continue
        p = grid.scores(model, window)
        at = model.window, window
        grid.auc[model.training_window][at] = rank_auc(label, p)
        grid.log_loss[model.training_window][at] = losses(label, p).mean()
        decided = p >= threshold
        grid.cost[model.training_window][at] = float(np.where(decided, (label == 0) * costs[0], (label == 1) * costs[1]).mean())


def rank_auc(label: npt.NDArray[np.int8], score: Vector) -> float:
    """ROC AUC by the ranks of the positives (Mann and Whitney 1947), ties counted half; NaN when a class is absent. A tenth of scikit-learn's time."""
    positives = int(label.sum())
    negatives = len(label) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sizes = np.diff(np.r_[starts, len(ordered)])
    ranks = np.repeat(starts + (sizes + 1) / 2, sizes)
    return float((ranks[label[order] > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))
