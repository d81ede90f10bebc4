"""The sidecar as a process, over HTTP: what it takes, what it ignores, what survives a kill, what it alerts."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from components.contracts.durations import parse_moment
from components.contracts.events import ALERT, INFERENCE_FEEDBACK, INFERENCE_REQUEST, Alert
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.monitoring.drift import alert_id, read_drift, read_window_drifts
from components.monitoring.feedback import read_feedback
from components.monitoring.prediction_log import PredictionLog

pytestmark = pytest.mark.monitoring
WINDOW = parse_moment("2013-04-04T00:00:00Z")
Rows = Callable[..., pd.DataFrame]
Start = Callable[..., Any]


def logged(platform: Platform) -> pd.DataFrame:
    return PredictionLog(platform.prediction_log_uri).read("flights", WINDOW - timedelta(days=30), WINDOW + timedelta(days=60))


def send(sidecar: Any, answers: Any, frame: pd.DataFrame, size: int = 60) -> None:
    for first in range(0, len(frame), size):
        assert sidecar.post(answers.body(frame.iloc[first : first + size])).status_code == 200


def test_an_answer_reaches_the_prediction_log_with_its_features(start_sidecar: Start, platform: Platform, answers: Any, rows: Rows) -> None:
    sidecar, frame = start_sidecar(), rows(0, 1, 1)
    send(sidecar, answers, frame)
    sidecar.settle()
    found = logged(platform)
    assert len(found) == 60
    assert sorted(found["feature.temp"]) == pytest.approx(sorted(frame["temp"]))
    assert set(found["predictor"]) == {"default"}
    assert sidecar.metric("crispline_sidecar_predictions_logged_total") == 60
    assert sidecar.terminate() == 0


def test_what_is_not_its_own_is_ignored_and_counted(start_sidecar: Start, platform: Platform, answers: Any, rows: Rows) -> None:
    sidecar, frame = start_sidecar("spool", "--deployment", "flights"), rows(0, 1, 1)
    assert sidecar.post(b"{}", "io.seldon.serving.outlier").status_code == 200
    assert sidecar.post(answers.body(frame), ce_inferenceservicename="churn").status_code == 200
    assert sidecar.post(answers.body(frame, usecase="churn")).status_code == 200
    assert sidecar.post(b'{"status": {"status": "FAILURE", "code": 400}}').status_code == 200
    assert sidecar.post(answers.body(frame), INFERENCE_REQUEST).status_code == 200
    sidecar.settle()
    assert logged(platform).empty
    for reason in ("type", "deployment", "usecase", "refusal"):
        assert sidecar.metric("crispline_sidecar_events_ignored_total", reason=reason) == 1
    assert sidecar.metric("crispline_sidecar_events_total", type="request") == 1
    assert sidecar.metric("crispline_sidecar_events_poisoned_total") == 0


def test_poisoned_payloads_are_set_aside_and_block_nothing(start_sidecar: Start, platform: Platform, answers: Any, rows: Rows, tmp_path: Path) -> None:
    sidecar, frame = start_sidecar(), rows(0, 1, 1)
    wrong_type = frame.assign(temp="warm")
    poison = [b"not json", b"[1, 2]", b"\xff\xfe", b'{"jsonData": {"predictions": []}}', answers.body(wrong_type)]
    send(sidecar, answers, frame.iloc[:30])
    for body in poison:
        assert sidecar.post(body).status_code == 200
    send(sidecar, answers, frame.iloc[30:])
    sidecar.settle()
    assert len(logged(platform)) >= 60
    assert len(list((tmp_path / "spool" / "poison").iterdir())) == sidecar.metric("crispline_sidecar_events_poisoned_total") >= 4


def test_what_is_no_cloud_event_gets_a_clear_refusal(start_sidecar: Start) -> None:
    sidecar = start_sidecar("spool", "--maximum-body-bytes", "1000")
    answer = httpx.post(sidecar.url, json={})
    assert answer.status_code == 400
    assert "ce-type" in answer.json()["error"]
    assert sidecar.post(b"x" * 2000).status_code == 413
    assert httpx.get(sidecar.url).status_code == 405
    assert httpx.get(f"{sidecar.url}/nowhere").status_code == 404


def test_nothing_that_was_acknowledged_is_lost_by_kill_nine(start_sidecar: Start, platform: Platform, answers: Any, rows: Rows) -> None:
    frame = rows(0, 7, 2)
    bodies = [(number, answers.body(frame.iloc[number : number + 4])) for number in range(0, len(frame), 4)]
    acknowledged: set[str] = set()
    for attempt in range(3):
        sidecar = start_sidecar()
        killer = threading.Timer(0.4, sidecar.kill)
        killer.start()
        while bodies:
            number, body = bodies[-1]
            try:
                answer = sidecar.post(body)
            except httpx.HTTPError:
                break
            assert answer.status_code == 200
            bodies.pop()
            acknowledged |= {f"server-1-{number // 4 + 1}-{row}" for row in range(len(frame.iloc[number : number + 4]))}
        killer.join()
        assert acknowledged, f"attempt {attempt} acknowledged nothing"
    start_sidecar().settle()
    found = logged(platform)
    assert acknowledged <= set(found["id"])
    assert found["id"].is_unique


def test_a_shift_gives_one_alert_that_reaches_the_trigger_at_last(
    start_sidecar: Start, platform: Platform, answers: Any, rows: Rows, receiver: Any, release: tuple[str, str]
) -> None:
    receiver.refusals = 2
    sidecar = start_sidecar("spool", "--trigger-url", receiver.url)
    send(sidecar, answers, rows(-7, 7, 3))
    send(sidecar, answers, rows(0, 7, 4, warmer=30.0))
    send(sidecar, answers, rows(7, 1, 5))
    sidecar.settle()
    from_records = {record.id for record in RecordStore(platform.records_uri).list("alert")}
    expected = alert_id("flights", "m1", "features", WINDOW)
    assert expected in from_records
    deadline = 60
    while len({body["id"] for _, body in receiver.received}) < len(from_records) and deadline:
        threading.Event().wait(0.25)
        deadline -= 1
    assert receiver.refused == 2
    headers, body = next((headers, body) for headers, body in receiver.received if body["id"] == expected)
    alert = Alert.model_validate(body)
    assert headers["ce-type"] == ALERT and headers["ce-id"] == expected
    assert alert.kind == "data_drift" and "temp" in alert.subject and alert.release == release[1]
    assert (alert.window_start, alert.window_end) == (WINDOW, WINDOW + timedelta(days=7))
    windows = {drift.window_start: drift for drift in read_window_drifts(platform.prediction_log_uri, "flights")}
    assert not any(result.alarm for result in windows[WINDOW - timedelta(days=7)].results)
    drift = read_drift(platform.prediction_log_uri, "flights")
    temp = drift[(drift["kind"] == "data_drift") & (drift["part"] == "temp")].sort_values("window_start")
    assert list(temp["alarm"]) == [False, True]
    checks = {(record.details["check"], record.outcome) for record in RecordStore(platform.records_uri).list("check")}
    assert {("data_drift", "failed"), ("data_drift", "passed"), ("mix_drift", "passed"), ("lost_events", "passed")} <= checks


def test_alerts_wait_in_the_outbox_and_survive_a_restart(start_sidecar: Start, answers: Any, rows: Rows, receiver: Any) -> None:
    first = start_sidecar()
    send(first, answers, rows(0, 7, 4, warmer=30.0))
    send(first, answers, rows(7, 1, 5))
    first.settle()
    waiting = first.status()["alerts_pending"]
    assert waiting >= 1
    first.kill()
    second = start_sidecar("spool", "--trigger-url", receiver.url)
    deadline = 80
    while second.status()["alerts_pending"] and deadline:
        threading.Event().wait(0.25)
        deadline -= 1
    assert len({body["id"] for _, body in receiver.received}) == waiting


def test_three_replicas_over_one_log_give_each_alert_once(start_sidecar: Start, platform: Platform, answers: Any, rows: Rows, receiver: Any) -> None:
    replicas = [start_sidecar(f"spool{number}", "--trigger-url", receiver.url) for number in range(3)]
    frame = rows(0, 7, 4, warmer=30.0)
    for number, first in enumerate(range(0, len(frame), 30)):
        assert replicas[number % 3].post(answers.body(frame.iloc[first : first + 30])).status_code == 200
    for sidecar in replicas:
        sidecar.settle()
    late = rows(7, 1, 5)
    for sidecar in replicas:
        assert sidecar.post(answers.body(late)).status_code == 200
    for sidecar in replicas:
        sidecar.settle()
    records = list(RecordStore(platform.records_uri).list("alert"))
    assert alert_id("flights", "m1", "features", WINDOW) in {record.id for record in records}
    assert {record.inputs["rows"] for record in records} == {len(frame)}
    (drift,) = read_window_drifts(platform.prediction_log_uri, "flights")
    assert (drift.rows, drift.answers_lost) == (len(frame), 0)


def test_a_late_row_is_logged_and_counted_and_changes_no_alert(start_sidecar: Start, platform: Platform, answers: Any, rows: Rows) -> None:
    sidecar = start_sidecar()
    frame = rows(0, 7, 4, warmer=30.0)
    send(sidecar, answers, frame.iloc[:-40])
    send(sidecar, answers, rows(7, 1, 5))
    sidecar.settle()
    before = list(RecordStore(platform.records_uri).list("alert"))
    send(sidecar, answers, frame.iloc[-40:])
    send(sidecar, answers, rows(8, 1, 6))
    sidecar.settle()
    assert sidecar.metric("crispline_sidecar_predictions_late_total") == 40
    assert before and list(RecordStore(platform.records_uri).list("alert")) == before
    assert len(logged(platform)) == len(frame) + 120


def test_missing_numbers_are_an_alert_of_their_own(start_sidecar: Start, platform: Platform, answers: Any, rows: Rows) -> None:
    sidecar, frame = start_sidecar(), rows(0, 7, 7)
    for number, first in enumerate(range(0, len(frame), 20)):
        body = answers.body(frame.iloc[first : first + 20])
        if number not in (5, 6):  # the executor's logger lost these
            sidecar.post(body)
    send(sidecar, answers, rows(7, 1, 5))
    sidecar.settle()
    (record,) = RecordStore(platform.records_uri).list("alert")
    assert record.outcome == "lost_events"
    assert record.inputs["statistic"] == pytest.approx(2 / 21)
    assert sidecar.metric("crispline_sidecar_answers_lost_total") == 2


def test_a_column_that_goes_null_is_a_fault_and_not_drift(start_sidecar: Start, platform: Platform, answers: Any, rows: Rows) -> None:
    sidecar = start_sidecar()
    send(sidecar, answers, rows(0, 7, 8).assign(temp=float("nan")))
    send(sidecar, answers, rows(7, 1, 5))
    sidecar.settle()
    assert {record.outcome for record in RecordStore(platform.records_uri).list("alert")} == {"data_quality"}


def test_each_model_is_held_against_its_own_reference_and_an_unknown_release_blocks_nothing(
    start_sidecar: Start, platform: Platform, answers: Any, rows: Rows
) -> None:
    sidecar, frame = start_sidecar(), rows(0, 7, 9)
    send(sidecar, answers, frame.iloc[:210])
    other = type(answers)(release="0" * 64, instance="server-2", version="m2")
    send(sidecar, other, frame.iloc[210:])
    send(sidecar, other, rows(7, 1, 5))
    sidecar.settle()
    first, second = read_window_drifts(platform.prediction_log_uri, "flights")
    assert (first.model_version, first.outcome, second.model_version, second.outcome) == ("m1", "tested", "m2", "untested")
    assert "no usable detectors" in second.reason


def test_feedback_is_kept_through_the_spool(start_sidecar: Start, platform: Platform) -> None:
    import json

    sidecar = start_sidecar()
    word = {"entity": "f1", "prediction_id": "r-0", "kind": "dispute", "reason": "it left on time", "by": "desk 4", "event_time": "2013-04-05T00:00:00Z"}
    assert sidecar.post(json.dumps({"truth": {"jsonData": {"feedback": [word]}}}).encode(), INFERENCE_FEEDBACK).status_code == 200
    sidecar.settle()
    (found,) = read_feedback(platform.labels_uri, "flights", WINDOW + timedelta(days=30))
    assert found.reason == "it left on time"


def test_two_processes_never_share_a_spool(start_sidecar: Start) -> None:
    start_sidecar()
    with pytest.raises(AssertionError, match="another sidecar uses the spool"):
        start_sidecar()
