"""A run on Kubeflow Pipelines as somebody watches it: its steps as they start and end, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from components.contracts.errors import CrisplineError
from components.contracts.runs import FINISHED, RunState
from pipelines.runners.kubeflow_api import PipelinesSilent
from pipelines.runners.kubeflow_runs import KubeflowRuns
from pipelines.runners.progress import Progress

POLL_SECONDS: Final = 3.0
MOST_SILENCES: Final = 20  # in a row; an API server that restarts is away for less than a minute
_FAILED: Final = ("FAILED", "CANCELED")
_ENDED: Final = ("SUCCEEDED", *_FAILED)
_SEEN: Final = ("RUNNING", *_ENDED)  # not what waits, was left out by a condition, or is not reached after a failure
# Argo's task inside the template that runs a step's container: skipped when the driver found the step's outputs in the cache.
_EXECUTOR: Final = "executor"


@dataclass(frozen=True)
class StepState:
    """One step of a run. `seconds`: wall time so far or in all; `cached`: its outputs came from an earlier run."""

    name: str
    state: str
    seconds: float
    cached: bool
    error: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a run. `error`: Kubeflow Pipelines' own words, empty without any; `failed`: the steps that failed."""

    id: str
    state: RunState
    error: str
    steps: Sequence[StepState]

    @property
    def failed(self) -> Sequence[StepState]:
        return [step for step in self.steps if step.state in _FAILED]


@dataclass
class Follower:
    """Tells a Progress of what changed since the last look."""

    progress: Progress
    _told: dict[str, str] = field(default_factory=dict)

    def look(self, steps: Sequence[StepState]) -> None:
        for step in steps:
            before, now = self._told.get(step.name), step.state
            if before is None:
                self.progress.started(step.name)
            if now != before and now in _ENDED:
                if now in _FAILED:
                    self.progress.failed(step.name, step.seconds)
                else:
                    self.progress.finished(step.name, step.seconds, step.cached)
            self._told[step.name] = now


def follow(runs: KubeflowRuns, id: str, progress: Progress, timeout: float, sleep: Callable[[float], None] = time.sleep) -> Outcome:
    """Wait for a run's end, telling `progress` of its steps. A restart of the API server is waited for.

    Raises CrisplineError when the run has not ended within `timeout` seconds (it goes on), or the API stays away.
    """
    deadline = time.monotonic() + timeout
    follower, silences = Follower(progress), 0
    while True:
        try:
            found = runs.details(id)
            silences = 0
        except PipelinesSilent:
            silences += 1
            if silences > MOST_SILENCES:
                raise
            sleep(POLL_SECONDS)
            continue
        steps = steps_of(found, runs.step_names(found))
        follower.look(steps)
        state = runs.state(found)
        if state in FINISHED:
            return Outcome(id, state, str(found.error.message or "") if found.error else "", steps)
        if time.monotonic() > deadline:
            raise CrisplineError(f"run {id} has not ended within {timeout:.0f} s; it goes on: {runs.link(id)}")
        sleep(POLL_SECONDS)


def steps_of(run: Any, names: Container[str]) -> list[StepState]:
    """The steps among a run's tasks (Argo's nodes), in order of their start; a step that ran several times is numbered from its second on.

    `names`: the tasks that are steps, as Kubeflow Pipelines' compiler named them; the other nodes are drivers, groups and containers.
    """
    tasks = list((run.run_details and run.run_details.task_details) or ())
    by_node = {_node(task.pod_name): task for task in tasks if task.pod_name}
    found: list[StepState] = []
    times: dict[str, int] = {}
    for task in sorted((task for task in tasks if task.display_name in names and task.state in _SEEN), key=_start):
        number = times[task.display_name] = times.get(task.display_name, 0) + 1
        name = str(task.display_name).replace("-", "_")
        found.append(
            StepState(
                name=name if number == 1 else f"{name}-{number}",
                state=str(task.state),
                seconds=_seconds(task),
                cached=any(child.display_name == _EXECUTOR and child.state == "SKIPPED" for child in _children(task, by_node)),
                error=str(task.error.message or "") if task.error else "",
            )
        )
    return found


def _children(task: Any, by_node: Mapping[str, Any]) -> Iterator[Any]:
    for child in task.child_tasks or ():
        if child.pod_name and _node(child.pod_name) in by_node:
            yield by_node[_node(child.pod_name)]


def _node(pod: str) -> str:
    """The hash by which Argo tells nodes apart: a task bears its pod's name (workflow, template, hash), its parent the node's (workflow, hash)."""
    return pod.rsplit("-", 1)[-1]


def _start(task: Any) -> tuple[bool, datetime | str]:
    return (task.start_time is None, task.start_time or "")


def _seconds(task: Any) -> float:
    if task.start_time is None:
        return 0.0
    end = task.end_time
    if end is None or end < task.start_time:  # Argo's zero time stands for an end that has not come
        return 0.0
    return float((end - task.start_time).total_seconds())
