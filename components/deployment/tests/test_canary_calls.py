"""Calls are counted the same from pods and from Prometheus; a mark survives in a record, a reset counter counts from zero."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from components.deployment.canary.calls import HISTOGRAMS, NoCalls, PodCalls, Pods, Prometheus, PrometheusCalls, calls_of, count_calls
from components.deployment.canary.judgement import Calls

pytestmark = pytest.mark.pipeline
EDGES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
ROUTE = "/api/v1.0/predictions"


class Pod:
    """What a pod's forwarder counts."""

    def __init__(self, predictor: str) -> None:
        self.predictor = predictor
        self.restart()

    def restart(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram("crispline_forwarder_seconds", "", ["predictor", "route", "status"], buckets=EDGES, registry=self.registry)

    def answer(self, count: int, status: int = 200, seconds: float = 0.01, route: str = ROUTE) -> None:
        for _ in range(count):
            self.seconds.labels(self.predictor, route, status).observe(seconds)

    def page(self, _: str) -> str:
        return generate_latest(self.registry).decode()


@contextmanager
def served(page: Callable[[str], str], content_type: str = "text/plain; version=0.0.4") -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page(self.path).encode()
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def source(**addresses: str) -> Pods:
    return Pods(PodCalls(kind="pods", addresses=addresses), 0.25)


def test_errors_and_slow_calls_are_counted_and_other_routes_are_not() -> None:
    pod = Pod("canary")
    pod.answer(10)
    pod.answer(3, status=500)
    pod.answer(2, status=422)
    pod.answer(4, seconds=0.3)
    pod.answer(7, route="/send-feedback")
    assert count_calls(pod.page(""), HISTOGRAMS["forwarder"], "canary", 0.25) == Calls(19, 5, 4)
    assert count_calls(pod.page(""), HISTOGRAMS["forwarder"], "default", 0.25) == Calls(0, 0, 0)


def test_the_executors_histogram_is_read_as_well() -> None:
    """A page as Seldon's executor 1.19 shows it."""
    labels = 'code="{}",deployment_name="flights",method="post",predictor_name="default",predictor_version="",service="predictions"'
    name = "seldon_api_executor_server_requests_seconds"
    page = f"# TYPE {name} histogram\n"
    for code, fast, total in (("200", 90, 100), ("503", 1, 5)):
        here = labels.format(code)
        page += (
            f'{name}_bucket{{{here},le="0.25"}} {fast}\n{name}_bucket{{{here},le="+Inf"}} {total}\n{name}_sum{{{here}}} 3.5\n{name}_count{{{here}}} {total}\n'
        )
    page += f"{name}_count{{{labels.format('200').replace('predictions', 'feedback')}}} 44\n"
    assert count_calls(page, HISTOGRAMS["executor"], "default", 0.25) == Calls(105, 5, 14)


def test_a_limit_that_the_histogram_lacks_is_refused_with_those_that_it_has() -> None:
    pod = Pod("canary")
    pod.answer(1)
    with pytest.raises(NoCalls, match=r"slow_seconds 0\.3 is no bucket limit.*\n.*0\.25, 0\.5"):
        count_calls(pod.page(""), HISTOGRAMS["forwarder"], "canary", 0.3)


def test_what_came_after_a_mark_is_counted_over_all_predictors() -> None:
    champion, canary = Pod("default"), Pod("canary")
    champion.answer(50)
    canary.answer(5)
    with served(champion.page) as one, served(canary.page) as other:
        pods = source(default=one, canary=other)
        mark = json.loads(json.dumps(pods.mark()))
        champion.answer(95, seconds=0.3)
        canary.answer(4)
        canary.answer(1, status=500)
        assert pods.since(mark) == {"default": Calls(95, 0, 95), "canary": Calls(5, 1, 0)}


def test_a_pod_that_started_anew_counts_from_zero() -> None:
    pod = Pod("canary")
    pod.answer(50)
    with served(pod.page) as url:
        pods = source(canary=url)
        mark = pods.mark()
        pod.restart()
        pod.answer(3)
        assert pods.since(mark) == {"canary": Calls(3, 0, 0)}
        assert pods.since({}) == {"canary": Calls(3, 0, 0)}


def test_every_address_of_a_name_is_read_and_one_that_is_ending_is_left_out() -> None:
    first, second = Pod("canary"), Pod("canary")
    first.answer(3)
    second.answer(4)
    with served(first.page) as one, served(second.page) as other:
        port = urlsplit(one).port
        assert port is not None
        # Two pods behind one name have one port; here they differ, so the name resolves to addresses that carry their own server.
        pods = Pods(PodCalls(kind="pods", addresses={"canary": "http://canary-pods:8000/metrics"}), 0.25, lambda *_: ["127.0.0.1", "127.0.0.2", "127.0.0.3"])
        pages = {"127.0.0.1": one, "127.0.0.2": other}

        def get(url: str, **options: Any) -> httpx.Response:
            host = urlsplit(url).hostname or ""
            if host not in pages:
                raise httpx.ConnectError("refused")
            return original(pages[host], **options)

        original, httpx.get = httpx.get, get  # type: ignore[assignment]
        try:
            assert pods.since({}) == {"canary": Calls(7, 0, 0)}
        finally:
            httpx.get = original


def test_a_predictor_without_pods_has_no_calls_and_one_that_is_silent_is_an_error() -> None:
    assert source(canary="http://no-such-name.invalid:8000/metrics").since({}) == {"canary": Calls(0, 0, 0)}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(NoCalls, match="remedy"):
        source(canary=f"http://127.0.0.1:{port}/metrics").mark()


def test_prometheus_is_asked_for_the_increase_since_the_mark() -> None:
    asked: list[dict[str, list[str]]] = []

    def page(path: str) -> str:
        query = parse_qs(urlsplit(path).query)
        asked.append(query)
        if "_bucket" in query["query"][0]:
            series = [({"predictor": "canary", "status": "200", "le": limit}, value) for limit, value in (("0.25", "95.2"), ("+Inf", "100.4"))]
        else:
            series = [({"predictor": "canary", "status": "200"}, "100.4"), ({"predictor": "canary", "status": "500"}, "7.9")]
        result = [{"metric": labels, "value": [0, value]} for labels, value in series]
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})

    moments = iter([datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 2, tzinfo=UTC)])
    with served(page, "application/json") as url:
        prometheus = Prometheus(PrometheusCalls(kind="prometheus", url=url, selector={"namespace": "flights-prod"}), 0.25, lambda: next(moments))
        found = prometheus.since(prometheus.mark())
    assert found == {"canary": Calls(108, 8, 13)}
    assert asked[0]["query"] == [
        'sum by (predictor, status) (increase(crispline_forwarder_seconds_count{namespace="flights-prod", route="/api/v1.0/predictions"}[120s]))'
    ]
    assert asked[0]["time"] == ["1767225720.000"]


def test_a_prometheus_that_is_away_or_refuses_is_said(tmp_path: Path) -> None:
    with served(lambda _: json.dumps({"status": "error", "error": "parse error"}), "application/json") as url:
        prometheus = Prometheus(PrometheusCalls(kind="prometheus", url=url), 0.25)
        with pytest.raises(NoCalls, match="parse error"):
            prometheus.since(prometheus.mark())
    with pytest.raises(NoCalls, match="does not answer"):
        prometheus.since(prometheus.mark())


def test_a_real_prometheus_counts_what_the_pods_count(tmp_path: Path) -> None:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on PATH; install it (Debian: prometheus) to hold the queries against the real server")
    champion, canary = Pod("default"), Pod("canary")
    for pod in (champion, canary):  # a series has to be seen once before an increase of it is
        pod.answer(1)
        pod.answer(1, status=500)
    with served(champion.page) as one, served(canary.page) as other:
        targets = [urlsplit(url).netloc for url in (one, other)]
        config = {"scrape_configs": [{"job_name": "flights", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}]}
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = [f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
        with (tmp_path / "log").open("w") as log, subprocess.Popen([program, *arguments], stdout=log, stderr=log) as running:
            try:
                prometheus = Prometheus(PrometheusCalls(kind="prometheus", url=f"http://127.0.0.1:{port}", selector={"job": "flights"}), 0.25)
                _wait(lambda: _scraped(port) >= 2)
                mark = prometheus.mark()
                time.sleep(3)
                champion.answer(400)
                champion.answer(20, seconds=0.3)
                canary.answer(80)
                canary.answer(40, status=500)
                found: dict[str, Calls] = {}

                def enough() -> bool:
                    found.update(prometheus.since(mark))
                    return calls_of(found, "canary").total >= 110 and calls_of(found, "default").total >= 385

                _wait(enough)
            finally:
                running.terminate()
                running.wait(20)
    # `increase` extrapolates to the ends of the time asked for, by up to a scrape interval at each end: counts are near, shares are right.
    default, challenger = calls_of(found, "default"), calls_of(found, "canary")
    assert default.total == pytest.approx(420, rel=0.35) and challenger.total == pytest.approx(120, rel=0.35)
    assert default.slow / default.total == pytest.approx(20 / 420, abs=0.01) and default.errors == 0
    assert challenger.errors / challenger.total == pytest.approx(40 / 120, abs=0.03)


def _scraped(port: int) -> int:
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": "crispline_forwarder_seconds_count"}).json()
    except (httpx.HTTPError, ValueError):
        return 0
    return len({series["metric"]["instance"] for series in answer["data"]["result"]})


def _wait(condition: Callable[[], bool]) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=40)
    while not condition():
        assert datetime.now(UTC) < deadline, "not within 40 s"
        time.sleep(0.5)
