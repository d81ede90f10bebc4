"""The policies that are compared. `Decided` is the trigger's own decision, called as the trigger calls it; the others are what peers do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from components.monitoring.backtest.grid import Grid, Model
from components.monitoring.backtest.replay import FIRST, Served, World
from components.monitoring.retrain_trigger.policy import Evidence, Retraining, decide


@dataclass
class Never:
    name: str = "never"

    def ask(self, world: World, window: int, champion: Model, runs: list[Model]) -> str | None:  # noqa: ARG002
        return None


@dataclass
class Every:
    """At every `step`-th window with new labels; on `training_window`, or (empty) on the one that backtests chose by then."""

    step: int
    training_window: str = ""
    name: str = ""

    def ask(self, world: World, window: int, champion: Model, runs: list[Model]) -> str | None:  # noqa: ARG002
        due = world.history.with_new_labels
        if window not in due or (due.index(window) + 1) % self.step:
            return None
        return self.training_window or world.best_training_window(window)


@dataclass
class EveryAlarm:
    """Whenever the window before drifted: `alarms` from `drift_alarms`, asked anew for each champion."""

    alarms: DriftAlarms
    name: str = "every alarm"

    def ask(self, world: World, window: int, champion: Model, runs: list[Model]) -> str | None:  # noqa: ARG002
        if not self.alarms.alarmed(champion.window, window - 1):
            return None
        return world.best_training_window(window)


@dataclass
class BelowPromise:
    """Whenever the champion's measured value lies below the promise."""

    name: str = "below the promise"

    def ask(self, world: World, window: int, champion: Model, runs: list[Model]) -> str | None:
        measured = [number for number, at in enumerate(world.history.measured_at) if at == window and number in world.measured(window)]
        for number in measured:
            if world.served_by(runs, number) == champion and world.assess(champion, number).value < world.config.retraining.threshold:
                return world.best_training_window(window)
        return None


@dataclass
class Decided:
    """`components.monitoring.retrain_trigger.policy.decide`, on every measured window as it becomes known."""

    name: str = "crispline"
    last: tuple[str, str] | None = None

    def ask(self, world: World, window: int, champion: Model, runs: list[Model]) -> str | None:
        self.last = None
        measured = world.measured(window)
        evidence = Evidence(champion=champion.version, performance=tuple(world.assess(world.served_by(runs, number), number) for number in measured))
        past = [Retraining(run.version, world.history.moment_of(run.window), "succeeded") for run in runs]
        for number in (number for number in measured if world.history.measured_at[number] == window):
            decision = decide(world.config, world.assess(world.served_by(runs, number), number), evidence, past)
            self.last = decision.outcome, decision.reason
            if decision.outcome == "retrain":
                return decision.training_window
        return None


@dataclass
class DriftAlarms:
    """Input drift against the rows that a champion was trained on, with a limit from blocks of reference time.

    The distance of a feature is Kolmogorov-Smirnov's, or the total variation of a category's shares; each is divided by its mean over the blocks of
    the reference (each against the others), and the largest ratio counts. The limit is the largest ratio of any block. It stands in for the detectors of
    `components.monitoring.detectors`, which need a package that this environment does not have.
    """

    world: World
    features: npt.NDArray[np.float32]
    categorical: tuple[bool, ...]
    _references: dict[int, tuple[list[npt.NDArray[np.float64]], npt.NDArray[np.float64], float]] = field(default_factory=dict)

    def alarmed(self, trained: int, window: int) -> bool:
        rows = self.world.history.rows(window)
        if rows.stop - rows.start < 20 or window < trained:
            return False
        reference, scale, limit = self._reference(trained)
        if not reference:
            return False
        return bool(float(np.max(self._distances(self.features[rows], reference) / scale)) > limit)

    def _reference(self, trained: int) -> tuple[list[npt.NDArray[np.float64]], npt.NDArray[np.float64], float]:
        if trained not in self._references:
            history = self.world.history
            span = max(1, int(history.training_window / history.window))
            inside = (history.position < trained) & (history.position >= trained - span)
            number = np.floor(history.position).astype(int)
            blocks = [self.features[inside & (number == each)] for each in range(trained - span, trained)]
            blocks = [block for block in blocks if len(block) >= 20]
            if len(blocks) < 3:
                self._references[trained] = [], np.ones(1), math.inf
            else:
                distances = np.array([self._distances(block, _sorted(np.vstack([*blocks[:i], *blocks[i + 1 :]]))) for i, block in enumerate(blocks)])
                scale = np.maximum(distances.mean(axis=0), 1e-3)
                self._references[trained] = _sorted(np.vstack(blocks)), scale, float((distances / scale).max())
        return self._references[trained]

    def _distances(self, rows: npt.NDArray[np.float32], reference: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        found = []
        for column, (values, category) in enumerate(zip(reference, self.categorical, strict=True)):
            mine = np.sort(rows[:, column].astype(np.float64))
            mine = mine[np.isfinite(mine)]
            if not len(mine) or not len(values):
                found.append(0.0)
                continue
            at = np.unique(np.r_[mine, values]) if category else np.r_[mine, values[:: max(1, len(values) // 2000)]]
            right = np.abs(np.searchsorted(mine, at, "right") / len(mine) - np.searchsorted(values, at, "right") / len(values))
            if category:
                share = [np.diff(np.r_[0, np.searchsorted(one, at, "right")]) / len(one) for one in (mine, values)]
                right = np.array([np.abs(share[0] - share[1]).sum() / 2])
            found.append(float(right.max()))
        return np.array(found)


def _sorted(rows: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float64]]:
    columns = [np.sort(rows[:, column].astype(np.float64)) for column in range(rows.shape[1])]
    return [column[np.isfinite(column)] for column in columns]


def oracle(grid: Grid, runs: int, measure: str) -> Served:
    """The ceiling: the best `runs` trainings that there could have been, by dynamic programming over all windows, looking ahead. `measure`: auc or log_loss."""
    history, names = grid.history, list(grid.auc)
    tables = grid.auc if measure == "auc" else grid.log_loss
    sign = 1.0 if measure == "auc" else -1.0
    count = history.windows
    models = [Model(0, FIRST), *(model for model in grid.probability if model.window > 0 and model.training_window in names)]
    ahead = {model: np.r_[np.cumsum(np.nan_to_num(sign * tables[model.training_window][model.window])[::-1])[::-1], 0.0] for model in models}
    by_window: dict[int, list[Model]] = {}
    for model in models:
        by_window.setdefault(model.window, []).append(model)
    # best[n][w]: the most that can be had from window w on when a training happens at w and n more may follow; what follows it.
    best = np.full((runs + 1, count + 1), -math.inf)
    follow: dict[tuple[int, int], tuple[Model, int]] = {}
    for left in range(runs + 1):
        for window in range(count - 1, -1, -1):
            for model in by_window.get(window, []):
                gained = ahead[model]
                choices = [(gained[window], count)]
                if left:
                    choices += [(gained[window] - gained[later] + best[left - 1][later], later) for later in range(window + 1, count) if later in by_window]
                value, later = max(choices)
                if value > best[left][window]:
                    best[left][window] = value
                    follow[left, window] = model, later
    served: list[Model] = []
    left, window = runs, 0
    while window < count:
        model, window = follow[left, window]
        served.append(model)
        left -= 1
    values = np.full((3, count), np.nan)
    for window in range(count):
        model = max((one for one in served if one.window <= window), key=lambda one: one.window)
        values[:, window] = [table[model.training_window][model.window, window] for table in (grid.auc, grid.log_loss, grid.cost)]
    return Served("oracle", values[0], values[1], values[2], tuple(served[1:]))
