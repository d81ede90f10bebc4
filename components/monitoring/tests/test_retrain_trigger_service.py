"""The trigger over real HTTP, as a process: accepts events in both modes, refuses with a message, survives a kill."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.contracts.events import ALERT, PERFORMANCE
from components.contracts.platform import Platform
from components.contracts.records import RecordStore

sys.path.insert(0, str(Path(__file__).parent))
from retrain_trigger_process import Runs

pytestmark = pytest.mark.pipeline

PROCESS = Path(__file__).with_name("retrain_trigger_process.py")
Start = Callable[..., "Service"]


class Service:
    def __init__(self, command: list[str], port: int, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen([sys.executable, *command], env={**os.environ, **(env or {})}, stderr=subprocess.PIPE, text=True)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        self.until(lambda: self.client.get("/healthz").status_code == 200)

    def until(self, condition: Callable[[], Any], seconds: float = 40) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if result := condition():
                    return result
            except httpx.TransportError:
                if self.process.poll() is not None:
                    raise AssertionError(f"the service ended with {self.process.returncode}: {self.process.communicate()[1]}") from None
            time.sleep(0.05)
        raise AssertionError("not reached in time")

    def post(self, payload: dict[str, Any], kind: str = PERFORMANCE, **headers: str) -> httpx.Response:
        ce = {"ce-id": payload["id"], "ce-source": "test", "ce-type": kind, "ce-specversion": "1.0"} | headers
        return self.client.post("/events", content=json.dumps(payload), headers=ce)

    def decision(self, cause: str) -> dict[str, Any]:
        found: dict[str, Any] = self.until(lambda: self.client.get(f"/decisions/{cause}").status_code == 200 and self.client.get(f"/decisions/{cause}").json())
        return found

    def stop(self) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(timeout=20)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    services = []

    def begin(point: str = "", owner: str = "a") -> Service:
        port = free_port()
        services.append(Service([str(PROCESS), str(tmp_path), owner, point, str(port)], port))
        return services[-1]

    yield begin
    for service in services:
        service.stop()


def performance(week: int, value: float) -> dict[str, Any]:
    day = 2 + 7 * week
    return {
        "id": f"week-{week}",
        "usecase": "flights",
        "model_version": "m1",
        "window_start": f"2013-05-{day:02}T00:00:00Z",
        "window_end": f"2013-05-{day + 7:02}T00:00:00Z",
        "as_of": f"2013-06-{day:02}T00:00:00Z",
        "kind": "measured",
        "metric": "roc_auc",
        "value": value,
        "low": value - 0.02,
        "high": value + 0.02,
        "threshold": 0.65,
        "rows": 6000,
        "labelled_share": 1.0,
        "sampling_error": 0.01,
        "backtest_error": 0.01,
        "outcomes": {"arrived": 6000},
    }


def alert() -> dict[str, Any]:
    return {
        "id": "alert-1",
        "usecase": "flights",
        "kind": "lost_events",
        "detector": "gaps",
        "model_version": "m1",
        "release": "r",
        "window_start": "2013-05-02T00:00:00Z",
        "window_end": "2013-05-09T00:00:00Z",
        "rows": 10,
        "subject": "log",
        "statistic": 0.2,
        "threshold": 0.01,
        "effect": "20% lost",
        "details": {},
    }


def test_events_are_accepted_decided_and_duplicates_are_harmless(start: Start, tmp_path: Path) -> None:
    service = start()
    assert service.post(alert(), ALERT).status_code == 202
    structured = {"specversion": "1.0", "id": "x", "source": "test", "type": PERFORMANCE, "data": performance(0, 0.72)}
    sent = [service.client.post("/events", json=structured, headers={"content-type": "application/cloudevents+json; charset=utf-8"}) for _ in range(2)]
    assert [(one.status_code, one.json()) for one in sent] == [(202, {"id": "week-0", "duplicate": False}), (202, {"id": "week-0", "duplicate": True})]
    assert service.decision("alert-1")["outcome"] == "page"
    assert service.decision("week-0")["outcome"] == "nothing"
    service.until(lambda: service.client.get("/healthz").json()["unhandled"] == 0)
    metrics = service.client.get("/metrics").text
    assert "crispline_trigger_decision_page 1\n" in metrics
    assert "crispline_trigger_events 2\n" in metrics
    assert [one.outcome for one in RecordStore(Platform.embedded(tmp_path).records_uri).list("retrain_decision")] == ["page", "nothing"]
    assert service.stop() in (0, -signal.SIGTERM)


def test_bad_requests_get_a_message_that_names_the_field(start: Start) -> None:
    service = start()
    good = performance(0, 0.7)
    cases = [
        (service.client.post("/events", content=b"{", headers={"ce-id": "x"}), 400, "not JSON"),
        (service.client.post("/events", json=good), 400, "ce-id"),
        (service.client.post("/events", content=b"[]", headers={"content-type": "application/cloudevents+json"}), 400, "not a JSON object"),
        (service.post(good, **{"ce-specversion": "0.3"}), 400, "specversion"),
        (service.post(good, kind="com.example.other"), 422, ALERT),
        (service.post(good | {"value": "high"}), 422, "data.value"),
        (service.post(good | {"window_start": "2013-05-02T00:00:00"}), 422, "data.window_start"),
        (service.post(good | {"extra": 1}), 422, "data.extra"),
        (service.post({"id": "x"}), 422, "data."),
        (service.post(good | {"usecase": "taxis"}), 422, "'taxis'"),
        (service.client.post("/events", content=b" " * (2 << 20)), 413, "larger than"),
        (service.client.get("/events"), 405, "Method Not Allowed"),
        (service.client.get("/nothing"), 404, "Not Found"),
        (service.client.get("/decisions/unknown"), 404, "not decided"),
    ]
    for answer, status, message in cases:
        assert answer.status_code == status, answer.text
        assert message in answer.json()["error"]
    assert service.client.get("/healthz").json()["events"] == 0


@pytest.mark.parametrize("point", ["before_submission", "after_submission"])
def test_a_service_killed_around_the_submission_goes_on_after_its_restart(start: Start, tmp_path: Path, point: str) -> None:
    service = start(point)
    for week in range(2):
        assert service.post(performance(week, 0.72)).status_code == 202
    service.decision("week-1")
    assert service.post(performance(2, 0.5)).status_code == 202
    assert service.process.wait(timeout=30) == -signal.SIGKILL
    again = start()
    again.until(lambda: again.client.get("/healthz").json()["unhandled"] == 0)
    assert again.decision("week-2")["outcome"] == "retrain"
    assert [run.name for run in Runs(tmp_path).list()] == ["retraining-week-2"]


def test_the_command_serves_a_state_folder_in_the_run_mode_asked_for(tmp_path: Path) -> None:
    (tmp_path / "platform.json").write_text(Platform.embedded(tmp_path).model_dump_json())
    port = free_port()
    command = ["-m", "components.monitoring.retrain_trigger", "--port", str(port), "--usecase", "flights", "--state", str(tmp_path), "--run-mode", "dry_run"]
    service = Service(command, port, {"CRISPLINE_PLATFORM": ""})
    try:
        for week, value in enumerate((0.72, 0.72, 0.5)):
            assert service.post(performance(week, value)).status_code == 202
        decision = service.decision("week-2")
        assert (decision["outcome"], decision["run"]) == ("retrain", False)
    finally:
        code = service.stop()
    assert code in (0, -signal.SIGTERM)
    assert Runs(tmp_path).list() == []


def test_the_command_says_what_it_misses(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "components.monitoring.retrain_trigger", "--port", "1", "--usecase", "flights", "--state", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CRISPLINE_PLATFORM": ""}, timeout=60)
    assert done.returncode == 1
    assert "platform.json does not exist" in done.stderr
