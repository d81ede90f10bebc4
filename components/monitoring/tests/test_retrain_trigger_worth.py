"""What age costs, what breaks, which rows to learn from, and how many runs are left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.contracts.events import Performance, Trial
from components.contracts.loading import load_usecase
from components.contracts.usecase import UseCase
from components.monitoring.retrain_trigger.policy import Decision, Evidence, Retraining, decide, training_start
from components.monitoring.retrain_trigger.worth import ADVANCE, best_training_window, is_broken, runs_left, worth_of_run

WEEK = timedelta(days=7)
START = datetime(2013, 5, 2, tzinfo=UTC)
THRESHOLD = 0.65


@pytest.fixture(scope="module")
def config() -> UseCase:
    loaded = load_usecase("flights").config
    return loaded.model_copy(update={"retraining": loaded.retraining.model_copy(update={"threshold": THRESHOLD, "cost_of_run": 1000.0})})


def window(week: int, value: float = 0.70, gain: float = 0.0, error: float = 0.001, model: str = "m1", **changes: Any) -> Performance:
    start = START + week * WEEK
    values: dict[str, Any] = {
        "id": f"{model}-{week}",
        "usecase": "flights",
        "model_version": model,
        "window_start": start,
        "window_end": start + WEEK,
        "as_of": start + WEEK + timedelta(days=15, hours=2),
        "kind": "measured",
        "metric": "roc_auc",
        "value": value,
        "low": value - 0.03,
        "high": value + 0.03,
        "threshold": THRESHOLD,
        "rows": 1000,
        "labelled_share": 1.0,
        "sampling_error": 0.015,
        "backtest_error": 0.01,
        "outcomes": {"arrived": 1000},
        "log_loss": 0.50,
        "expected_log_loss": 0.50,
        "log_loss_error": 0.01,
        "loss_price": 200.0,
        "trial": Trial(gain=gain, error=error, windows={"sliding": 0.50, "growing": 0.49}),
    }
    return Performance.model_validate(values | changes)


def judged(config: UseCase, cause: Performance, *known: Performance, past: tuple[Retraining, ...] = ()) -> Decision:
    return decide(config, cause, Evidence("m1", known), past)


def quiet(weeks: range) -> tuple[Performance, ...]:
    return tuple(window(week) for week in weeks)


def test_age_that_costs_more_than_a_run_retrains_although_the_promise_holds(config: UseCase) -> None:
    known = window(0, gain=0.004), window(1, gain=0.004)
    decision = judged(config, window(2, gain=0.004), *known)
    assert decision.outcome == "retrain"
    assert "its age has cost about 2,400 USD" in decision.reason
    assert "A run costs 1,000 USD" in decision.reason
    assert decision.inputs["cost_of_age"] == pytest.approx(3 * 0.004 * 200 * 1000)


def test_age_that_costs_less_than_a_run_waits_until_it_has_added_up(config: UseCase) -> None:
    dear = config.model_copy(update={"retraining": config.retraining.model_copy(update={"cost_of_run": 2000.0})})
    windows = [window(week, gain=0.004) for week in range(3)]
    assert judged(dear, windows[1], windows[0]).outcome == "nothing"
    assert judged(dear, windows[2], *windows[:2]).outcome == "retrain"


def test_a_gain_within_its_error_is_none(config: UseCase) -> None:
    windows = [window(week, gain=0.004, error=0.01) for week in range(3)]
    decision = judged(config, windows[2], *windows[:2])
    assert decision.outcome == "nothing"
    assert "not surely better" in decision.reason


def test_only_windows_since_the_last_run_and_of_this_model_count() -> None:
    windows = [window(0, gain=0.1), window(1, gain=0.2), window(2, gain=0.4, model="m0")]
    since = windows[0].as_of
    assert worth_of_run(windows, "m1", None, 3).gain == pytest.approx(0.3)
    assert worth_of_run(windows, "m1", since, 3).gain == pytest.approx(0.2)
    assert worth_of_run(windows, "m1", since, 3).windows == 1


def test_probabilities_that_lie_are_a_break(config: UseCase) -> None:
    broken = window(20, log_loss=0.60, log_loss_error=0.02)
    assert is_broken(broken)
    decision = judged(config, broken, *quiet(range(20)))
    assert decision.outcome == "retrain"
    assert "no longer mean what they say" in decision.reason


def test_when_all_runs_are_taken_a_break_pages_and_age_waits(config: UseCase) -> None:
    runs = (Retraining("r", START, "succeeded"),)
    page = judged(config, window(6, log_loss=0.7), *quiet(range(6)), past=runs)
    assert (page.inputs["runs_left"], page.outcome) == (0, "page")
    assert "One run in 4 windows is allowed" in page.reason
    age = judged(config, window(6, gain=0.05), *quiet(range(6)), past=runs)
    assert age.outcome == "nothing"
    assert "all are taken" in age.reason


@pytest.mark.parametrize(("log_loss", "error", "broken"), [(0.515, 0.001, False), (0.53, 0.02, False), (0.55, 0.02, True)])
def test_a_break_is_large_and_sure(log_loss: float, error: float, broken: bool) -> None:
    assert is_broken(window(0, log_loss=log_loss, log_loss_error=error)) is broken


def test_a_broken_promise_that_newer_labels_do_not_mend_pages_a_person(config: UseCase) -> None:
    known = window(0, gain=-0.002), window(1, gain=-0.001)
    decision = judged(config, window(2, value=0.55, gain=-0.001), *known)
    assert decision.outcome == "page"
    assert "retraining will not help" in decision.reason
    assert judged(config, window(2, value=0.55, gain=0.01), *known).outcome == "retrain"


def test_a_trial_without_newer_labels_says_nothing(config: UseCase) -> None:
    nothing_newer = [window(week, value=0.55, gain=0.0, error=0.0) for week in range(2)]
    assert worth_of_run(nothing_newer, "m1", None, 1).windows == 0
    assert judged(config, nothing_newer[1], nothing_newer[0]).outcome == "retrain"


def test_never_more_than_a_quarter_of_the_windows_from_the_fourth_on() -> None:
    taken = 0
    for windows in range(1, 200):
        while runs_left(windows, taken) > 0:
            taken += 1
        assert taken <= max(ADVANCE, windows / 4)


def test_the_more_runs_are_left_the_less_sure_it_must_be() -> None:
    once = [window(0, gain=0.006, error=0.01)]
    assert not worth_of_run(once, "m1", None, 1).is_sure
    assert worth_of_run(once, "m1", None, 2).is_sure


def test_labels_of_one_class_tell_of_loss_and_not_of_ranking(config: UseCase) -> None:
    one_class = {"value": 0.5, "low": 0.0, "high": 1.0}
    assert judged(config, window(1, **one_class), window(0, **one_class)).outcome == "nothing"
    assert judged(config, window(1, log_loss=0.9, **one_class), window(0, **one_class)).outcome == "retrain"


def test_the_training_window_with_the_lowest_loss_lately_is_chosen() -> None:
    def trial(week: int, sliding: float, growing: float) -> Performance:
        return window(week, trial=Trial(gain=0.0, error=0.1, windows={"sliding": sliding, "growing": growing}))

    assert best_training_window([]) is None
    assert best_training_window([window(0, trial=None)]) is None
    early = [trial(week, 0.4, 0.6) for week in range(20)]
    late = [trial(week, 0.6, 0.5) for week in range(20, 32)]
    assert best_training_window(early) == "sliding"
    assert best_training_window([*late, *early]) == "growing"  # by window, whatever the order; the last twelve count


def test_the_run_learns_from_the_chosen_window(config: UseCase) -> None:
    cause = window(2, gain=0.01)
    evidence = Evidence("m1", (window(0, gain=0.01), window(1, gain=0.01)))
    decision = decide(config, cause, evidence, ())
    assert (decision.outcome, decision.training_window) == ("retrain", "growing")
    assert training_start(config, decision, evidence) == START - config.retraining.training_window
    sliding = Decision("c", cause.as_of, "retrain", "", training_window="sliding")
    assert training_start(config, sliding, evidence) == cause.as_of - config.retraining.training_window
