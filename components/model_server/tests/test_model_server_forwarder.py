"""The forwarder as a process, between clients, real model servers and a sink of events."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.contracts.events import INFERENCE_FEEDBACK, INFERENCE_REQUEST, INFERENCE_RESPONSE
from components.deployment.bundle import fetch_bundle
from components.deployment.tests.example_release import build_release
from components.model_server.forwarder import Forwarder, parse
from components.model_server.tests.processes import HttpEnd, body, free_port, full_row, http_end, model_server, process, wait_until

pytestmark = pytest.mark.serving


@contextmanager
def forwarder(upstream: str, sink: str, log: Path) -> Iterator[tuple[str, Any]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["--port", str(port), "--upstream", upstream, "--sink", sink, "--predictor", "champion", "--usecase", "flights"]
    with process("components.model_server.forwarder", *arguments, ready=f"{url}/live", log=log) as running:
        yield url, running


@pytest.fixture(scope="module")
def sink() -> Iterator[HttpEnd]:
    with http_end() as end:
        yield end


@pytest.fixture(scope="module")
def front(server: str, sink: HttpEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with forwarder(server, sink.url, tmp_path_factory.mktemp("forwarder") / "log") as (url, _):
        yield url


def events_of(sink: HttpEnd, puid: str, count: int) -> list[tuple[dict[str, str], bytes]]:
    def found() -> list[tuple[dict[str, str], bytes]]:
        return [event for event in sink.seen if event[0]["ce-requestid"] == puid]

    wait_until(lambda: len(found()) >= count, 20)
    return sorted(found(), key=lambda event: event[0]["ce-time"])


def test_a_prediction_is_logged_as_the_executor_logs_it(front: str, sink: HttpEnd) -> None:
    sent = json.dumps(body(full_row())).encode()
    answer = httpx.post(f"{front}/api/v1.0/predictions", content=sent, headers={"content-type": "application/json", "Seldon-Puid": "p-1"})
    assert answer.status_code == 200 and answer.headers["seldon-puid"] == "p-1"
    (asked, asked_body), (answered, answered_body) = events_of(sink, "p-1", 2)
    assert (asked["ce-type"], answered["ce-type"]) == (INFERENCE_REQUEST, INFERENCE_RESPONSE)
    assert (asked_body, answered_body) == (sent, answer.content)
    for event in (asked, answered):
        assert event["ce-specversion"] == "1.0" and event["content-type"] == "application/json"
        assert (event["ce-endpoint"], event["ce-inferenceservicename"], event["ce-namespace"], event["ce-modelid"]) == (
            "champion",
            "flights",
            "default",
            "model",
        )
        assert event["ce-source"] and event["ce-time"]
    assert asked["ce-id"] != answered["ce-id"]


def test_the_logged_answer_holds_the_features_that_the_model_received(front: str, sink: HttpEnd) -> None:
    httpx.post(f"{front}/api/v1.0/predictions", json=body(full_row(temp=None)), headers={"Seldon-Puid": "p-2"})
    logged = json.loads(events_of(sink, "p-2", 2)[1][1])
    assert logged["jsonData"]["predictions"][0]["features"] == full_row(temp=None)["features"]
    assert logged["jsonData"]["predictions"][0]["id"] == "p-2-0"


def test_a_request_without_an_id_gets_one(front: str, sink: HttpEnd) -> None:
    answer = httpx.post(f"{front}/api/v1.0/predictions", json=body(full_row()))
    assert len(events_of(sink, answer.headers["seldon-puid"], 2)) == 2
    assert answer.json()["meta"]["puid"] == answer.headers["seldon-puid"]


def test_a_refused_request_is_logged_without_an_answer(front: str, sink: HttpEnd) -> None:
    answer = httpx.post(f"{front}/api/v1.0/predictions", json=body(full_row(distance="far")), headers={"Seldon-Puid": "p-3"})
    assert answer.status_code == 422 and answer.json()["status"]["field"] == "instances[0].features.distance"
    time.sleep(0.3)
    assert [event["ce-type"] for event, _ in events_of(sink, "p-3", 1)] == [INFERENCE_REQUEST]


def test_a_client_may_opt_out_of_logging(front: str, sink: HttpEnd) -> None:
    answer = httpx.post(f"{front}/api/v1.0/predictions", json=body(full_row()), headers={"Seldon-Puid": "p-4", "Seldon-Skip-Logging": "true"})
    assert answer.status_code == 200
    time.sleep(0.3)
    assert not [event for event, _ in sink.seen if event["ce-requestid"] == "p-4"]


def test_feedback_is_logged_under_the_id_of_its_own_call(front: str, sink: HttpEnd) -> None:
    label = {"truth": {"jsonData": {"labels": [{"entity": "AA1", "label": True, "known_at": "2013-04-20T00:00:00Z"}]}}}
    assert httpx.post(f"{front}/api/v1.0/feedback", json=label, headers={"Seldon-Puid": "f-1"}).status_code == 200
    ((event, content),) = events_of(sink, "f-1", 1)
    assert event["ce-type"] == INFERENCE_FEEDBACK and json.loads(content) == label


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nope", 404), ("GET", "/api/v1.0/predictions", 405), ("POST", "/ready", 405)])
def test_wrong_routes_and_methods_are_refused(front: str, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, front + path)
    assert answer.status_code == status and answer.json()["status"]["code"] == status


def test_too_large_a_body_gets_413(front: str) -> None:
    answer = httpx.post(f"{front}/api/v1.0/predictions", content=b" " * 5_000_000, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["status"]["field"]) == (413, "body")


def test_a_sink_that_is_down_loses_events_and_no_prediction(server: str, tmp_path: Path) -> None:
    with forwarder(server, f"http://127.0.0.1:{free_port()}", tmp_path / "log") as (url, _):
        assert httpx.post(f"{url}/api/v1.0/predictions", json=body(full_row())).status_code == 200
        wait_until(lambda: 'events_lost_total{reason="unreachable"} 2.0' in httpx.get(f"{url}/metrics").text, 20)


def test_a_hanging_sink_does_not_hold_up_predictions(server: str, tmp_path: Path) -> None:
    with http_end() as end, forwarder(server, end.url, tmp_path / "log") as (url, running):
        end.delay = 60
        started = time.monotonic()
        assert [httpx.post(f"{url}/api/v1.0/predictions", json=body(full_row())).status_code for _ in range(8)] == [200] * 8
        assert time.monotonic() - started < 30
        assert re.search(r"events_waiting 6.0", httpx.get(f"{url}/metrics").text)
        running.kill()


def test_a_model_server_that_is_gone_gets_502(tmp_path: Path) -> None:
    with forwarder(f"http://127.0.0.1:{free_port()}", "", tmp_path / "log") as (url, running):
        answer = httpx.post(f"{url}/api/v1.0/predictions", json=body(full_row()))
        assert (answer.status_code, answer.json()["status"]["reason"]) == (502, "UPSTREAM_UNAVAILABLE")
        assert httpx.get(f"{url}/ready").status_code == 503
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0


def test_sigterm_delivers_the_events_that_wait(server: str, tmp_path: Path) -> None:
    with http_end() as end, forwarder(server, end.url, tmp_path / "log") as (url, running):
        end.delay = 0.5
        for _ in range(10):
            httpx.post(f"{url}/api/v1.0/predictions", json=body(full_row()))
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
        assert len(end.seen) == 20


def test_another_machine_cannot_switch_the_server(server: str) -> None:
    async def ask(address: str, method: str, upstream: str) -> int:
        app = Forwarder(parse(["--port", "1", "--upstream", server, "--usecase", "flights"])).app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 40_000)), base_url="http://forwarder") as client:
            return (await client.request(method, "/admin/upstream", json={"upstream": upstream})).status_code

    assert [asyncio.run(ask(address, "POST", server)) for address in ("10.1.2.3", "fd00::1", "127.0.0.1", "::1")] == [404, 404, 200, 200]
    assert asyncio.run(ask("10.1.2.3", "GET", "")) == 404


def test_a_server_that_is_not_ready_is_not_switched_to(front: str, server: str) -> None:
    assert httpx.post(f"{front}/admin/upstream", json={"upstream": f"http://127.0.0.1:{free_port()}"}).status_code == 409
    assert httpx.post(f"{front}/admin/upstream", json={"upstream": "nonsense"}).status_code == 409
    assert httpx.post(f"{front}/admin/upstream", json={}).status_code == 422
    assert httpx.get(f"{front}/admin/upstream").json()["upstream"] == server


def test_a_roll_over_drops_no_request(release_folder: Path, sink: HttpEnd, tmp_path: Path) -> None:
    release = build_release(tmp_path / "bundles", seed=8)
    fetch_bundle(str(tmp_path / "bundles"), release, tmp_path / "new")
    seen: list[tuple[int, str]] = []
    stop = threading.Event()

    def load(url: str) -> None:
        with httpx.Client(timeout=20) as client:
            while not stop.is_set():
                try:
                    answer = client.post(f"{url}/api/v1.0/predictions", json=body(full_row()))
                    seen.append((answer.status_code, answer.json().get("jsonData", {}).get("model", {}).get("model_version", answer.text)))
                except httpx.HTTPError as error:
                    seen.append((0, repr(error)))

    with (
        model_server(release_folder, tmp_path / "old.log") as (old, old_process),
        model_server(tmp_path / "new", tmp_path / "new.log") as (new, _),
        forwarder(old, sink.url, tmp_path / "log") as (url, _),
    ):
        threads = [threading.Thread(target=load, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        switched = httpx.post(f"{url}/admin/upstream", json={"upstream": new}, timeout=20)
        assert switched.json() == {"upstream": new, "switched": True, "drained": True}
        old_process.send_signal(signal.SIGTERM)
        assert old_process.wait(30) == 0
        time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in seen} == {200}, [entry for entry in seen if entry[0] != 200][:3]
    versions = [version for _, version in seen]
    assert set(versions) == {"model-7", "model-8"} and versions.count("model-7") > 10 and versions.count("model-8") > 10
