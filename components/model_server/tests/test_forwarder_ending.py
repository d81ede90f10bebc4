"""How a forwarder ends without dropping a request, and how it feeds a shadow without holding up an answer."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.model_server.tests.processes import HttpEnd, body, free_port, full_row, http_end, process, wait_until

pytestmark = pytest.mark.serving
ROUTE = "/api/v1.0/predictions"


@pytest.fixture
def upstream() -> Iterator[HttpEnd]:
    with http_end() as end:
        end.answer = lambda document: (200, {"jsonData": document})
        yield end


@contextmanager
def forwarder(upstream: HttpEnd, log: Path, *more: str) -> Iterator[tuple[str, Any]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process(
        "components.model_server.forwarder", "--port", str(port), "--upstream", upstream.url, "--usecase", "flights", *more, ready=f"{url}/live", log=log
    ) as running:
        yield url, running


def test_a_lame_duck_answers_closes_connections_and_then_ends_in_order(upstream: HttpEnd, tmp_path: Path) -> None:
    with forwarder(upstream, tmp_path / "log", "--lame-duck-seconds", "5") as (url, running), httpx.Client() as client:
        assert "connection" not in client.post(url + ROUTE, json=body(full_row())).headers
        running.send_signal(signal.SIGTERM)
        began = time.monotonic()
        time.sleep(0.2)
        answer = client.post(url + ROUTE, json=body(full_row()))
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert client.get(url + "/ready").status_code == 503
        assert client.get(url + "/live").status_code == 200
        assert running.wait(60) == 0
        assert time.monotonic() - began > 4.5


def test_clients_that_keep_connections_see_no_failure_when_it_ends(upstream: HttpEnd, tmp_path: Path) -> None:
    """They go to a second one when they are told that a connection closes, as clients of a Service do."""
    failures: list[str] = []
    counted: list[int] = []
    with forwarder(upstream, tmp_path / "a", "--lame-duck-seconds", "2") as (first, running), forwarder(upstream, tmp_path / "b") as (second, _):
        stop = threading.Event()

        def load() -> None:
            url, done = first, 0
            with httpx.Client() as client:
                while not stop.is_set():
                    try:
                        answer = client.post(url + ROUTE, json=body(full_row()))
                        if answer.status_code != 200:
                            failures.append(str(answer.status_code))
                        if answer.headers.get("connection") == "close":
                            url = second
                        done += 1
                    except httpx.HTTPError as error:
                        failures.append(repr(error))
            counted.append(done)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert sum(counted) > 100


def test_the_shadow_gets_what_the_champion_got_under_the_same_id(upstream: HttpEnd, tmp_path: Path) -> None:
    with http_end() as shadow, forwarder(upstream, tmp_path / "log", "--shadow", shadow.url) as (url, _):
        httpx.post(url + ROUTE, json=body(full_row()), headers={"Seldon-Puid": "p-1"})
        httpx.post(url + ROUTE, json=body(full_row()), headers={"Seldon-Puid": "p-2", "Seldon-Skip-Logging": "true"})
        wait_until(lambda: len(shadow.seen) >= 1, 10)
        assert [headers["seldon-puid"] for headers, _ in shadow.seen] == ["p-1"]
        assert shadow.seen[0][1] == upstream.seen[0][1]
        wait_until(lambda: 'crispline_forwarder_shadow_copies_total{outcome="answered"} 1.0' in httpx.get(f"{url}/metrics").text, 10)


def test_a_shadow_that_hangs_or_is_away_holds_nobody_up(upstream: HttpEnd, tmp_path: Path) -> None:
    with http_end() as shadow, forwarder(upstream, tmp_path / "log", "--shadow", shadow.url) as (url, _):
        shadow.delay = 5.0
        began = time.monotonic()
        assert all(httpx.post(url + ROUTE, json=body(full_row())).status_code == 200 for _ in range(20))
        assert time.monotonic() - began < 20 * shadow.delay / 2, "calls that waited for the shadow would take twenty times its delay"
    with forwarder(upstream, tmp_path / "away", "--shadow", f"http://127.0.0.1:{free_port()}") as (url, _):
        assert httpx.post(url + ROUTE, json=body(full_row())).status_code == 200
        wait_until(lambda: 'shadow_copies_total{outcome="unreachable"} 1.0' in httpx.get(f"{url}/metrics").text, 10)
