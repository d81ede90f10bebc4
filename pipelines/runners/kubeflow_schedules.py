"""Schedules on Kubeflow Pipelines, changed in place to the user's eye.

The API can create, enable, disable and delete a recurring run, not change it. Deleting one ends its run in progress: the Workflow belongs to the
ScheduledWorkflow, and Kubernetes collects it with its owner. A change is therefore five steps: create the new one disabled, disable the old, wait
for its runs, enable the new, delete the old. No step relies on what an earlier one remembered: each looks at what is there, so that whoever was
killed at any point is finished by running the same command again, and no two are ever enabled.

A schedule is all recurring runs named `<schedule>@<8 hex digits over what it says>`.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import kfp_server_api as server

from components.contracts.errors import CrisplineError
from components.contracts.runs import FINISHED
from pipelines.runners.kubeflow_api import NOT_FOUND, Criterion, PipelinesRefused, PipelinesSilent
from pipelines.runners.kubeflow_cron import kubeflow_cron
from pipelines.runners.kubeflow_runs import STATES, KubeflowRuns, PipelineVersion

POLL_SECONDS: Final = 5.0
# A run that the controller started just before its schedule was disabled stands in the API when the persistence agent has reported it.
SETTLE_SECONDS: Final = 20.0
_SEPARATOR: Final = "@"
_NAME: Final = re.compile(r"(?P<schedule>.+)@(?P<digest>[0-9a-f]{8})")


@dataclass(frozen=True)
class Schedule:
    """What is wanted. `cron`: five fields or a descriptor (`@daily`), read in `time_zone`; parameters may hold relative moments."""

    name: str
    version: PipelineVersion
    cron: str
    time_zone: str
    parameters: Mapping[str, str]

    @property
    def display_name(self) -> str:
        said = json.dumps([self.version.id, self.cron, self.time_zone, sorted(self.parameters.items())])
        return f"{self.name}{_SEPARATOR}{hashlib.sha256(said.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Recurring:
    """A recurring run of a schedule as it is in Kubeflow Pipelines."""

    id: str
    display_name: str
    enabled: bool
    cron: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def schedule(self) -> str:
        return self.display_name.rpartition(_SEPARATOR)[0]


class Schedules:
    """The schedules of one environment. `say` is told, in a sentence, what happens."""

    def __init__(
        self,
        runs: KubeflowRuns,
        time_zone: str,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`time_zone`: that of the installation."""
        self._runs, self._api, self._time_zone = runs, runs.api, time_zone
        self._say, self._sleep = say, sleep

    def found(self, schedule: str = "") -> list[Recurring]:
        """All recurring runs of this environment's schedules, or of one schedule, in order of creation."""
        experiment = self._api.known_experiment_id()
        if experiment is None:
            return []
        where = (Criterion("display_name", schedule + _SEPARATOR, "IS_SUBSTRING"),) if schedule else ()

        def page(**given: Any) -> Any:
            return self._api.recurring_runs.recurring_run_service_list_recurring_runs(experiment_id=experiment, **self._api.namespaced, **given)

        listed = [_recurring(each) for each in self._api.pages(page, "recurring_runs", sort_by="created_at asc", where=where)]
        return [each for each in listed if _NAME.fullmatch(each.display_name) and schedule in ("", each.schedule)]

    def apply(self, wanted: Schedule, timeout: float) -> Recurring:
        """Make the schedule what is wanted, and nothing else of that name; safe to repeat after a crash at any point.

        Raises CrisplineError when the runs of the old one have not ended within `timeout` seconds: then none is enabled, and the same command
        goes on from there.
        """
        new = self._one_of(wanted)
        others = [each for each in self.found(wanted.name) if each.id != new.id]
        if new.enabled and not others:
            self._say(f"schedule {wanted.name} is as wanted")
            return new
        if not new.enabled:
            self._disable(others)
            self._wait_for_runs(others, timeout)
            self._enable_alone(wanted.name, new)
        else:
            self._disable(others)
            self._wait_for_runs(others, timeout)
        self._delete(others)
        return Recurring(new.id, new.display_name, True, new.cron, new.description, new.parameters)

    def remove(self, schedule: str, timeout: float) -> int:
        """Disable, wait for the runs, delete; returns how many recurring runs there were. Raises what `apply` raises."""
        found = self.found(schedule)
        self._disable(found)
        self._wait_for_runs(found, timeout)
        self._delete(found)
        return len(found)

    def _one_of(self, wanted: Schedule) -> Recurring:
        """The recurring run that says what is wanted: an enabled one, else the first, else a new, disabled one."""
        cron = kubeflow_cron(wanted.cron, wanted.time_zone, self._time_zone)
        same = [each for each in self.found(wanted.name) if each.display_name == wanted.display_name]
        if not same:
            self._create(wanted, cron)
            same = [each for each in self.found(wanted.name) if each.display_name == wanted.display_name]
        if not same:
            raise CrisplineError(f"Kubeflow Pipelines at {self._api.url} took schedule {wanted.display_name} and does not list it; look at its log")
        return next((each for each in same if each.enabled), same[0])

    def _create(self, wanted: Schedule, cron: str) -> None:
        reference = server.V2beta1PipelineVersionReference(pipeline_id=wanted.version.pipeline_id, pipeline_version_id=wanted.version.id)
        made = server.V2beta1RecurringRun(
            display_name=wanted.display_name,
            description=f"{wanted.cron} ({wanted.time_zone}), version {wanted.version.name}",
            experiment_id=self._api.experiment_id(),
            pipeline_version_reference=reference,
            runtime_config=self._runs.runtime_config(wanted.version, wanted.parameters),
            trigger=server.V2beta1Trigger(cron_schedule=server.V2beta1CronSchedule(cron=cron)),
            max_concurrency="1",
            no_catchup=True,
            mode=server.RecurringRunMode.DISABLE,
        )
        self._say(f"creating {wanted.display_name}, disabled")
        try:
            self._api.call(self._api.recurring_runs.recurring_run_service_create_recurring_run, made)
        except PipelinesSilent:
            self._say("no answer; looking whether it is there")

    def _disable(self, recurring: Sequence[Recurring]) -> None:
        for each in recurring:
            if each.enabled:
                self._say(f"disabling {each.display_name}")
                self._api.call(self._api.recurring_runs.recurring_run_service_disable_recurring_run, each.id)

    def _wait_for_runs(self, recurring: Sequence[Recurring], timeout: float) -> None:
        """Until none of their runs goes on, looked at once more when what was reported late must be there."""
        if not recurring:
            return
        deadline = time.monotonic() + timeout
        said: set[str] = set()
        settled = False
        while True:
            unfinished = [id for each in recurring for id in self._unfinished(each.id)]
            for id in unfinished:
                if id not in said:
                    self._say(f"waiting for run {id}: {self._runs.link(id)}")
                    said.add(id)
            if not unfinished and settled:
                return
            if time.monotonic() > deadline:
                raise CrisplineError(
                    f"{len(unfinished)} runs have not ended within {timeout:.0f} s; no schedule is enabled now. Repeat the command: it goes on from here"
                )
            settled = not unfinished
            self._sleep(SETTLE_SECONDS if settled else POLL_SECONDS)

    def _unfinished(self, recurring_run: str) -> list[str]:
        runs = self._api.runs.run_service_list_runs

        def page(**given: Any) -> Any:
            return runs(**self._api.namespaced, **given)

        where = (Criterion("recurring_run_id", recurring_run),)
        found = self._api.pages(page, "runs", sort_by="created_at desc", where=where)
        return [str(run.run_id) for run in found if STATES.get(str(run.state), "pending") not in FINISHED]

    def _enable_alone(self, schedule: str, new: Recurring) -> None:
        """Enable `new` if no other is: somebody else may have changed the schedule while we waited."""
        self._refuse_others(schedule, new)
        self._say(f"enabling {new.display_name}")
        self._api.call(self._api.recurring_runs.recurring_run_service_enable_recurring_run, new.id)
        try:
            self._refuse_others(schedule, new)
        except CrisplineError:
            self._api.call(self._api.recurring_runs.recurring_run_service_disable_recurring_run, new.id)
            raise

    def _refuse_others(self, schedule: str, new: Recurring) -> None:
        others = [each.display_name for each in self.found(schedule) if each.enabled and each.id != new.id]
        if others:
            raise CrisplineError(
                f"somebody else enabled {', '.join(others)} meanwhile; {new.display_name} stays disabled. Agree on one, and repeat the command"
            )

    def _delete(self, recurring: Sequence[Recurring]) -> None:
        for each in recurring:
            self._say(f"deleting {each.display_name}")
            try:
                self._api.call(self._api.recurring_runs.recurring_run_service_delete_recurring_run, each.id)
            except PipelinesRefused as error:
                if error.status != NOT_FOUND:
                    raise


def _recurring(found: Any) -> Recurring:
    trigger = found.trigger and found.trigger.cron_schedule
    return Recurring(
        id=str(found.recurring_run_id),
        display_name=str(found.display_name),
        enabled=str(found.status) == "ENABLED",
        cron=str(trigger.cron) if trigger else "",
        description=str(found.description or ""),
        parameters=dict((found.runtime_config and found.runtime_config.parameters) or {}),
    )
