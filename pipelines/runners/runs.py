"""The durable store of runs on this machine, and the submitter over it: what Kubeflow Pipelines is in a cluster.

A submitted run is a row in `<state>/runs/runs.sqlite` before anything else happens. The run host (pipelines/runners/run_host.py) executes
rows; it is a process of its own, so that a run survives its submitter, and it starts when it is needed. A run whose host died is taken up
again by the next host; its steps' cache lets it go on where it stopped. Times in the store are wall time: they tell of processes, not of data.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from components.contracts.errors import CrisplineError
from components.contracts.runs import FINISHED, Run, RunState
from pipelines.runners.environments import ROOT, interpreter, step_variables
from pipelines.runners.progress import FollowedProgress, Progress, Silent

MOST_ATTEMPTS = 3  # a run that killed its host this often is broken, not unlucky

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    cause TEXT NOT NULL,
    state TEXT NOT NULL,
    parameters TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    submitted REAL NOT NULL,
    started REAL,
    finished REAL,
    result TEXT NOT NULL DEFAULT '{}',
    error TEXT NOT NULL DEFAULT '',
    executor INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS runs_by_name ON runs (name);
"""


@dataclass(frozen=True)
class RunDetails:
    """A run with what became of it. `result`: outputs, artifacts and seconds by step, once it succeeded; `error`: why it failed. Times are
    seconds since the epoch, 0 for what has not happened."""

    run: Run
    attempts: int
    submitted: float
    started: float
    finished: float
    result: Mapping[str, Any]
    error: str


class RunStore:
    """The rows alone; starts nothing. Safe for several processes and threads."""

    def __init__(self, state: Path) -> None:
        self.state = state.resolve()
        self.folder = self.state / "runs"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.executescript("PRAGMA journal_mode = WAL;" + _SCHEMA)

    def add(self, name: str, pipeline: str, parameters: Mapping[str, str], cause: str) -> Run:
        run = Run(id=uuid.uuid4().hex[:12], name=name, pipeline=pipeline, cause=cause, state="pending", parameters=dict(parameters))
        self._insert(run, executor=0)
        return run

    def begin(self, name: str, pipeline: str, parameters: Mapping[str, str], cause: str) -> Run:
        """A run that this process itself executes: running at once, out of every host's reach."""
        run = Run(id=uuid.uuid4().hex[:12], name=name, pipeline=pipeline, cause=cause, state="running", parameters=dict(parameters))
        self._insert(run, executor=os.getpid())
        return run

    def find(self, name: str) -> Run | None:
        found = self._select("WHERE name = ?", (name,))
        return found[0].run if found else None

    def details(self, id: str) -> RunDetails:
        """Raises CrisplineError for an unknown id."""
        found = self._select("WHERE id = ?", (id,))
        if not found:
            raise CrisplineError(f"there is no run {id} under {self.folder}")
        return found[0]

    def list(self, pipeline: str = "", cause: str = "") -> Sequence[RunDetails]:
        return self._select("WHERE (? = '' OR pipeline = ?) AND (? = '' OR cause = ?)", (pipeline, pipeline, cause, cause))

    def take(self) -> Run | None:
        """The pending run submitted first, now running; None when nothing is pending."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute("SELECT id FROM runs WHERE state = 'pending' ORDER BY sequence LIMIT 1").fetchone()
            if row is None:
                return None
            connection.execute("UPDATE runs SET state = 'running', attempts = attempts + 1, started = ? WHERE id = ?", (time.time(), row["id"]))
        return self.details(row["id"]).run

    def take_up(self) -> None:
        """Called by a new host: what ran when the last one died becomes pending again, or failed when that happened too often."""
        with self._connection() as connection:
            connection.execute(
                "UPDATE runs SET state = 'failed', finished = ?, error = ? WHERE state = 'running' AND executor = 0 AND attempts >= ?",
                (time.time(), f"the run's process ended {MOST_ATTEMPTS} times without a result", MOST_ATTEMPTS),
            )
            connection.execute("UPDATE runs SET state = 'pending' WHERE state = 'running' AND executor = 0")
            for row in connection.execute("SELECT id, executor FROM runs WHERE state = 'running' AND executor != 0").fetchall():
                if not _alive(row["executor"]):
                    connection.execute(
                        "UPDATE runs SET state = 'failed', finished = ?, error = ? WHERE id = ?",
                        (time.time(), "the process that executed it was killed", row["id"]),
                    )

    def finish(self, id: str, state: RunState, result: Mapping[str, Any] | None = None, error: str = "") -> None:
        """Record a run's end; a run that has one keeps it."""
        if state not in FINISHED:
            raise ValueError(f"{state} is no end of a run")
        with self._connection() as connection:
            connection.execute(
                "UPDATE runs SET state = ?, finished = ?, result = ?, error = ? WHERE id = ? AND state = 'running'",
                (state, time.time(), json.dumps(result or {}, sort_keys=True), error, id),
            )

    def unfinished(self) -> bool:
        """Whether a host has anything to do."""
        return bool(self._select("WHERE state IN ('pending', 'running') AND executor = 0", ()))

    def _insert(self, run: Run, executor: int) -> None:
        now = time.time()
        with self._connection() as connection:
            connection.execute(
                "INSERT INTO runs (id, name, pipeline, cause, state, parameters, submitted, started, executor) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (run.id, run.name, run.pipeline, run.cause, run.state, json.dumps(run.parameters, sort_keys=True), now, now if executor else None, executor),
            )

    def _select(self, where: str, values: tuple[object, ...]) -> Sequence[RunDetails]:
        with self._connection() as connection:
            return [_details(row) for row in connection.execute(f"SELECT * FROM runs {where} ORDER BY sequence", values)]  # noqa: S608  `where` is ours

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.folder / "runs.sqlite", timeout=30, isolation_level=None)
        connection.row_factory = sqlite3.Row
        try:
            yield connection
            if connection.in_transaction:
                connection.commit()
        finally:
            connection.close()


class LocalRuns:
    """The RunSubmitter of this machine: the store, and a host that executes it."""

    def __init__(self, state: Path) -> None:
        self.store = RunStore(state)

    def find(self, name: str) -> Run | None:
        run = self.store.find(name)
        if run is not None and run.state not in FINISHED:
            ensure_host(self.store.state)
        return run

    def submit(self, name: str, pipeline: str, parameters: Mapping[str, str], cause: str) -> Run:
        run = self.store.add(name, pipeline, parameters, cause)
        ensure_host(self.store.state)
        return run

    def get(self, id: str) -> Run:
        run = self.store.details(id).run
        if run.state not in FINISHED:
            ensure_host(self.store.state)
        return run

    def list(self, pipeline: str = "", cause: str = "") -> list[Run]:
        return [details.run for details in self.store.list(pipeline, cause)]

    def wait(self, id: str, timeout: float = 3600.0, progress: Progress | None = None) -> RunDetails:
        """Block until the run has ended, telling `progress` of its steps. Raises CrisplineError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        followed = FollowedProgress(progress_file(self.store.state, id), progress or Silent())
        while time.monotonic() < deadline:
            ended = self.get(id).state in FINISHED
            followed.look()
            if ended:
                return self.store.details(id)
            time.sleep(0.1)
        raise CrisplineError(f"run {id} has not ended within {timeout:.0f} s; see {self.store.folder / id}")


def local_runs(state: Path) -> LocalRuns:
    """Where runs live on this machine; `state` is the installation's state folder."""
    return LocalRuns(state)


def progress_file(state: Path, id: str) -> Path:
    """Where a run executed by the host writes the events of its steps."""
    return state / "runs" / id / "progress.jsonl"


def host_lock(state: Path) -> int | None:
    """The descriptor that makes its holder the state's only run host; None when another process holds it."""
    descriptor = os.open(state / "runs" / "host.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def ensure_host(state: Path) -> None:
    """Start the run host unless one is there. It outlives this process and ends when it has had nothing to do for a while.

    The host inherits the lock that we take here: there is no moment at which a second caller would start a second host.
    """
    lock = host_lock(state)
    if lock is None:
        return
    try:
        with (state / "runs" / "host.log").open("ab") as log:
            subprocess.Popen(
                [str(interpreter("pipeline")), "-m", "pipelines.runners.run_host", str(state), "--lock", str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **step_variables(state)},
                cwd=ROOT,
                start_new_session=True,
                pass_fds=(lock,),
            )
    finally:
        os.close(lock)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _details(row: sqlite3.Row) -> RunDetails:
    if row["state"] not in get_args(RunState):
        raise CrisplineError(f"run {row['id']} has the unknown state {row['state']!r}; was the store written by a later version?")
    run = Run(
        id=row["id"],
        name=row["name"],
        pipeline=row["pipeline"],
        cause=row["cause"],
        state=cast(RunState, row["state"]),
        parameters=json.loads(row["parameters"]),
    )
    return RunDetails(
        run=run,
        attempts=row["attempts"],
        submitted=row["submitted"],
        started=row["started"] or 0.0,
        finished=row["finished"] or 0.0,
        result=json.loads(row["result"]),
        error=row["error"],
    )
