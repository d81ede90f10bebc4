"""Services start together, are watched, and end with their owner, whatever ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError
from pipelines.demo.services import Service, Supervisor, free_port

pytestmark = pytest.mark.pipeline


def web_server(name: str, ready: str = "/") -> Service:
    """The standard library's server of files, as a process of its own."""
    port = free_port()
    return Service(name, "pipeline", "http.server", (str(port), "--bind", "127.0.0.1"), port, ready)


def broken(name: str) -> Service:
    """A process that ends at once with a message and exit code 2: json.tool does not know the option."""
    return Service(name, "pipeline", "json.tool", ("--no-such-option",), free_port(), "/")


def pid(supervisor: Supervisor, name: str) -> int:
    return supervisor._running[name][1].pid


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(*processes: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until and any(is_running(process) for process in processes):
        time.sleep(0.05)
    return not any(is_running(process) for process in processes)


def test_services_that_answer_are_ready_and_end_with_the_block(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs", {}) as supervisor:
        for name in ("one", "two"):
            supervisor.start(web_server(name))
        supervisor.wait_ready("one", "two")
        supervisor.check_alive()
        processes = [pid(supervisor, name) for name in supervisor.names]
        assert len(processes) == 2 and all(is_running(process) for process in processes)
    assert not any(is_running(process) for process in processes)
    assert supervisor.names == []


def test_a_service_that_ends_while_starting_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs", {}) as supervisor:
        supervisor.start(broken("sidecar"))
        with pytest.raises(CrisplineError, match=r"sidecar ended with exit code 2 while starting\n(.|\n)*unrecognized arguments: --no-such-option"):
            supervisor.wait_ready("sidecar")


def test_a_service_that_ends_later_is_named(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs", {}) as supervisor:
        supervisor.start(web_server("trigger"))
        supervisor.wait_ready("trigger")
        os.kill(pid(supervisor, "trigger"), signal.SIGKILL)
        # Until its last thread has ended a killed process looks like a zombie and still has no exit code.
        supervisor._running["trigger"][1].wait(10)
        with pytest.raises(CrisplineError, match="trigger ended by itself with exit code -9"):
            supervisor.check_alive()


def test_a_service_that_answers_with_an_error_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.demo.services.START_TIMEOUT_SECONDS", 1.5)
    with Supervisor(tmp_path / "logs", {}) as supervisor:
        supervisor.start(web_server("server", ready="/absent"))
        with pytest.raises(CrisplineError, match=r"server did not answer /absent within 2 s(.|\n)*404"):
            supervisor.wait_ready("server")


def test_an_error_in_the_block_ends_all_services(tmp_path: Path) -> None:
    processes: list[int] = []
    with pytest.raises(KeyboardInterrupt), Supervisor(tmp_path / "logs", {}) as supervisor:
        supervisor.start(web_server("one"))
        processes.append(pid(supervisor, "one"))
        raise KeyboardInterrupt
    assert not is_running(processes[0])


OWNER = """
import signal, sys, time
from pathlib import Path
from pipelines.demo.tests.test_demo_supervisor import pid, web_server
from pipelines.demo.services import Supervisor
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is inherited as ignored where the tests run in a shell's background
with Supervisor(Path(sys.argv[1]), {}) as supervisor:
    for name in ("one", "two"):
        supervisor.start(web_server(name))
    supervisor.wait_ready("one", "two")
    print(pid(supervisor, "one"), pid(supervisor, "two"), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl_c", "killed"])
def test_no_service_outlives_its_owner(tmp_path: Path, how: signal.Signals) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path / "logs")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert owner.stdout is not None
    services = [int(number) for number in owner.stdout.readline().split()]
    assert len(services) == 2 and all(is_running(service) for service in services)
    owner.send_signal(how)
    owner.wait(20)
    owner.stdout.close()
    assert wait_until_gone(*services)
