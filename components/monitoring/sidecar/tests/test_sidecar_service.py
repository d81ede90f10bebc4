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
from components.contracts.events import INFERENCE_FEEDBACK, INFERENCE_REQUEST
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.monitoring.drift import alert_id
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


def send_with_gap(sidecar: Any, answers: Any, frame: pd.DataFrame) -> None:
    send(sidecar, answers, frame.iloc[:120])
    answers.body(frame.iloc[120:180])  # answered, and lost by the executor's logger
    send(sidecar, answers, frame.iloc[180:])


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


def test_alerts_wait_in_the_outbox_and_survive_a_restart(start_sidecar: Start, answers: Any, rows: Rows, receiver: Any) -> None:
    first = start_sidecar()
    send_with_gap(first, answers, rows(0, 7, 4))
    send(first, answers, rows(7, 1, 5))
    first.settle()
    assert first.status()["alerts_pending"] == 1
    first.kill()
    second = start_sidecar("spool", "--trigger-url", receiver.url)
    deadline = 120
    while second.status()["alerts_pending"] and deadline:
        threading.Event().wait(0.25)
        deadline -= 1
    assert [body["detector"] for _, body in receiver.received] == ["lost_events"]


def test_three_replicas_over_one_log_give_an_alert_once(start_sidecar: Start, platform: Platform, answers: Any, rows: Rows) -> None:
    replicas = [start_sidecar(f"spool{number}") for number in range(3)]
    frame = rows(0, 7, 4)
    for number, first in enumerate(range(0, len(frame), 30)):
        body = answers.body(frame.iloc[first : first + 30])
        assert number == 5 or replicas[number % 3].post(body).status_code == 200
    for sidecar in replicas:
        sidecar.settle()
    for sidecar in replicas:
        assert sidecar.post(answers.body(rows(7, 1, 5))).status_code == 200
    for sidecar in replicas:
        sidecar.settle()
    (record,) = RecordStore(platform.records_uri).list("alert")
    assert record.id == alert_id("flights", "m1", "lost_events", WINDOW)
    assert record.inputs["rows"] == len(frame) - 30
    assert {sidecar.status()["alerts_pending"] for sidecar in replicas} == {1}


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
