"""Policies replayed on a history whose break is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from components.contracts.errors import InvalidData
from components.contracts.loading import load_usecase
from components.contracts.usecase import UseCase
from components.monitoring.backtest.comparison import margin, not_worse, paired, summary
from components.monitoring.backtest.grid import Grid, Model, build_grid, rank_auc
from components.monitoring.backtest.history import History
from components.monitoring.backtest.policies import BelowPromise, Decided, DriftAlarms, Every, EveryAlarm, Never, oracle
from components.monitoring.backtest.replay import World, replay
from components.monitoring.backtest.tabular import TrialLearner, encoded, history_of_table, promise

pytestmark = pytest.mark.pipeline

START, WEEK = datetime(2020, 1, 6, tzinfo=UTC), timedelta(days=7)
PER_WINDOW, HISTORY, WINDOWS = 150, 4, 12
BREAK = 5


def table(break_at: int | None = BREAK, seed: int = 1) -> pd.DataFrame:
    """Rows of 16 weeks; from window `break_at` on the sign of the effect is turned over."""
    draw = np.random.default_rng(seed)
    count = PER_WINDOW * (HISTORY + WINDOWS)
    x = draw.normal(size=(count, 3))
    position = np.arange(count) / PER_WINDOW - HISTORY
    sign = np.where((break_at is not None) & (position >= (break_at or 0)), -1.0, 1.0)
    label = draw.random(count) < 1 / (1 + np.exp(-2.5 * sign * x[:, 0]))
    rows = pd.DataFrame(x, columns=["a", "b", "c"])
    rows["kind"] = np.where(draw.random(count) < 0.5, "p", "q")
    rows.insert(0, "moment", pd.Timestamp(START) + pd.to_timedelta(position * WEEK.total_seconds(), unit="s"))
    rows.insert(1, "label", label.astype(int))
    return rows


def history(rows: pd.DataFrame, delay: timedelta = WEEK) -> History:
    return history_of_table("made", rows, ["a", "b", "c", "kind"], START, WEEK, delay, 4 * WEEK)


def config(**retraining: object) -> UseCase:
    flights = load_usecase("flights").config
    free = {"threshold": 0.7, "cooldown": timedelta(0), "budget_runs": 1000, "cost_of_run": 1.0, "run_mode": "enabled", "training_window": 4 * WEEK}
    return flights.model_copy(
        update={
            "model": flights.model.model_copy(update={"test_period": WEEK}),
            "monitoring": flights.monitoring.model_copy(update={"window": WEEK}),
            "retraining": flights.retraining.model_copy(update=free | retraining),
        }
    )


def grid_of(made: History) -> Grid:
    return build_grid(made, 0.5, (1.0, 1.0), lambda *_: None)


@pytest.fixture(scope="module")
def broken() -> World:
    return World(grid_of(history(table())), config())


@pytest.fixture(scope="module")
def steady() -> World:
    return World(grid_of(history(table(break_at=None))), config())


def test_a_model_never_learns_from_labels_that_were_not_known(broken: World) -> None:
    made = broken.history
    for window in range(made.windows):
        known = made.known(window)
        assert (made.known_at[known] <= pd.Timestamp(made.moment_of(window))).all()
    later = table()
    later.loc[later["moment"] >= pd.Timestamp(made.moment_of(8)), "label"] = 0
    changed = grid_of(history(later))
    model = Model(9, "sliding")
    kept = changed.scores(model, 10), broken.grid.scores(model, 10)
    assert np.array_equal(*kept) is False or made.known(9).max() < made.edges[8]
    early = Model(8, "sliding")  # labels of window 8 are known from window 9 on
    assert np.array_equal(changed.scores(early, 10), broken.grid.scores(early, 10))


@pytest.mark.ml_test("model-4")
def test_never_keeps_the_first_model_and_always_trains_at_each_window_with_new_labels(broken: World) -> None:
    never, always = replay(broken, Never()), replay(broken, Every(1, name="always"))
    assert never.runs == ()
    assert [run.window for run in always.runs] == broken.history.with_new_labels
    assert np.nanmean(never.auc[BREAK + 1 :]) < 0.3 < 0.7 < np.nanmean(always.auc[-4:])
    assert len(replay(broken, Every(4, name="every 4th")).runs) == len(broken.history.with_new_labels) // 4


def test_the_decision_retrains_after_the_break_and_says_why(broken: World) -> None:
    mine = replay(broken, Decided())
    first = next(run.window for run in mine.runs if run.window > BREAK)
    assert first == broken.history.measured_at[BREAK]
    outcome, reason = mine.reasons[first]
    assert outcome == "retrain"
    assert "no longer mean what they say" in reason
    assert np.nanmean(mine.auc[-3:]) > 0.7


def test_the_decision_takes_at_most_a_quarter_of_the_windows(broken: World) -> None:
    assert len(replay(broken, Decided()).runs) <= max(3, len(broken.history.with_new_labels) // 4)


def test_where_nothing_changes_the_decision_saves_runs(steady: World) -> None:
    mine, always = replay(steady, Decided()), replay(steady, Every(1, name="always"))
    assert len(mine.runs) < len(always.runs) / 3
    assert np.nanmean(mine.auc) > np.nanmean(always.auc) - 0.01


def test_a_dear_run_is_made_only_for_a_break(steady: World) -> None:
    dear = World(steady.grid, config(cost_of_run=1e9))
    assert replay(dear, Decided()).runs == ()


def test_policies_know_nothing_of_the_future(broken: World) -> None:
    """The same decisions, whatever the labels after them are."""
    changed = table()
    late = changed["moment"] >= pd.Timestamp(broken.history.moment_of(9))
    changed.loc[late, "label"] = 1 - changed.loc[late, "label"]
    other = World(grid_of(history(changed)), config())
    mine, theirs = replay(broken, Decided()), replay(other, Decided())
    assert [run for run in mine.runs if run.window <= 9] == [run for run in theirs.runs if run.window <= 9]


def test_alarms_follow_the_inputs_and_not_the_labels() -> None:
    rows = table(break_at=None)
    moved = rows["moment"] >= pd.Timestamp(START + 6 * WEEK)
    rows.loc[moved, "b"] += 2.0
    made = history(rows)
    assert isinstance(made.learner, TrialLearner)
    world = World(grid_of(made), config())
    alarms = DriftAlarms(world, made.learner.matrix, tuple(kind == "c" for kind in made.learner.feature_types))
    assert not alarms.alarmed(0, 3)
    assert alarms.alarmed(0, 6)
    assert 7 in {run.window for run in replay(world, EveryAlarm(alarms)).runs}


def test_below_the_promise_retrains_when_the_value_is_below(broken: World) -> None:
    runs = [run.window for run in replay(broken, BelowPromise()).runs]
    assert runs
    assert runs[0] == broken.history.measured_at[BREAK]


def test_no_policy_beats_the_oracle_with_as_many_runs(broken: World) -> None:
    runs = len(broken.history.with_new_labels) // 4
    ceiling = np.nanmean(oracle(broken.grid, runs, "auc").auc)
    assert len(oracle(broken.grid, runs, "auc").runs) <= runs
    for policy in (Never(), Every(4, name="every 4th"), Decided()):
        served = replay(broken, policy)
        if len(served.runs) <= runs:
            assert np.nanmean(served.auc) <= ceiling + 1e-12


def test_paired_intervals_hold_the_difference_and_the_verdict_follows_the_margin() -> None:
    draw = np.random.default_rng(3)
    noise = draw.normal(size=60)
    difference = paired(0.8 + 0.1 * noise + 0.01, 0.8 + 0.1 * noise + 0.01 * draw.normal(size=60), 0.95)
    assert difference.low < 0.01 < difference.high
    assert difference.high - difference.low < 0.02  # paired: the common noise is gone
    assert not_worse(difference, 0.0, True) == "held"
    assert not_worse(paired(noise, noise + 1, 0.95), 0.5, True) == "missed"
    assert not_worse(paired(noise, draw.normal(size=60), 0.95), 0.01, True) == "undecided"
    assert not_worse(paired(noise, noise - 1, 0.95), 0.5, False) == "missed"


def test_the_margin_grows_with_the_cost_of_a_run_and_is_what_it_buys() -> None:
    cheap, dear = (margin(config(cost_of_run=cost), 0.75, 0.3, 500) for cost in (100.0, 1000.0))
    assert 0 < cheap.auc < dear.auc < 0.2
    assert 0 < cheap.log_loss < dear.log_loss


def test_the_summary_counts_time_below_the_promise_and_money(broken: World) -> None:
    never = summary(replay(broken, Never()), broken.history, broken.config)
    always = summary(replay(broken, Every(1, name="always")), broken.history, broken.config)
    assert never.below > always.below
    assert never.money > always.money


def test_rank_auc_is_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(0)
    label, score = (draw.random(300) < 0.3).astype(np.int8), np.round(draw.random(300), 1)
    assert rank_auc(label, score) == pytest.approx(roc_auc_score(label, score))
    assert np.isnan(rank_auc(np.zeros(5, dtype=np.int8), score[:5]))


def test_categories_become_positions_and_missing_stays_missing() -> None:
    matrix, types = encoded(pd.DataFrame({"number": [1.5, None], "flag": [True, False], "text": ["b", None]}))
    assert types == ("float", "float", "c")
    assert matrix[0].tolist() == [1.5, 1.0, 0.0]
    assert np.isnan(matrix[1, [0, 2]]).all()


def test_a_history_that_is_too_short_or_out_of_order_is_refused() -> None:
    rows = table()
    with pytest.raises(InvalidData, match="four are the least"):
        history(rows[rows["moment"] < pd.Timestamp(START + 2 * WEEK)])
    with pytest.raises(InvalidData, match="order of time"):
        history(rows.iloc[::-1])


def test_the_promise_rests_on_the_time_before_the_start(broken: World) -> None:
    auc, share = promise(broken.history)
    assert 0.8 < auc < 1
    assert 0.4 < share < 0.6
