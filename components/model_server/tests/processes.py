"""Requests, and what it takes to run real processes: model servers, an HTTP end that speaks Feast's protocol or takes events."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from components.contracts.loading import load_usecase

FEATURES = load_usecase("flights").features
FIELDS = {
    "carrier": "AA",
    "origin": "JFK",
    "month": 4,
    "weekday": 1,
    "dep_minute": 600,
    "arr_minute": 700,
    "distance": 900.0,
    "scheduled_minutes": 120.0,
    "scheduled_departures": 30,
}
KEYS = {"origin": "JFK", "route": "JFK-BOS", "carrier_origin": "AA-JFK", "tailnum": "N1"}
MOMENTS = {"prediction_moment": "2013-04-01T10:00:00Z", "event_time": "2013-04-01T12:00:00Z"}


def full_row(**changes: Any) -> dict[str, Any]:
    served = {name: 0.5 for name in FEATURES.feature_names if name not in FIELDS}
    return {"entity": "AA1", **MOMENTS, "features": {**FIELDS, **served, **changes}}


def keyed_row(entity: str = "AA1", **changes: Any) -> dict[str, Any]:
    return {"entity": entity, **MOMENTS, "keys": dict(KEYS), "fields": dict(FIELDS), **changes}


def body(*rows: Any, **more: Any) -> dict[str, Any]:
    return {"jsonData": {"instances": list(rows), **more}}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(module: str, *arguments: str, ready: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module running until the block ends; entered once `ready` answers 200."""
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONWARNINGS": "ignore"}
        )
    try:
        wait_until(lambda: _answers(ready) or running.poll() is not None, 120)
        assert running.poll() is None, log.read_text()
        yield running
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(30)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


@contextmanager
def model_server(folder: Path, log: Path, *more: str, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["--release-folder", str(folder), "--port", str(port), "--moment-skew", "unlimited", *more]
    with process("components.model_server.seldon", *arguments, ready=f"{url}/health/ready", log=log) as running:
        yield url, running


@dataclass
class HttpEnd:
    """A small HTTP server: `answer` decides, `seen` keeps what came."""

    url: str = ""
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], tuple[int, Any]] = lambda _: (200, {})
    delay: float = 0.0


@contextmanager
def http_end() -> Iterator[HttpEnd]:
    end = HttpEnd()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            end.seen.append(({name.lower(): value for name, value in self.headers.items()}, content))
            time.sleep(end.delay)
            status, document = end.answer(json.loads(content.strip() or b"null"))
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    end.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield end
    finally:
        server.shutdown()
        server.server_close()


def feast_answer(document: dict[str, Any], event_time: str = "2013-04-01T09:00:00Z", value: Callable[[str, int], Any] = lambda *_: 0.25) -> dict[str, Any]:
    """What Feast 0.67 answers to get-online-features: entity columns first, then one column for each feature."""
    entities = document["entities"]
    count = len(next(iter(entities.values())))
    names, results = [], []
    for key, values in entities.items():
        names.append(key)
        results.append({"values": values, "statuses": ["PRESENT"] * count, "event_timestamps": ["1970-01-01T00:00:00Z"] * count})
    for reference in document["features"]:
        names.append(reference.replace(":", "__"))
        feature = reference.split(":")[1]
        results.append({"values": [value(feature, row) for row in range(count)], "statuses": ["PRESENT"] * count, "event_timestamps": [event_time] * count})
    return {"metadata": {"feature_names": names}, "results": results}
