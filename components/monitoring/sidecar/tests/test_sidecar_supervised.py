"""The sidecar's first process: the port stays open over a killed server, and a wrong configuration is seen."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from components.contracts.platform import PLATFORM_VARIABLE, Platform
from components.monitoring.sidecar.supervised import Patience, next_pause, open_port
from components.monitoring.sidecar.tests.conftest import wait_until

pytestmark = pytest.mark.monitoring

# A server in the sidecar's place that starts in no time: /health says its process id, /hang stops it from ever answering again.
SERVER = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
listener = socket.socket(fileno=int(sys.argv[sys.argv.index("--listen-descriptor") + 1]))
listener.listen(64)
while True:
    connection, _ = listener.accept()
    line = connection.recv(65536).split(b"\\r\\n")[0]
    if b"/hang" in line:
        time.sleep(3600)
    body = str(os.getpid()).encode()
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nconnection: close\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (len(body), body))
    connection.close()
"""


@contextmanager
def supervised(tmp_path: Path, patience: str = "Patience()", server: str = SERVER) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A supervisor in a process of its own, over `server`."""
    (tmp_path / "server.py").write_text(textwrap.dedent(server))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = (
        "import sys; from components.monitoring.sidecar.supervised import *;"
        f"sys.exit(Supervisor([sys.executable, {str(tmp_path / 'server.py')!r}], open_port('127.0.0.1', {port}), {patience}).run())"
    )
    running = subprocess.Popen([sys.executable, "-c", program], stderr=(tmp_path / "log").open("wb"))
    try:
        yield f"http://127.0.0.1:{port}", running
    finally:
        if running.poll() is None:
            running.terminate()
            running.wait(60)


def seen_to_answer(folder: Path) -> bool:
    """Whether the supervisor has noticed that its server answers: from then on it replaces it."""
    return "the server answers" in (folder / "log").read_text()


def up(url: str) -> bool:
    try:
        return httpx.get(url + "/health", timeout=2).is_success
    except httpx.HTTPError:
        return False


def test_requests_wait_while_a_killed_server_is_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path) as (url, _):
        wait_until(lambda: seen_to_answer(tmp_path), 20)
        failures: list[str] = []
        pids: set[int] = set()
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                try:
                    pids.add(int(httpx.get(url + "/", timeout=20).text))
                except httpx.ConnectError as error:
                    failures.append(repr(error))
                except httpx.HTTPError:
                    pass  # the one that the killed server had taken

        thread = threading.Thread(target=ask)
        thread.start()
        for _ in range(3):
            server = int(httpx.get(url + "/", timeout=20).text)
            os.kill(server, signal.SIGKILL)
            wait_until(lambda server=server: max(pids, default=0) and server not in {int(httpx.get(url + "/", timeout=20).text)}, 20)  # type: ignore[misc]
        stop.set()
        thread.join()
        assert failures == [], "the port was closed"
        assert len(pids) >= 3


def test_a_server_that_hangs_is_killed_and_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path, "Patience(look=0.1, answer=0.3, misses=3)") as (url, _):
        wait_until(lambda: seen_to_answer(tmp_path), 20)
        first = int(httpx.get(url + "/", timeout=5).text)
        with pytest.raises(httpx.HTTPError):
            httpx.get(url + "/hang", timeout=0.5)
        wait_until(lambda: up(url) and int(httpx.get(url + "/", timeout=5).text) != first, 20)
        assert "has not answered 3 times in a row" in (tmp_path / "log").read_text()


def test_an_end_before_the_first_answer_is_the_supervisors_end(tmp_path: Path) -> None:
    with supervised(tmp_path, server="import sys; sys.exit(2)") as (url, running):
        assert running.wait(20) == 2
        assert not up(url)


def test_the_port_is_closed_until_the_first_server_opens_it() -> None:
    with open_port("127.0.0.1", 0) as listener, socket.socket() as client:
        assert client.connect_ex(listener.getsockname()) != 0


def test_sigterm_ends_the_server_in_order(tmp_path: Path) -> None:
    with supervised(tmp_path) as (url, running):
        wait_until(lambda: up(url), 20)
        server = int(httpx.get(url + "/").text)
        running.terminate()
        assert running.wait(20) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(server, 0)


def test_restarts_in_a_row_wait_longer_and_a_quiet_time_forgets_them() -> None:
    pauses = [0.0]
    for _ in range(9):
        pauses.append(next_pause(pauses[-1], 1.0, Patience()))
    assert pauses == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert next_pause(10.0, 61.0, Patience()) == 0.0


def test_the_real_sidecar_takes_events_on_the_inherited_port_and_survives_kill_9(tmp_path: Path) -> None:
    platform = Platform.embedded(tmp_path / "state")
    (tmp_path / "platform.json").write_text(platform.model_dump_json())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "components.monitoring.sidecar.supervised",
        "--port",
        str(port),
        "--spool",
        str(tmp_path / "spool"),
        "--usecase",
        "flights",
    ]
    running = subprocess.Popen(command, env={**os.environ, PLATFORM_VARIABLE: str(tmp_path / "platform.json")}, stderr=(tmp_path / "log").open("wb"))
    try:
        wait_until(lambda: seen_to_answer(tmp_path), 90)
        children = (Path(f"/proc/{running.pid}/task/{running.pid}/children")).read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        answer = httpx.post(url, content=b"{}", headers={"ce-type": "io.seldon.serving.inference.request", "ce-id": "e"}, timeout=60)
        assert answer.json() == {"accepted": "e"}
        running.terminate()
        assert running.wait(30) == 0
    finally:
        if running.poll() is None:
            running.kill()
