"""`python -m components.monitoring.sidecar.supervised`: the sidecar's first process in a container; takes the options of components.monitoring.sidecar.

It opens the port and starts the server on it. A server that ends, or no longer answers, is replaced; the port stays open meanwhile, so the
pod stays in service and what is sent waits in the port's queue. What a killed server had taken and not yet acknowledged is lost.

Until a server has answered once, its end is the supervisor's end, with the same exit code: a wrong configuration must be seen, and must stop
a roll-out. Afterwards no fault of the sidecar takes the predictions beside it out of service.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


@dataclass(frozen=True)
class Patience:
    """Seconds: between looks at the server, for its answer, of quiet after which an end counts as the first again, of the longest pause before
    a restart, for an orderly end. `misses`: looks in a row without an answer after which it is killed."""

    look: float = 5.0
    answer: float = 5.0
    misses: int = 6
    quiet: float = 60.0
    longest_pause: float = 10.0
    ending: float = 30.0


@dataclass
class Supervisor:
    """One server process on one socket that is never closed. Runs in the main thread of a process of its own; its signals are blocked and waited for."""

    command: Sequence[str]
    listener: socket.socket
    patience: Patience = Patience()
    restarts: int = field(default=0, init=False)
    _answered: bool = field(default=False, init=False)
    _misses: int = field(default=0, init=False)

    def run(self) -> int:
        """Until SIGTERM or SIGINT: 0, the server having ended in order. Before the server's first answer: its exit code."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            return self._run(before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _run(self, mask: set[int | signal.Signals]) -> int:
        pause = 0.0
        while True:
            started = time.monotonic()
            server = self._start(mask)
            ended = self._watch(server)
            if ended is None:
                return self._end(server)
            if not self._answered:
                return ended if ended >= 0 else 128 - ended
            self.restarts += 1
            pause = next_pause(pause, time.monotonic() - started, self.patience)
            print(f"supervisor: the server ended with {ended}; restart {self.restarts} in {pause:g} s", file=sys.stderr, flush=True)
            if self._wait(pause) in (signal.SIGTERM, signal.SIGINT):
                return 0

    def _start(self, mask: set[int | signal.Signals]) -> subprocess.Popen[bytes]:
        self._misses = 0
        descriptor = self.listener.fileno()

        def unblock() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        return subprocess.Popen([*self.command, "--listen-descriptor", str(descriptor)], pass_fds=(descriptor,), preexec_fn=unblock)

    def _watch(self, server: subprocess.Popen[bytes]) -> int | None:
        """The server's exit code once it ended; None when the supervisor is asked to end."""
        wait = 0.2
        while True:
            received = self._wait(wait)
            if received in (signal.SIGTERM, signal.SIGINT):
                return None
            self._reap_orphans(server)
            code = server.poll()
            if code is not None:
                return code
            if received is None:
                self._look(server)
                wait = self.patience.look if self._answered else 0.2

    def _look(self, server: subprocess.Popen[bytes]) -> None:
        if self._answers():
            if not self._answered:
                print("supervisor: the server answers", file=sys.stderr, flush=True)
            self._answered, self._misses = True, 0
            return
        self._misses += self._answered
        if self._misses >= self.patience.misses:
            print(f"supervisor: the server has not answered {self._misses} times in a row and is killed", file=sys.stderr, flush=True)
            self._misses = 0
            server.kill()

    def _answers(self) -> bool:
        port = self.listener.getsockname()[1]
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health", timeout=self.patience.answer, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _end(self, server: subprocess.Popen[bytes]) -> int:
        server.terminate()
        try:
            server.wait(self.patience.ending)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        return 0

    def _reap_orphans(self, server: subprocess.Popen[bytes]) -> None:
        """The first process of a container inherits the children of those that ended."""
        if os.getpid() != 1:
            return
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid == server.pid:
                return
            os.waitpid(found.si_pid, os.WNOHANG)

    def _wait(self, seconds: float) -> int | None:
        """The signal that came within `seconds`, or None."""
        if seconds <= 0:
            return None
        received = signal.sigtimedwait(_SIGNALS, seconds)
        return None if received is None else received.si_signo


def next_pause(before: float, lived: float, patience: Patience) -> float:
    """Seconds to wait before a restart, after a server that lived so long: none after a quiet time, else twice as long as before."""
    return 0.0 if lived > patience.quiet else min(max(0.1, before * 2), patience.longest_pause)


def open_port(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: the first server does that, so the port is open once there was one."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m components.monitoring.sidecar.supervised", description=__doc__, allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    given, rest = parser.parse_known_args(arguments)
    command = [sys.executable, "-m", "components.monitoring.sidecar", "--host", given.host, "--port", str(given.port), *rest]
    try:
        listener = open_port(given.host, given.port)
    except OSError as error:
        print(f"port {given.port} on {given.host} cannot be opened: {error}\n    remedy: end what uses it, or give another --port", file=sys.stderr)
        return 1
    return Supervisor(command, listener).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
