"""One replica of the trigger as a process that kills itself where it is told to: `retrain_trigger_process.py STATE OWNER POINT [PORT]`.

With a port it serves HTTP, without one it works once on what is in its store. The runs' rows are real, nothing executes them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.runs import Run
from components.monitoring.retrain_trigger.sqlite_store import SqliteStore
from components.monitoring.retrain_trigger.trigger import Trigger
from pipelines.runners.runs import RunStore

LEASE_SECONDS = 3.0


class Runs:
    """A RunSubmitter over the local run store, without the host that executes runs."""

    def __init__(self, state: Path, point: str = "") -> None:
        self.store, self.point = RunStore(state), point

    def find(self, name: str) -> Run | None:
        die("before_submission", self.point)
        return self.store.find(name)

    def submit(self, name: str, pipeline: str, parameters: Mapping[str, str], cause: str) -> Run:
        if self.point == "during_submission":  # the row is written and not yet committed
            with self.store._connection() as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "INSERT INTO runs (id, name, pipeline, cause, state, parameters, submitted) VALUES ('half', ?, ?, ?, 'pending', ?, 0)",
                    (name, pipeline, cause, json.dumps(dict(parameters))),
                )
                die("during_submission", self.point)
        run = self.store.add(name, pipeline, parameters, cause)
        die("after_submission", self.point)
        return run

    def get(self, id: str) -> Run:
        return self.store.details(id).run

    def list(self, pipeline: str = "", cause: str = "") -> list[Run]:
        return [one.run for one in self.store.list(pipeline, cause)]


class DyingStore(SqliteStore):
    point = ""

    def claim(self, *arguments: Any, **named: Any) -> Any:
        die("after_decision", self.point)
        return super().claim(*arguments, **named)

    def handled(self, id: str) -> None:
        die("after_recording", self.point)
        super().handled(id)


def die(here: str, point: str) -> None:
    if here == point:
        os.kill(os.getpid(), signal.SIGKILL)


def replica(state: Path, owner: str, point: str = "") -> Trigger:
    platform = Platform.embedded(state)
    store = DyingStore(Path(platform.claims_uri.removeprefix("sqlite:///")))
    store.point = point
    return Trigger(load_usecase("flights").config, platform, store, Runs(state, point), owner, LEASE_SECONDS)


if __name__ == "__main__":
    trigger = replica(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
    if len(sys.argv) > 4:
        import uvicorn

        from components.monitoring.retrain_trigger.service import create_app

        uvicorn.run(create_app(trigger, poll_seconds=0.1), host="127.0.0.1", port=int(sys.argv[4]), log_level="warning")
    else:
        print("ready", flush=True)
        sys.stdin.readline()  # so that several replicas start at the same moment
        trigger.work()
