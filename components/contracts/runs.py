"""Pipeline runs as the retrain trigger sees them: found by name, submitted, followed.

A run's name is chosen by whoever submits it and carries the cause's id, because the platforms' own APIs are not idempotent (Kubeflow
Pipelines makes a new run for every POST): who crashed between submitting and recording finds the run again by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

RunState = Literal["pending", "running", "succeeded", "failed", "duplicate"]
FINISHED: frozenset[RunState] = frozenset(("succeeded", "failed", "duplicate"))


@dataclass(frozen=True)
class Run:
    """One run of a pipeline. `id` is the platform's own and unique; `name` may repeat, then at most one run is effective.

    `duplicate`: the run's first step found that another run holds the cause's claim, and ended it without effects.
    """

    id: str
    name: str
    pipeline: str
    cause: str
    state: RunState
    parameters: Mapping[str, str] = field(default_factory=dict)


class RunSubmitter(Protocol):
    """Where runs live: the local run store embedded, Kubeflow Pipelines in a cluster."""

    def find(self, name: str) -> Run | None:
        """The run of that name; of several the one submitted first; None when there is none."""
        ...

    def submit(self, name: str, pipeline: str, parameters: Mapping[str, str], cause: str) -> Run:
        """Make a durable run in state `pending` and return it before it has done any work. Does not look for the name: see `find`."""
        ...

    def get(self, id: str) -> Run:
        """Raises CrisplineError for an unknown id."""
        ...

    def list(self, pipeline: str = "", cause: str = "") -> list[Run]:
        """Runs in order of submission, narrowed by pipeline and cause where given."""
        ...
