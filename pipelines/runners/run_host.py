"""The process that executes submitted runs: kfp imported once, one forked child a run, the step servers shared by all.

    <pipeline environment's python> -m pipelines.runners.run_host <state> [--owned [descriptor of the lock]]

One host a state (a file lock says which). It ends when idle; with `--owned`, when its standard input closes, i.e. with its owner, and then
ends what runs too: the store keeps such a run, and the next host takes it up.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from components.contracts.errors import CrisplineError
from components.contracts.runs import Run
from pipelines.runners.environments import ROOT, interpreter, step_variables
from pipelines.runners.progress import Progress, WrittenProgress
from pipelines.runners.runs import RunStore, host_lock, progress_file
from pipelines.runners.step_client import WARM_BY_DEFAULT, StepServers
from pipelines.runners.step_process import die_with_parent

if TYPE_CHECKING:
    from pipelines.runners.local import RunResult

STEP_ENVIRONMENTS = ("pipeline", "monitoring")  # the environments that have steps; serving has none
_POLL_SECONDS = 0.1
_IDLE_SECONDS = 60.0


@contextlib.contextmanager
def owned_host(state: Path) -> Iterator[None]:
    """A warm run host for as long as the block lasts, ended with it and with this process."""
    state = state.resolve()
    (state / "runs").mkdir(parents=True, exist_ok=True)
    lock = host_lock(state)  # taken here and handed on, lest a run submitted meanwhile starts a host of nobody's
    handed = [] if lock is None else [lock]
    with (state / "runs" / "host.log").open("ab") as log:
        host = subprocess.Popen(
            [str(interpreter("pipeline")), "-m", "pipelines.runners.run_host", str(state), "--owned", *(f"--lock={each}" for each in handed)],
            pass_fds=handed,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **step_variables(state)},
            cwd=ROOT,
            start_new_session=True,
        )
    for descriptor in handed:
        os.close(descriptor)
    try:
        yield
    finally:
        assert host.stdin is not None
        host.stdin.close()
        try:
            host.wait(10)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait()


class RunHost:
    """Executes the store's runs one after the other: two cores train no faster in parallel."""

    def __init__(self, state: Path, owned: bool, lock: int | None = None) -> None:
        """`lock`: the descriptor of the host's lock, where whoever started us has taken it for us."""
        self._store = RunStore(state)
        self._owned = owned
        self._inherited = lock
        if lock is not None:
            os.set_inheritable(lock, False)
        self._stop = False
        self._child = 0

    def serve(self) -> None:
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while not self._ended():
            lock, self._inherited = self._inherited, None
            if lock is None:
                lock = host_lock(self._store.state)
            if lock is None:
                if not self._owned:
                    return
                time.sleep(_POLL_SECONDS)  # an idle host of nobody's is about to end; an owner wants its own
                continue
            try:
                self._serve_as_the_only_one()
            finally:
                os.close(lock)
            if not self._owned and not self._store.unfinished():  # looked at once more: a submitter may have seen our lock just before
                return

    def _serve_as_the_only_one(self) -> None:
        self._store.take_up()
        state = self._store.state
        with contextlib.ExitStack() as stack:
            servers = stack.enter_context(StepServers(state / "runs" / "servers", step_variables(state))) if WARM_BY_DEFAULT else None
            _start(servers)
            from pipelines.runners import local  # noqa: F401  heavy: while the step server starts, and before the fork
            from pipelines.runners.cache import tree_version

            code = tree_version()
            idle_since = time.monotonic()
            while not self._ended():
                run = self._store.take()
                if run is not None:
                    if (now := tree_version()) != code:  # a server holds the code that it imported
                        code = now
                        if servers is not None:
                            servers.close()
                        _start(servers)
                    self._execute(run, servers)
                    idle_since = time.monotonic()
                elif not self._owned and time.monotonic() - idle_since > _IDLE_SECONDS:
                    return
                else:
                    self._wait()

    def _execute(self, run: Run, servers: StepServers | None) -> None:
        self._child = os.fork()
        if self._child == 0:
            code = 1
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                die_with_parent()
                if servers is not None:
                    servers.disown()
                execute(self._store, run, servers, WrittenProgress(progress_file(self._store.state, run.id)))
                code = 0
            except CrisplineError:
                code = 0  # recorded; it is the run that failed, not its process
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        while True:
            pid, status = os.waitpid(self._child, os.WNOHANG)
            if pid:
                break
            if self._ended():
                os.kill(self._child, signal.SIGKILL)
                os.waitpid(self._child, 0)
                return  # the store still says running: the next host takes it up
            self._wait()
        self._store.finish(run.id, "failed", error=f"the run's process ended without a result (exit code {os.waitstatus_to_exitcode(status)})")

    def _wait(self) -> None:
        if self._owned:
            select.select([sys.stdin], [], [], _POLL_SECONDS)
        else:
            time.sleep(_POLL_SECONDS)

    def _ended(self) -> bool:
        if self._owned and not self._stop and select.select([sys.stdin], [], [], 0)[0] and not os.read(sys.stdin.fileno(), 1):
            self._stop = True
        return self._stop

    def _on_stop(self, *_: object) -> None:
        self._stop = True


def _start(servers: StepServers | None) -> None:
    """Started by the host, the step servers outlive its runs and keep what they have imported."""
    for environment in STEP_ENVIRONMENTS if servers is not None else ():
        assert servers is not None
        servers.start(environment)


def execute(store: RunStore, run: Run, servers: StepServers | None, progress: Progress) -> RunResult:
    """Run one row to its end and record what came of it. Raises what `run_pipeline` raises, recorded too."""
    from pipelines.runners.local import run_pipeline

    try:
        result = run_pipeline(run.pipeline, run.parameters, store.state, run.id, progress=progress, servers=servers)
    except CrisplineError as error:
        store.finish(run.id, "failed", error=str(error))
        raise
    except KeyboardInterrupt:
        store.finish(run.id, "failed", error="interrupted")
        raise
    except Exception:
        store.finish(run.id, "failed", error=traceback.format_exc())
        raise
    said = {
        "outputs": dict(result.outputs),
        "artifacts": {step: {name: str(path) for name, path in each.items()} for step, each in result.artifacts.items()},
        "seconds": dict(result.seconds),
        "imports": {step.name: step.imports_seconds for step in result.steps},
        "cached": [step.name for step in result.steps if step.cached],
    }
    store.finish(run.id, "duplicate" if result.outputs.get("claim") == "duplicate" else "succeeded", said)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("--owned", action="store_true", help="end with the standard input")
    parser.add_argument("--lock", type=int, default=None, help="inherited descriptor of the host's lock")
    given = parser.parse_args()
    RunHost(given.state, given.owned, given.lock).serve()
