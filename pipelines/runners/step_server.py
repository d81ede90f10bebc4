"""One environment's warm interpreter: imports what the steps need once, then forks one child a step.

    <environment's python> -m pipelines.runners.step_server <listening socket's descriptor> <imports file>

The child runs kfp's own executor on the component's own source, as the container's command would. The server has one thread of Python and uses no
package between import and fork, so that no lock of a library is held in a child. What to import is read from the steps: the
imports in a component's function, and what the same step imported when it ran before (kept in the imports file). Imports happen just
before a fork, or while the server has nothing else to do, and then for the next expected step only: a step that comes never waits for the
imports of a later one. Threads that an import starts by itself (OpenBLAS, jemalloc) have fork handlers
of their own; tests/test_local_runner.py uses the libraries in forked steps. The server ends when its standard input closes, i.e. with its owner, however that ends.

A request is one line of JSON, so is its answer:
    {"kind": "step", "name", "source", "arguments", "variables", "folder", "log"}  ->  {"exit", "imports_seconds", "run_seconds"}
    {"kind": "expect", "steps": [{"name", "source"}]}                               ->  {}
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.runners.step_imports import LearnedImports, import_all, modules_of_source
from pipelines.runners.step_process import die_with_parent, run_executor


@dataclass
class _Child:
    connection: socket.socket
    name: str
    learned: Path
    imports_seconds: float
    started: float


class StepServer:
    """See the module. `listener` is a bound Unix socket, `owner` the descriptor whose end ends the server."""

    def __init__(self, listener: socket.socket, owner: int, learned: LearnedImports) -> None:
        self._listener = listener
        self._owner = owner
        self._learned = learned
        self._selector = selectors.DefaultSelector()
        self._buffers: dict[socket.socket, bytes] = {}
        self._children: dict[int, _Child] = {}
        self._expected: list[tuple[str, list[str]]] = []  # step, modules that it needs
        self._stop = False

    def serve(self) -> None:
        """Until the owner ends, or SIGTERM. Running steps are ended with it."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the owner, which ends us
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._owner, selectors.EVENT_READ, self._owner_ended)
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: os.read(wake_read, 4096))
        try:
            while not self._stop:
                for key, _ in self._selector.select(0 if self._may_import() else None):
                    key.data()
                self._reap()
                if self._may_import() and not self._selector.select(0):
                    import_all([self._expected[0][1].pop(0)])
        finally:
            for pid in self._children:
                _end_group(pid)

    def _may_import(self) -> bool:
        return bool(self._expected and self._expected[0][1])

    def _on_stop(self, *_: object) -> None:
        self._stop = True

    def _owner_ended(self) -> None:
        if not os.read(self._owner, 1):
            self._stop = True

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._buffers[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._receive(connection))

    def _receive(self, connection: socket.socket) -> None:
        data = connection.recv(1 << 20)
        if not data:  # the client is gone: nobody waits for its step
            self._forget(connection)
            for pid, child in self._children.items():
                if child.connection is connection:
                    _end_group(pid)
            return
        self._buffers[connection] += data
        while b"\n" in self._buffers.get(connection, b""):
            line, self._buffers[connection] = self._buffers[connection].split(b"\n", 1)
            self._handle(connection, json.loads(line))

    def _handle(self, connection: socket.socket, request: dict[str, Any]) -> None:
        if request["kind"] == "expect":
            self._expected = [(step["name"], self._modules(step["name"], step["source"])) for step in request["steps"]]
            _answer(connection, {})
            return
        self._expected = _after(self._expected, request["name"])
        began = time.monotonic()
        import_all(self._modules(request["name"], request["source"]))
        imported = time.monotonic()
        folder = Path(request["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        gc.freeze()  # a child's collection shall not copy the pages of what it never changes
        pid = os.fork()
        if pid == 0:
            self._become_step(request, folder)
        self._children[pid] = _Child(connection, request["name"], folder / "imports.json", imported - began, imported)

    def _modules(self, name: str, source: str) -> list[str]:
        return [*modules_of_source(source), *self._learned.of(name)]

    def _become_step(self, request: dict[str, Any], folder: Path) -> None:
        """In the child; never returns."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.setpgid(0, 0)
            die_with_parent()
            self._selector.close()
            self._listener.close()
            for connection in self._buffers:
                connection.close()
            before = set(sys.modules)
            code = run_executor(request["source"], request["arguments"], request["variables"], folder, Path(request["log"]))
            if code == 0:
                LearnedImports.report(folder / "imports.json", before)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid)
            self._learned.learn(child.name, child.learned)
            ended = time.monotonic()
            _answer(
                child.connection, {"exit": os.waitstatus_to_exitcode(status), "imports_seconds": child.imports_seconds, "run_seconds": ended - child.started}
            )

    def _forget(self, connection: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        self._buffers.pop(connection, None)
        connection.close()


def _after(expected: list[tuple[str, list[str]]], step: str) -> list[tuple[str, list[str]]]:
    """What is still expected once `step` has come; a step that was not expected changes nothing."""
    names = [name for name, _ in expected]
    return expected[names.index(step) + 1 :] if step in names else expected


def _answer(connection: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a client that went away needs no answer
        connection.sendall(json.dumps(answer).encode() + b"\n")


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    descriptor, imports_file = arguments
    import_all(["kfp.dsl.executor_main"])
    listener = socket.socket(fileno=int(descriptor))
    StepServer(listener, sys.stdin.fileno(), LearnedImports(Path(imports_file))).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
