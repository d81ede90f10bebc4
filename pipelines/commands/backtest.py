"""`crispline backtest`: replay the retraining decision on a use case's history, beside what else could have been done, and draw it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from components.contracts.durations import format_duration, format_moment, parse_moment
from components.contracts.errors import CrisplineError
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.contracts.usecase import UseCase
from components.monitoring.backtest.comparison import margin, paired, summary
from components.monitoring.backtest.grid import Grid, build_grid
from components.monitoring.backtest.history import History
from components.monitoring.backtest.page import OURS, Backtest, Setting, backtest_page
from components.monitoring.backtest.policies import BelowPromise, Decided, DriftAlarms, Every, EveryAlarm, Never, oracle
from components.monitoring.backtest.replay import Policy, Served, World, replay
from components.monitoring.backtest.tabular import TrialLearner, promise
from components.monitoring.backtest.usecase_history import default_start, feature_frame, history_of_usecase, training_windows
from pipelines.commands.reporting import end_with


def run_backtest(request: dict[str, Any]) -> int:
    usecase, out = load_usecase(request["usecase"]), Path(request["out"])
    cache = Path(request["cache"] or Path(request["state"]) / "backtest")
    cache.mkdir(parents=True, exist_ok=True)
    platform = Platform.embedded(Path(request["state"]))
    start, end = (parse_moment(request[key]) if request[key] else None for key in ("start", "end"))
    if request["source"] and (start is None or end is None):
        raise CrisplineError("reading the source needs --start and --end: the period of its history")
    print("reading the history", flush=True)
    lake_start, lake_end = _covered(usecase, platform) if not request["source"] else (start, end)
    frame = feature_frame(usecase, platform, start or lake_start, end or lake_end, cache, request["source"])  # type: ignore[arg-type]
    live = parse_moment(request["live_from"]) if request["live_from"] else default_start(frame, usecase)
    history = history_of_usecase(usecase, frame, live, request["rows"])
    print(
        f"{len(history.label):,} of {len(frame):,} rows, {history.windows} windows of {format_duration(history.window)} from {format_moment(live)}", flush=True
    )
    grid = _grid(usecase, history, cache)
    found = compare(usecase.config, history, grid, len(frame))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(backtest_page(found))
    _tell(found)
    print(f"\n{out}", flush=True)
    return 0


def compare(config: UseCase, history: History, grid: Grid, rows_in_all: int) -> Backtest:
    """Replay every policy and every other setting on the grid."""
    world = World(grid, config)
    learner = history.learner
    assert isinstance(learner, TrialLearner)
    alarms = DriftAlarms(world, learner.matrix, tuple(kind == "c" for kind in learner.feature_types))
    policies: list[Policy] = [
        Never(),
        Every(1, name="always"),
        Every(1, "sliding", name="always, fixed window"),
        Every(2, name="every 2nd"),
        Every(4, name="every 4th"),
        EveryAlarm(alarms),
        BelowPromise(),
        Decided(),
    ]
    served: dict[str, Served] = {policy.name: replay(world, policy) for policy in policies}
    served["oracle"] = oracle(grid, len(history.with_new_labels) // 4, "auc")
    mine, confidence = served[OURS], config.evaluation.confidence
    differences = {
        name: (paired(mine.auc, other.auc, confidence), paired(mine.log_loss, other.log_loss, confidence)) for name, other in served.items() if name != OURS
    }
    auc, share = promise(history)
    per_window = rows_in_all * float((history.position >= 0).mean()) / history.windows
    return Backtest(
        config=config,
        history=history,
        grid=grid,
        served=served,
        summaries=[summary(one, history, config) for one in served.values()],
        differences=differences,
        margin=margin(config, auc, share, per_window),
        settings=list(_settings(config, history, grid)),
        rows_in_all=rows_in_all,
    )


def _settings(config: UseCase, history: History, grid: Grid) -> list[Setting]:
    """One setting changed at a time."""
    retraining = config.retraining
    thresholds = sorted({round(retraining.threshold + step, 3) for step in (-0.04, -0.02, 0.0, 0.02, 0.04)})
    cooldowns = sorted({retraining.cooldown, timedelta(0), history.window * 2, history.window * 4, history.window * 8})
    choices: dict[str, list[Any]] = {
        "threshold": thresholds,
        "cooldown": cooldowns,
        "budget_runs": sorted({retraining.budget_runs, 2, 4, 8, 12}),
        "cost_of_run": sorted({retraining.cost_of_run, *(retraining.cost_of_run * factor for factor in (10.0, 100.0, 1000.0))}),
    }
    found = []
    for key, values in choices.items():
        for value in values:
            changed = config.model_copy(update={"retraining": retraining.model_copy(update={key: value})})
            result = summary(replay(World(grid, changed), Decided()), history, changed)
            found.append(Setting(key, format_duration(value) if isinstance(value, timedelta) else f"{value:g}", value == getattr(retraining, key), result))
    return found


def _covered(usecase: LoadedUseCase, platform: Platform) -> tuple[Any, Any]:
    """The first moment and the end of what the lake holds. Raises CrisplineError when it holds nothing."""
    from components.data_engineering.lake import periods

    found = periods(platform.lake_uri, usecase.name)
    if not found:
        raise CrisplineError(
            f"the lake of this state folder holds nothing of {usecase.name!r}\n    remedy: name the state with --state, or read the source: --source --start <day> --end <day>"
        )
    return found[0].start, found[-1].end


def _grid(usecase: LoadedUseCase, history: History, cache: Path) -> Grid:
    """The models, fitted once for these rows."""
    import pickle

    learner = history.learner
    assert isinstance(learner, TrialLearner)
    names, business = training_windows(usecase), usecase.config.business
    content = learner.matrix.tobytes() + history.label.tobytes() + history.position.tobytes() + history.known_position.tobytes()
    key = hashlib.sha256(content + repr((names, business.cost_false_alarm, business.cost_miss, history.training_window)).encode()).hexdigest()[:16]
    file = cache / f"models-{key}.pickle"
    if file.exists():
        probability, (auc, log_loss, cost), seconds = pickle.loads(file.read_bytes())  # noqa: S301  written below, in the user's own folder
        return Grid(history, probability, auc, log_loss, cost, seconds)
    threshold = business.cost_false_alarm / (business.cost_false_alarm + business.cost_miss)
    grid = build_grid(history, threshold, (business.cost_false_alarm, business.cost_miss), _progress(), names)
    file.write_bytes(pickle.dumps((grid.probability, (grid.auc, grid.log_loss, grid.cost), grid.seconds)))
    return grid


def _progress() -> Callable[[int, int], None]:
    """A line that is written over on a terminal, every tenth window elsewhere."""

    def say(done: int, of: int) -> None:
        if sys.stdout.isatty():
            print(f"\rtraining models: window {done} of {of}", end="\n" if done == of else "", flush=True)
        elif done % 10 == 0 or done == of:
            print(f"training models: window {done} of {of}", flush=True)

    return say


def _tell(found: Backtest) -> None:
    print(f"\n{'policy':22} {'AUC':>7} {'log loss':>9} {'worst':>6} {'below':>6} {'runs':>5}")
    for one in found.summaries:
        print(f"{one.name:22} {one.auc:7.4f} {one.log_loss:9.4f} {one.worst:6.3f} {one.below:6.0%} {one.runs:5d}")


if __name__ == "__main__":
    end_with(lambda: run_backtest(json.loads(sys.argv[1])))
