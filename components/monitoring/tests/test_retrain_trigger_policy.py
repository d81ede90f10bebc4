"""The decision whether to retrain, case by case: each with the reason that a person would read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.contracts.events import Alert, Performance
from components.contracts.loading import load_usecase
from components.contracts.usecase import UseCase
from components.monitoring.retrain_trigger.policy import Decision, Evidence, Retraining, business_time, decide

WEEK = timedelta(days=7)
START = datetime(2013, 5, 2, tzinfo=UTC)
THRESHOLD = 0.65


@pytest.fixture(scope="module")
def config() -> UseCase:
    loaded = load_usecase("flights").config
    return loaded.model_copy(update={"retraining": loaded.retraining.model_copy(update={"threshold": THRESHOLD})})


def performance(value: float, kind: str = "measured", week: int = 0, half: float = 0.03, **changes: Any) -> Performance:
    start = START + week * WEEK
    values = {
        "id": f"{kind}-{week}-{value}",
        "usecase": "flights",
        "model_version": "m1",
        "window_start": start,
        "window_end": start + WEEK,
        "as_of": start + WEEK + (timedelta(days=15, hours=2) if kind == "measured" else timedelta(hours=6)),
        "kind": kind,
        "metric": "roc_auc",
        "value": value,
        "low": value - half,
        "high": value + half,
        "threshold": THRESHOLD,
        "rows": 6500,
        "labelled_share": 1.0 if kind == "measured" else 0.0,
        "sampling_error": half / 2,
        "backtest_error": 0.01,
        "outcomes": {"arrived": 6300, "cancelled": 200} if kind == "measured" else {"awaited": 6500},
    }
    return Performance.model_validate(values | changes)


def alert(kind: str = "data_drift", week: int = 0, **changes: Any) -> Alert:
    start = START + week * WEEK
    values = {
        "id": f"{kind}-{week}",
        "usecase": "flights",
        "kind": kind,
        "detector": "features",
        "model_version": "m1",
        "release": "r1",
        "window_start": start,
        "window_end": start + WEEK,
        "rows": 6500,
        "subject": "wind_speed",
        "statistic": 0.4,
        "threshold": 0.2,
        "effect": "moved by 0.8 standard deviations",
        "details": {},
    }
    return Alert.model_validate(values | changes)


# Good measured windows before the ones judged: enough new labels to train on and to judge on, and windows enough for several runs.
HISTORY = tuple(performance(0.70, week=week) for week in range(-16, -3))
HOLDS = performance(0.72)
FALLS = performance(0.55)


def judged(config: UseCase, cause: Alert | Performance, *known: Alert | Performance, past: tuple[Retraining, ...] = (), champion: str = "m1") -> Decision:
    evidence = Evidence(
        champion,
        tuple(one for one in (*HISTORY, *known) if isinstance(one, Performance)),
        tuple(one for one in known if isinstance(one, Alert)),
    )
    return decide(config, cause, evidence, past)


def changed(config: UseCase, **values: Any) -> UseCase:
    return config.model_copy(update={"retraining": config.retraining.model_copy(update=values)})


@pytest.mark.ml_test("monitoring-4")
def test_a_measured_interval_below_the_promise_retrains(config: UseCase) -> None:
    decision = judged(config, FALLS)
    assert (decision.outcome, decision.run) == ("retrain", True)
    assert "whole interval lies below the promised 0.65" in decision.reason
    assert decision.event_time == FALLS.as_of
    assert decision.inputs["roc_auc"] == 0.55
    assert decision.thresholds["roc_auc"] == 0.65


@pytest.mark.ml_test("monitoring-4")
def test_a_promise_that_holds_needs_nothing(config: UseCase) -> None:
    assert judged(config, HOLDS).outcome == "nothing"
    drifted = judged(config, performance(0.72, explained=0.80, concept_drift=True))
    assert drifted.outcome == "nothing"
    assert "concept drift" in drifted.reason


def test_one_window_below_may_be_chance_and_two_in_a_row_are_not(config: UseCase) -> None:
    first, second = performance(0.64), performance(0.64, week=1)
    assert judged(config, first).outcome == "wait_for_labels"
    decision = judged(config, second, first)
    assert decision.outcome == "retrain"
    assert "twice in a row" in decision.reason
    assert judged(config, performance(0.64, week=2), first).outcome == "wait_for_labels"  # not in a row
    assert judged(config, second, performance(0.64, model_version="m0")).outcome == "wait_for_labels"  # another model's


def test_an_estimate_retrains_only_when_its_whole_interval_is_below(config: UseCase) -> None:
    assert judged(config, performance(0.55, "estimated")).outcome == "retrain"
    assert judged(config, performance(0.64, "estimated")).outcome == "wait_for_labels"
    assert judged(config, performance(0.66, "estimated")).outcome == "nothing"


@pytest.mark.parametrize("kind", ["data_drift", "joint_drift", "prediction_drift", "class_mix_drift", "segment_mix_drift"])
def test_drift_alone_never_retrains(config: UseCase, kind: str) -> None:
    assert judged(config, alert(kind), performance(0.72, "estimated")).outcome == "nothing"
    assert judged(config, alert(kind), performance(0.60, "estimated", half=0.1)).outcome == "wait_for_labels"
    unknown = decide(config, alert(kind), Evidence("m1"), ())
    assert unknown.outcome == "wait_for_labels"
    assert "not a verdict" in unknown.reason


@pytest.mark.parametrize("kind", ["data_quality", "lost_events"])
def test_faults_page_a_person(config: UseCase, kind: str) -> None:
    assert judged(config, alert(kind), performance(0.40)).outcome == "page"


def test_faulty_data_stops_a_retraining_on_it_and_only_on_it(config: UseCase) -> None:
    decision = judged(config, FALLS, alert("data_quality"))
    assert (decision.outcome, decision.run) == ("page", False)
    assert "faulty" in decision.reason
    assert judged(config, FALLS, alert("data_quality", week=-1)).outcome == "retrain"  # an earlier window's fault


def test_a_model_that_was_replaced_needs_nothing(config: UseCase) -> None:
    assert judged(config, FALLS, champion="m2").outcome == "nothing"
    assert "no longer in service" in judged(config, alert(), champion="m2").reason


def test_cooldown_counts_in_business_time(config: UseCase) -> None:
    for days, outcome in ((27, "nothing"), (28, "wait_for_labels"), (60, "retrain")):
        past = (Retraining("earlier", FALLS.as_of - timedelta(days=days), "succeeded"),)
        assert judged(config, FALLS, past=past).outcome == outcome, days
    assert "cooldown until 2013" in judged(config, FALLS, past=(Retraining("earlier", FALLS.as_of - timedelta(days=1), "succeeded"),)).reason


def test_a_failed_run_costs_budget_but_makes_nobody_wait(config: UseCase) -> None:
    past = (Retraining("earlier", FALLS.as_of - timedelta(days=1), "failed"),)
    assert judged(config, FALLS, past=past).outcome == "retrain"
    assert judged(changed(config, budget_runs=1), FALLS, past=past).outcome == "page"


def test_a_run_under_way_is_enough(config: UseCase) -> None:
    decision = judged(config, FALLS, past=(Retraining("earlier", FALLS.as_of - timedelta(days=200), "open"),))
    assert decision.outcome == "nothing"
    assert "under way" in decision.reason


def test_a_spent_budget_pages_and_comes_back_with_business_time(config: UseCase) -> None:
    tight = changed(config, budget_runs=1, budget_period=timedelta(days=100))
    recent, old = (Retraining("earlier", FALLS.as_of - timedelta(days=days), "succeeded") for days in (60, 100))
    assert judged(tight, FALLS, past=(recent,)).outcome == "page"
    assert judged(tight, FALLS, past=(old,)).outcome == "retrain"


def test_new_labels_over_too_short_a_time_wait(config: UseCase) -> None:
    alone = decide(config, FALLS, Evidence("m1"), ())  # one window of seven days, the test period takes fourteen
    assert alone.outcome == "wait_for_labels"
    assert "labels over 7d came in" in alone.reason
    assert decide(config, FALLS, Evidence("m1", (performance(0.7, week=-1),)), ()).outcome == "retrain"


def test_run_mode_disabled_does_nothing_and_dry_run_decides_without_running(config: UseCase) -> None:
    assert judged(changed(config, run_mode="disabled"), FALLS).outcome == "nothing"
    dry = judged(changed(config, run_mode="dry_run"), FALLS)
    assert (dry.outcome, dry.run) == ("retrain", False)


def test_what_became_known_later_has_no_say(config: UseCase) -> None:
    later = (Retraining("later", FALLS.as_of + timedelta(days=1), "succeeded"),)
    fault = alert("data_quality", week=4)
    assert judged(config, FALLS, fault, past=later).outcome == "retrain"


def test_an_alert_is_known_when_its_window_closes(config: UseCase) -> None:
    assert business_time(config, alert()) == START + WEEK + timedelta(hours=6)
