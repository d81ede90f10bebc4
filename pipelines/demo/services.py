"""The embedded platform's processes: feature server, model server, forwarder, sidecar and trigger, started, watched and ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from components.contracts.errors import CrisplineError
from pipelines.runners.environments import ROOT, interpreter
from pipelines.runners.step_process import die_with_parent

START_TIMEOUT_SECONDS = 90.0
STOP_TIMEOUT_SECONDS = 15.0


def free_port() -> int:
    """A TCP port that was free on the loopback address a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Service:
    """One process. `environment` names the uv project whose interpreter runs it; `ready` is the URL that answers 200 once it serves."""

    name: str
    environment: str
    module: str
    arguments: tuple[str, ...]
    port: int
    ready: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [str(interpreter(self.environment)), "-m", self.module, *self.arguments]


@dataclass
class Supervisor:
    """Owns the running services. Leaving the `with` block ends every process, also on Ctrl-C; a process dies with its owner in any case."""

    logs: Path
    environment: Mapping[str, str]
    _running: dict[str, tuple[Service, subprocess.Popen[bytes]]] = field(default_factory=dict)

    def __enter__(self) -> Supervisor:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)

    def start(self, service: Service) -> None:
        """Start without waiting; see `wait_ready`."""
        with (self.logs / f"{service.name}.log").open("ab") as log:
            process = subprocess.Popen(  # the command is ours, not a user's
                service.command(),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._running[service.name] = (service, process)

    def wait_ready(self, *names: str) -> None:
        """Block until the services answer. Raises CrisplineError with the end of the log when one exits or does not come up in time."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        for name in names:
            service, process = self._running[name]
            while not _answers(service.url + service.ready):
                if process.poll() is not None:
                    raise CrisplineError(f"{name} ended with exit code {process.returncode} while starting\n{self._log_end(name)}")
                if time.monotonic() > deadline:
                    raise CrisplineError(f"{name} did not answer {service.ready} within {START_TIMEOUT_SECONDS:.0f} s\n{self._log_end(name)}")
                time.sleep(0.1)

    def check_alive(self) -> None:
        """Raises CrisplineError naming a service that ended by itself."""
        for name, (_, process) in self._running.items():
            if process.poll() is not None:
                raise CrisplineError(f"{name} ended by itself with exit code {process.returncode}\n{self._log_end(name)}")

    def stop(self, name: str) -> int:
        """SIGTERM, wait, and only then SIGKILL. Returns the exit code."""
        _, process = self._running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return process.wait()

    def url(self, name: str) -> str:
        return self._running[name][0].url

    @property
    def names(self) -> list[str]:
        return list(self._running)

    def _log_end(self, name: str) -> str:
        log = self.logs / f"{name}.log"
        return f"end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False
