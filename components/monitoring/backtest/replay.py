"""Replay one policy over a grid: window by window, with what was known by then, and no more."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from components.contracts.events import Performance, Trial
from components.contracts.usecase import UseCase
from components.monitoring.backtest.grid import FEWEST_ROWS, Grid, Model, rank_auc
from components.monitoring.performance.loss import loss_price, mean_error, window_loss
from components.monitoring.retrain_trigger.worth import best_training_window

UNKNOWN = 0.5, 0.0, 1.0, 0.5  # AUC, its interval and error where labels of one class do not tell
FIRST = "sliding"  # what the first model learns from, before anything was measured


@dataclass(frozen=True)
class Served:
    """What a policy served: one value per window (NaN where nothing can be measured). `runs`: the windows at whose start it trained."""

    name: str
    auc: npt.NDArray[np.float64]
    log_loss: npt.NDArray[np.float64]
    cost: npt.NDArray[np.float64]
    runs: tuple[Model, ...]
    reasons: dict[int, tuple[str, str]] = field(default_factory=dict)


class Policy(Protocol):
    """Asked at the start of each window: the training window to train on, or None. `champion`: the model in service, `runs`: earlier ones."""

    name: str

    def ask(self, world: World, window: int, champion: Model, runs: list[Model]) -> str | None: ...


class World:
    """What could be known. Assessments of a model in a window are made once and kept."""

    def __init__(self, grid: Grid, config: UseCase) -> None:
        self.grid, self.history, self.config = grid, grid.history, config
        self._assessed: dict[tuple[Model, int], Performance] = {}
        self._chosen: dict[int, str] = {}

    def measured(self, window: int) -> list[int]:
        """Windows whose labels are all known at the start of `window` and that have enough rows, in order; those of one class tell a log loss and no AUC."""
        return [
            number
            for number, at in enumerate(self.history.measured_at)
            if at <= window and self.history.edges[number + 1] - self.history.edges[number] >= FEWEST_ROWS
        ]

    def best_training_window(self, window: int) -> str:
        """What the trials known at the start of `window` say."""
        if window not in self._chosen:
            first = Model(0, FIRST)
            known = [self.assess(first, number) for number in self.measured(window)]
            self._chosen[window] = best_training_window(known) or FIRST
        return self._chosen[window]

    def fresh(self, window: int) -> Model | None:
        """The model that always retraining would serve in `window`."""
        for number in range(window, -1, -1):
            model = Model(number, self.best_training_window(number) if number else FIRST)
            if self.grid.has(model):
                return model
        return None

    def assess(self, model: Model, window: int) -> Performance:
        """The measured performance of a model in a window, as the monitoring would record it, with its trial."""
        key = model, window
        if key not in self._assessed:
            self._assessed[key] = _assess(self, model, window)
        return self._assessed[key]

    def served_by(self, runs: Iterable[Model], window: int) -> Model:
        """The model in service in `window`, of those trained up to its start."""
        return max((model for model in runs if model.window <= window), default=Model(0, FIRST))


def replay(world: World, policy: Policy) -> Served:
    """Serve the first model, ask the policy at the start of every later window."""
    grid, count = world.grid, world.history.windows
    champion, runs = Model(0, FIRST), list[Model]()
    reasons: dict[int, tuple[str, str]] = {}
    values = np.full((3, count), np.nan)
    for window in range(count):
        if window:
            chosen = policy.ask(world, window, champion, list(runs))
            reason = getattr(policy, "last", None)
            if reason is not None:
                reasons[window] = reason
            if chosen is not None:
                trained = Model(window, chosen)
                runs.append(trained)
                champion = trained if grid.has(trained) else champion
        at = champion.window, window
        values[:, window] = [table[champion.training_window][at] for table in (grid.auc, grid.log_loss, grid.cost)]
    return Served(policy.name, values[0], values[1], values[2], tuple(runs), reasons)


def _assess(world: World, model: Model, window: int) -> Performance:
    history, config = world.history, world.config
    label, p, blocks = history.label[history.rows(window)], world.grid.scores(model, window), history.blocks(window)
    value = rank_auc(label, p)
    low, high, error = _interval(label, p, blocks, value, config.evaluation.confidence)
    if not math.isfinite(value):
        value, low, high, error = UNKNOWN
    loss = window_loss(label, p, blocks)
    as_of: datetime = history.moment_of(history.measured_at[window])
    return Performance(
        id=f"{model.version}-{window}",
        usecase=config.name,
        model_version=model.version,
        window_start=history.moment_of(window),
        window_end=history.moment_of(window + 1),
        as_of=as_of,
        kind="measured",
        metric=config.retraining.metric,
        value=value,
        low=low,
        high=high,
        threshold=config.retraining.threshold,
        rows=len(label),
        labelled_share=1.0,
        sampling_error=error,
        backtest_error=0.0,
        outcomes={config.data.label.labelled_outcome: len(label)},
        log_loss=loss.value,
        expected_log_loss=loss.expected,
        log_loss_error=loss.error,
        loss_price=loss_price(p, config.business),
        trial=_trial(world, model, window, blocks),
    )


def _trial(world: World, model: Model, window: int, blocks: npt.NDArray[np.int64]) -> Trial | None:
    grid = world.grid
    by_window = {name: float(table[window, window]) for name, table in grid.log_loss.items() if math.isfinite(table[window, window])}
    if not by_window:
        return None
    # Chosen by what was measured before the window began: `fresh` asks for earlier windows only.
    fresh = world.fresh(window)
    if fresh is None or not grid.has(model):
        return None
    difference = grid.losses(model, window) - grid.losses(fresh, window)
    return Trial(
        gain=float(difference.mean()), error=max(mean_error(difference, blocks), float(np.std(difference) / math.sqrt(len(difference)))), windows=by_window
    )


def _interval(
    label: npt.NDArray[np.int8], score: npt.NDArray[np.float64], blocks: npt.NDArray[np.int64], value: float, confidence: float
) -> tuple[float, float, float]:
    """Interval of the AUC: delete-one-block jackknife and Student's t, as for live windows."""
    from scipy.stats import t

    without = np.array([rank_auc(label[blocks != block], score[blocks != block]) for block in np.unique(blocks)])
    without = without[np.isfinite(without)]
    if len(without) < 2:
        return 0.0, 1.0, 0.5
    error = math.sqrt((len(without) - 1) / len(without) * float(np.sum((without - without.mean()) ** 2)))
    half = float(t.ppf(0.5 + confidence / 2, len(without) - 1)) * error
    return max(0.0, value - half), min(1.0, value + half), error
