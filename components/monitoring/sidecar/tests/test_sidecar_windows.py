"""Verdicts on closed windows, alerts and records, of a real sidecar process with a real release."""

from datetime import timedelta
from typing import Any

import pytest

from components.contracts.durations import parse_moment
from components.contracts.events import ALERT, Alert
from components.contracts.records import RecordStore
from components.monitoring.drift import WindowDrift, alert_id, read_drift, read_window_drifts
from components.monitoring.prediction_log import PredictionLog

pytestmark = pytest.mark.monitoring
WINDOW, WEEK = parse_moment("2013-04-04T00:00:00Z"), timedelta(days=7)


def verdict(story: Any, week: int, model: str = "m1") -> WindowDrift:
    found = [drift for drift in read_window_drifts(story.platform.prediction_log_uri, "flights") if drift.window_start == WINDOW + week * WEEK]
    (one,) = [drift for drift in found if drift.model_version == model]
    return one


def alerts(story: Any, week: int) -> dict[str, Alert]:
    records = RecordStore(story.platform.records_uri).list("alert")
    found = [Alert.model_validate(record.details["alert"]) for record in records]
    return {alert.detector: alert for alert in found if alert.window_start == WINDOW + week * WEEK}


def test_a_quiet_week_gives_no_alert(story: Any) -> None:
    assert verdict(story, -1).outcome == "tested"
    assert alerts(story, -1) == {}


def test_a_shift_gives_an_alert_that_names_the_feature(story: Any) -> None:
    alert = alerts(story, 0)["features"]
    assert (alert.kind, alert.subject, alert.release) == ("data_drift", "temp", story.release)
    assert alert.id == alert_id("flights", "m1", "features", WINDOW)
    assert (alert.window_start, alert.window_end) == (WINDOW, WINDOW + WEEK)
    assert "standard deviations" in alert.effect


def test_every_alert_reaches_the_trigger_once_it_accepts(story: Any) -> None:
    sent = {body["id"]: headers for headers, body in story.receiver.received}
    assert story.receiver.refused == 2
    assert set(sent) == {record.id for record in RecordStore(story.platform.records_uri).list("alert")}
    assert all(headers["ce-type"] == ALERT and headers["ce-id"] == id for id, headers in sent.items())


def test_a_null_column_is_a_fault_and_not_drift(story: Any) -> None:
    assert {alert.kind for alert in alerts(story, 1).values()} == {"data_quality"}


def test_missing_numbers_are_an_alert_of_their_own(story: Any) -> None:
    alert = alerts(story, 2)["lost_events"]
    assert alert.statistic == pytest.approx(2 / 21)
    assert story.lost_metric == 2


def test_each_model_is_held_against_its_own_reference_and_an_unknown_release_blocks_nothing(story: Any) -> None:
    assert verdict(story, 3, "m1").outcome == "tested"
    other = verdict(story, 3, "m2")
    assert other.outcome == "untested"
    assert "no usable detectors" in other.reason


def test_a_late_row_is_logged_and_counted_and_changes_no_alert(story: Any) -> None:
    assert story.late_metric == 40
    assert [record.model_dump_json() for record in RecordStore(story.platform.records_uri).list("alert")] == story.alerts_before_late_rows
    log = PredictionLog(story.platform.prediction_log_uri)
    assert len(log.read("flights", WINDOW, WINDOW + WEEK)) == story.rows[0]
    assert verdict(story, 0).rows == story.rows[0] - 40


def test_the_drift_of_a_feature_can_be_drawn_over_time(story: Any) -> None:
    drift = read_drift(story.platform.prediction_log_uri, "flights")
    temp = drift[(drift["kind"] == "data_drift") & (drift["part"] == "temp")].sort_values("window_start")
    assert list(temp["window_start"].head(2)) == [WINDOW - WEEK, WINDOW]
    assert list(temp["alarm"].head(2)) == [False, True]


def test_every_window_leaves_its_checks(story: Any) -> None:
    found = {(record.details["check"], record.event_time, record.outcome) for record in RecordStore(story.platform.records_uri).list("check")}
    assert ("data_drift", WINDOW, "passed") in found
    assert {("data_drift", WINDOW + WEEK, "failed"), ("mix_drift", WINDOW + WEEK, "passed"), ("lost_events", WINDOW + 3 * WEEK, "failed")} <= found
