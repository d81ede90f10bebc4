"""The owner's side of the step servers: starts one an environment when it is first needed, sends steps, ends them all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts.errors import CrisplineError
from pipelines.runners.environments import ROOT, interpreter

# Forking a process that has imported system frameworks is safe on Linux only; elsewhere each step starts an interpreter.
WARM_BY_DEFAULT = sys.platform == "linux"
_LONGEST_SOCKET_PATH = 100  # bytes; the kernel takes 107, macOS 103


@dataclass(frozen=True)
class StepRequest:
    """One step to run. `arguments` go to kfp's executor; `folder` is the step's working folder, `log` gets its output."""

    name: str
    source: str
    arguments: Sequence[str]
    variables: Mapping[str, str]
    folder: Path
    log: Path


@dataclass(frozen=True)
class StepExit:
    """How a step's process ended: exit code (0 is success), seconds that the server spent importing for it, seconds it ran."""

    code: int
    imports_seconds: float
    run_seconds: float


class StepServers:
    """The step servers that this process owns. They end when `close` is called, and also when this process is killed."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._variables = dict(variables)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._owner = os.getpid()
        folder.mkdir(parents=True, exist_ok=True)
        inside = folder.resolve() / f"{os.getpid()}"
        self._sockets = inside if len(os.fsencode(inside / "monitoring")) < _LONGEST_SOCKET_PATH else Path(tempfile.mkdtemp(prefix="crispline-"))

    def __enter__(self) -> StepServers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, environment: str) -> None:
        """Start the environment's server without waiting for its imports; nothing when it runs already."""
        with self._lock:
            if environment in self._processes:
                return
            self._sockets.mkdir(parents=True, exist_ok=True)
            address = self._address(environment)
            address.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(str(address))
                listener.listen(16)
                with (self._folder / f"{environment}.log").open("ab") as log:
                    self._processes[environment] = subprocess.Popen(
                        [
                            str(interpreter(environment)),
                            "-m",
                            "pipelines.runners.step_server",
                            str(listener.fileno()),
                            str(self._folder / f"{environment}.imports.json"),
                        ],
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        pass_fds=[listener.fileno()],
                        env={**os.environ, **self._variables, "_KFP_RUNTIME": "true"},
                        cwd=ROOT,
                        start_new_session=True,
                    )

    def expect(self, environment: str, steps: Sequence[tuple[str, str]]) -> None:
        """Tell the environment's server which steps (name, source) will come, so that it imports for them while it waits."""
        self._exchange(environment, {"kind": "expect", "steps": [{"name": name, "source": source} for name, source in steps]})

    def run(self, environment: str, step: StepRequest) -> StepExit:
        """Run one step to its end. Raises CrisplineError when the server itself fails."""
        answer = self._exchange(
            environment,
            {
                "kind": "step",
                "name": step.name,
                "source": step.source,
                "arguments": list(step.arguments),
                "variables": dict(step.variables),
                "folder": str(step.folder),
                "log": str(step.log),
            },
        )
        return StepExit(code=answer["exit"], imports_seconds=answer["imports_seconds"], run_seconds=answer["run_seconds"])

    def close(self) -> None:
        """End every server with the steps that it runs. One that is needed afterwards starts anew."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            for process in self._processes.values():
                if process.stdin is not None:
                    with contextlib.suppress(OSError):
                        process.stdin.close()
            for process in self._processes.values():
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            self._processes.clear()
            shutil.rmtree(self._sockets, ignore_errors=True)

    def disown(self) -> None:
        """In a forked child: let go of the pipes whose end would end the servers, and leave those servers to the parent.

        A server that the child needs and the parent has not started is the child's own, ended by the child's end.
        """
        for process in self._processes.values():
            if process.stdin is not None:
                os.close(process.stdin.fileno())

    def _exchange(self, environment: str, request: dict[str, Any]) -> dict[str, Any]:
        self.start(environment)
        line = b""
        with contextlib.suppress(ConnectionError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(self._address(environment)))
            connection.sendall(json.dumps(request).encode() + b"\n")
            while not line.endswith(b"\n"):
                part = connection.recv(1 << 16)
                if not part:
                    break
                line += part
        if not line.endswith(b"\n"):
            log = self._folder / f"{environment}.log"
            end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise CrisplineError(f"the step server of the environment {environment!r} ended by itself; end of {log}:\n{end}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _address(self, environment: str) -> Path:
        return self._sockets / environment
