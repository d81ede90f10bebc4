"""The decision to retrain against what peers do, on streams that it was not developed on.

    cd benchmarks && uv sync && cd .. && benchmarks/.venv/bin/python -m benchmarks.retraining_decision --cache <folder>

Every policy of `components.monitoring.backtest.policies` is replayed on every stream: from its first window on, with labels as late as the stream
says. A run is one training that would be released; all policies train by the same recipe, without gates. `--streams development` repeats what the
constants in `components/monitoring/retrain_trigger/worth.py` were chosen on; they were frozen before the others were looked at.
A stream of your own: --table rows.parquet --moment <column> --label <column> --start 2020-01-01 --window 7d --delay 14d --training-window 90d.

Fixed before judging: a run costs a hundredth of what the errors of a window cost without a model (best constant rule); a missed positive costs as
many false alarms as there are negatives for each positive. The margin follows from that (`components.monitoring.backtest.comparison.margin`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.retraining_report import ALWAYS, FIXED, OURS, Judged, write
from benchmarks.streams import generated, packaged
from benchmarks.streams.stream import Stream, dated
from components.contracts.durations import parse_duration
from components.contracts.loading import load_usecase
from components.contracts.usecase import UseCase
from components.monitoring.backtest.comparison import Summary, margin, paired, summary
from components.monitoring.backtest.grid import Grid, build_grid
from components.monitoring.backtest.history import History
from components.monitoring.backtest.policies import BelowPromise, Decided, DriftAlarms, Every, EveryAlarm, Never, oracle
from components.monitoring.backtest.replay import Policy, World, replay
from components.monitoring.backtest.tabular import TrialLearner, history_of_table, promise

RESULTS = Path(__file__).parent / "results"
COST_OF_RUN = 0.01  # of the error cost of one window under the best constant rule


def settings(history: History) -> UseCase:
    """The decision's settings for a stream: no cooldown and no budget of its own, so that what is judged is the policy."""
    flights = load_usecase("flights").config
    auc, share = promise(history)
    per_window = len(history.label[history.position >= 0]) / history.windows
    miss = (1 - share) / share
    return flights.model_copy(
        update={
            "name": history.name,
            "business": flights.business.model_copy(update={"cost_false_alarm": 1.0, "cost_miss": miss, "currency": "false alarms"}),
            "model": flights.model.model_copy(update={"test_period": history.window}),
            "monitoring": flights.monitoring.model_copy(update={"window": history.window}),
            "retraining": flights.retraining.model_copy(
                update={
                    "threshold": math.floor(auc * 100) / 100,
                    "cooldown": history.window * 0,
                    "budget_runs": 10**6,
                    "cost_of_run": COST_OF_RUN * (1 - share) * per_window,
                    "training_window": history.training_window,
                    "run_mode": "enabled",
                }
            ),
        }
    )


def judge(stream: Stream, cache: Path) -> Judged:
    history = history_of_table(stream.name, stream.rows, stream.features, stream.start.to_pydatetime(), stream.window, stream.delay, stream.training_window)
    config = settings(history)
    grid = cached_grid(history, config, cache)
    world = World(grid, config)
    learner = history.learner
    assert isinstance(learner, TrialLearner)
    alarms = DriftAlarms(world, learner.matrix, tuple(kind == "c" for kind in learner.feature_types))
    policies: list[Policy] = [
        Never(),
        Every(1, name=ALWAYS),
        Every(1, "sliding", name=FIXED),
        Every(2, name="every 2nd"),
        Every(4, name="every 4th"),
        EveryAlarm(alarms),
        BelowPromise(),
        Decided(),
    ]
    served = {policy.name: replay(world, policy) for policy in policies}
    quarter = len(history.with_new_labels) // 4
    served["oracle"] = oracle(grid, quarter, "auc")
    ceiling_loss = oracle(grid, quarter, "log_loss")
    summaries = [summary(one, history, config) for one in served.values()]
    summaries[-1] = Summary(**{**summaries[-1].__dict__, "log_loss": float(np.nanmean(ceiling_loss.log_loss))})
    mine = served[OURS]
    confidence = config.evaluation.confidence
    differences = {
        name: (paired(mine.auc, other.auc, confidence), paired(mine.log_loss, other.log_loss, confidence))
        for name, other in served.items()
        if name not in (OURS, "oracle")
    }
    auc, share = promise(history)
    per_window = len(history.label[history.position >= 0]) / history.windows
    return Judged(
        stream.name,
        stream.role,
        history.windows,
        len(history.with_new_labels),
        len(history.label),
        margin(config, auc, share, per_window),
        summaries,
        differences,
        served,
        grid.seconds,
    )


def cached_grid(history: History, config: UseCase, cache: Path) -> Grid:
    """The grid, fitted once: it depends on the rows and the trials' code alone."""
    learner = history.learner
    assert isinstance(learner, TrialLearner)
    source = Path(sys.modules[TrialLearner.__module__].__file__ or "").parent.parent / "performance" / "trial.py"
    key = hashlib.sha256(
        learner.matrix.tobytes() + history.label.tobytes() + history.position.tobytes() + history.known_position.tobytes() + source.read_bytes()
    )
    file = cache / f"{history.name}-{key.hexdigest()[:16]}.pickle"
    if file.exists():
        probability, (auc, log_loss, cost), seconds = pickle.loads(file.read_bytes())  # noqa: S301  our own file
        return Grid(history, probability, auc, log_loss, cost, seconds)
    costs = config.business.cost_false_alarm, config.business.cost_miss
    grid = build_grid(history, costs[0] / sum(costs), costs, lambda done, of: print(f"\r{history.name}: {done} of {of} windows", end="", flush=True))
    print(f"\r{history.name}: {len(grid.probability)} models, {grid.seconds:.2f} s each", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps((grid.probability, (grid.auc, grid.log_loss, grid.cost), grid.seconds)))
    return grid


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of the fitted models' scores")
    parser.add_argument("--streams", default="all", help="development, judged, all, or names separated by commas")
    parser.add_argument("--flights", type=Path, help="the flights use case's feature frame (crispline backtest leaves it in its cache)")
    parser.add_argument("--table", type=Path, help="a Parquet or CSV file of your own")
    for option, default in {"moment": "moment", "label": "label", "start": "", "window": "7d", "delay": "7d", "training-window": "90d", "drop": ""}.items():
        parser.add_argument(f"--{option}", default=default)
    given = parser.parse_args(arguments)
    makers: list[Callable[[], Stream]] = [*packaged.JUDGED, *generated.JUDGED, *packaged.DEVELOPMENT, *generated.DEVELOPMENT]
    streams = [own_table(given)] if given.table else [maker() for maker in makers]
    wanted = {"development", "judged"} if given.streams == "all" or given.table else set(given.streams.split(","))
    judged = [judge(stream, given.cache) for stream in streams if {stream.role, stream.name} & wanted]
    if not judged:
        parser.error(f"no stream is named {given.streams!r}; there are {', '.join(stream.name for stream in streams)}")
    for one in judged:
        print(console(one))
    if given.streams in ("all", "judged") and not given.table:
        write(judged, {stream.name: stream for stream in streams}, RESULTS)
    return 0


def own_table(given: argparse.Namespace) -> Stream:
    raw = pd.read_parquet(given.table) if given.table.suffix == ".parquet" else pd.read_csv(given.table)
    dropped = [given.moment, given.label, *filter(None, given.drop.split(","))]
    rows = dated(raw.drop(columns=dropped), raw[given.moment], raw[given.label])
    start = pd.Timestamp(given.start, tz="UTC") if given.start else rows["moment"].iloc[len(rows) // 5]
    durations = [parse_duration(text) for text in (given.window, given.delay, given.training_window)]
    return Stream(given.table.stem, given.label, str(given.table.name), "given by the caller", "judged", rows, start, *durations)


def console(one: Judged) -> str:
    lines = [f"\n{one.name} ({one.role}): {one.rows} rows, {one.windows} windows; margin {one.margin.auc:.4f} AUC, {one.margin.log_loss:.4f} log loss"]
    lines += [
        f"  {s.name:22} AUC {s.auc:.4f}  log loss {s.log_loss:.4f}  worst {s.worst:.3f}  below {s.below:4.0%}  runs {s.runs:3d}  cost {s.money:,.0f}"
        for s in one.summaries
    ]
    for other, (auc, loss) in one.differences.items():
        verdict = one.verdict(other)
        lines.append(
            f"    less {other:22} AUC {auc.value:+.4f} [{auc.low:+.4f}, {auc.high:+.4f}] {verdict[0]:9}  log loss {loss.value:+.4f} [{loss.low:+.4f}, {loss.high:+.4f}] {verdict[1]}"
        )
    return "\n".join(lines)


def as_json(judged: Sequence[Judged]) -> str:
    return json.dumps([{"name": one.name, "summaries": [s.__dict__ for s in one.summaries]} for one in judged], indent=1)


if __name__ == "__main__":
    sys.exit(main())
