"""Feasibility says no for each reason on its own, and go where there is none."""

from __future__ import annotations

from datetime import timedelta

import pytest

from components.contracts.records import RecordStore
from components.model_engineering.tests.flight_rows import flight_rows, manifest_of
from components.understanding.feasibility import assess_feasibility, feasibility_check

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def good(flights):
    return flight_rows(flights, 6500)


def assess(flights, frame, as_of=None):
    return assess_feasibility(flights, frame, manifest_of(flights, frame, as_of))


def test_enough_recent_rows_with_a_signal_are_a_go(flights, good) -> None:
    record = assess(flights, good)
    assert record.outcome == "go", record.reason
    assert record.inputs["simple_rule"] == "dep_minute"
    assert record.inputs["simple_rule_auc"] > 0.6
    assert record.details["failures"] == []


def test_too_few_rows_are_a_no_go(flights, good) -> None:
    record = assess(flights, good[::2])
    assert record.outcome == "no_go"
    assert [failure for failure in record.details["failures"] if "fewer than 5000" in failure] == record.details["failures"]


@pytest.mark.parametrize("offset", [-5.0, 2.5])
def test_an_implausible_label_share_is_a_no_go(flights, offset) -> None:
    record = assess(flights, flight_rows(flights, 6500, offset=offset))
    assert record.outcome == "no_go"
    assert "share of" in record.reason
    assert len(record.details["failures"]) == 1


def test_noise_is_a_no_go_although_one_of_its_features_looks_good_by_luck(flights) -> None:
    record = assess(flights, flight_rows(flights, 6500, signal=0.0, offset=-1.2))
    assert record.outcome == "no_go"
    assert "AUC" in record.reason
    assert len(record.details["failures"]) == 1


def test_stale_labels_are_a_no_go_by_business_time(flights, good) -> None:
    newest = good.loc[good["label"].notna(), "event_time"].max().to_pydatetime() + flights.config.data.label.delay
    assert assess(flights, good, newest + timedelta(days=7)).outcome == "go"
    record = assess(flights, good, newest + timedelta(days=7, hours=1))
    assert record.outcome == "no_go"
    assert "more than 7d" in record.reason


def test_a_dataset_without_labels_is_a_no_go_and_not_an_error(flights, good) -> None:
    empty = good.copy()
    empty["label"] = empty["label"].where(empty["label"].isna())
    record = assess(flights, empty, good["label_known_at"].max().to_pydatetime())
    assert record.outcome == "no_go"
    assert len(record.details["failures"]) == 4


def test_the_test_period_s_labels_do_not_decide(flights, good) -> None:
    changed = good.copy()
    test = changed["split"] == "test"
    changed.loc[test, "label"] = ~changed.loc[test, "label"]
    before, after = assess(flights, good), assess(flights, changed)
    assert before.inputs == after.inputs


def test_the_decision_leaves_evidence_for_the_risk(flights, good, tmp_path) -> None:
    record = assess(flights, good)
    store = RecordStore(str(tmp_path))
    store.append(record)
    check = store.append(feasibility_check(record))
    assert (check.outcome, check.details["check"], check.details["record"]) == ("passed", "feasibility", record.id)
    assert feasibility_check(assess(flights, good[::2])).outcome == "failed"
