"""Small HTTP servers in the place of predictors, and a client, for a proxy that runs on this machine."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class PredictorStandIn:
    """`ids`: the request ids that came, in order. `break_next`: of how many requests the connection is closed before an answer begins."""

    port: int = 0
    ids: list[str] = field(default_factory=list)
    break_next: int = 0


@contextmanager
def predictor_stand_in(name: str, port: int = 0) -> Iterator[PredictorStandIn]:
    state = PredictorStandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            state.ids.append(self.headers["Seldon-Puid"])
            if state.break_next:
                state.break_next -= 1
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("content-length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def ask(port: int, headers: Mapping[str, str] | None = None) -> str:
    """Who answered, by the header; AssertionError when the body says otherwise."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/api/v1.0/predictions", b"{}", {"content-type": "application/json", **(headers or {})})
        answer = connection.getresponse()
        who = answer.read().decode()
        assert answer.status == 200 and answer.headers["X-Crispline-Predictor"] == who, (answer.status, who)
    finally:
        connection.close()
    return who


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, f"nothing listens on {port}"
        time.sleep(0.05)


def wait_until(look: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)
