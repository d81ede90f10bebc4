"""How a run on Kubeflow Pipelines ended: what is recorded, who is told, and what Kubeflow Pipelines does not know."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.contracts.platform import PLATFORM_VARIABLE, Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.data_engineering.request_steps import resolve_request
from components.monitoring.run_end import notify_of_end, tell

pytestmark = pytest.mark.pipeline

GIVEN = {"pipeline": "training", "run": "run-1", "created": "2013-04-15T13:45:30Z", "as_of": "now/d", "cause": "alert-1"}


class Endpoint:
    """Answers with the statuses given, the last one again and again, and keeps what it got."""

    def __init__(self, *statuses: int) -> None:
        self.got: list[tuple[dict[str, str], dict[str, object]]] = []
        endpoint = self
        waiting = list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                endpoint.got.append(({name.lower(): value for name, value in self.headers.items()}, json.loads(body)))
                self.send_response(waiting.pop(0) if len(waiting) > 1 else waiting[0])
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/ended"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    found = Endpoint(202)
    yield found
    found.server.shutdown()


def platform_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str = "") -> RecordStore:
    found = Platform.embedded(tmp_path / "state").model_copy(update={"notifications_url": url})
    (tmp_path / "platform.json").write_text(found.model_dump_json())
    monkeypatch.setenv(PLATFORM_VARIABLE, str(tmp_path / "platform.json"))
    return RecordStore(found.records_uri)


def decision(kind: str, outcome: str) -> Record:
    return Record(
        kind=kind,  # type: ignore[arg-type]
        id=record_id(kind, outcome),
        usecase="flights",
        event_time=datetime(2013, 4, 15, tzinfo=UTC),
        outcome=outcome,
        reason="Refused by 1 of 4 gates: slice EWR.",
        lineage=Lineage(cause="alert-1"),
    )


def test_a_failed_run_is_recorded_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    records = platform_with(tmp_path, monkeypatch, endpoint.url)
    monkeypatch.setenv("CRISPLINE_NOTIFICATIONS_TOKEN", "secret")
    assert notify_of_end("flights", **GIVEN, state="FAILED") == "failed"
    (record,) = records.list("run")
    assert (record.outcome, record.event_time, record.lineage.run) == ("failed", datetime(2013, 4, 15, tzinfo=UTC), "run-1")
    ((headers, body),) = endpoint.got
    assert (headers["ce-type"], headers["ce-id"], headers["ce-subject"]) == ("io.crispline.run.ended.v1", record.id, "failed")
    assert headers["authorization"] == "Bearer secret"
    assert Record.model_validate_json(json.dumps(body)) == record


@pytest.mark.parametrize("state", ["COMPLETE", "SUCCEEDED"])
def test_a_run_that_kubeflow_pipelines_calls_complete_succeeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    platform_with(tmp_path, monkeypatch)
    assert notify_of_end("flights", **GIVEN, state=state) == "succeeded"


def test_a_refusal_by_the_gates_leaves_the_status_stale_and_the_record_tells_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = platform_with(tmp_path, monkeypatch)
    records.append(decision("gates", "failed"))
    assert notify_of_end("flights", **GIVEN, state="RUNNING") == "succeeded"
    (record,) = records.list("run")
    assert record.reason == "Run run-1 of training ended. Gates: failed. Refused by 1 of 4 gates: slice EWR."


def test_a_scheduled_training_is_told_by_the_cause_that_its_first_step_gave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = platform_with(tmp_path, monkeypatch)
    cause = resolve_request("flights", "training", GIVEN["created"], as_of="now/d", start="", end="", cause="").cause
    records.append(decision("gates", "failed").model_copy(update={"lineage": Lineage(cause=cause)}))
    assert notify_of_end("flights", **{**GIVEN, "cause": ""}, state="RUNNING") == "succeeded"
    assert next(records.list("run")).lineage.cause == cause


def test_a_promotion_is_told_before_the_gates_that_let_it_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = platform_with(tmp_path, monkeypatch)
    for kind, outcome in (("gates", "passed"), ("promotion", "promoted")):
        records.append(decision(kind, outcome))
    notify_of_end("flights", **GIVEN, state="COMPLETE")
    assert "Promotion: promoted." in next(records.list("run")).reason


def test_where_nothing_tells_how_it_ended_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = platform_with(tmp_path, monkeypatch)
    assert notify_of_end("flights", **GIVEN, state="RUNNING") == "ended"
    assert "does not say how (RUNNING)" in next(records.list("run")).reason


def test_a_duplicate_is_told_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    records = platform_with(tmp_path, monkeypatch, endpoint.url)
    duplicate = decision("gates", "duplicate").model_copy(update={"kind": "run", "id": record_id("run", "duplicate", "alert-1", "run-1")})
    records.append(duplicate)
    assert notify_of_end("flights", **GIVEN, state="RUNNING") == "duplicate"
    assert endpoint.got == []
    assert list(records.list("run")) == [duplicate]


def test_telling_again_after_a_retry_of_the_step_is_the_same_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    records = platform_with(tmp_path, monkeypatch, endpoint.url)
    for _ in range(2):
        notify_of_end("flights", **GIVEN, state="FAILED")
    assert len(list(records.list("run"))) == 1
    assert len({headers["ce-id"] for headers, _ in endpoint.got}) == 1


def test_an_endpoint_that_is_away_for_a_while_is_tried_again_and_one_that_refuses_is_not(tmp_path: Path) -> None:
    pauses: list[float] = []
    overloaded, refusing = Endpoint(503, 429, 202), Endpoint(400)
    assert tell(overloaded.url, decision("gates", "failed"), pauses.append)
    assert (len(overloaded.got), pauses) == (3, [2.0, 4.0])
    assert not tell(refusing.url, decision("gates", "failed"), pauses.append)
    assert len(refusing.got) == 1


def test_an_endpoint_that_is_not_there_does_not_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("components.monitoring.run_end.time.sleep", lambda _: None)
    assert not tell("http://127.0.0.1:9/ended", decision("gates", "failed"), lambda _: None)
    assert "was not taken by http://127.0.0.1:9/ended" in caplog.text
