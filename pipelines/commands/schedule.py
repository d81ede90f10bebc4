"""`crispline schedule`: a pipeline at its times, changed in place; what is scheduled; a schedule taken away."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.commands.choices import WrongUsage
from pipelines.commands.kubeflow import Target, arguments, chosen, target, upload
from pipelines.commands.reporting import end_with
from pipelines.runners.kubeflow_cron import kubeflow_cron
from pipelines.runners.kubeflow_names import pipeline_name
from pipelines.runners.kubeflow_schedules import Recurring, Schedule, Schedules

# What a schedule asks for unless it is told otherwise: moments relative to each run's start. A run's cause follows from its moment.
DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "data": {"start": "last", "end": "now"},
    "training": {"as_of": "now", "cause": ""},
    "batch_scoring": {"start": "now-1d/d", "end": "now/d"},
    "monitoring": {"as_of": "now"},
}


def schedule(request: Mapping[str, Any]) -> int:
    """`request`: action (apply, list, remove), pipeline, usecase, environment, name, cron, time_zone, parameters, timeout in seconds."""
    with target(request["environment"]) as to:
        schedules = Schedules(to.runs, to.environment.platform.pipelines_time_zone, lambda said: print(said, file=sys.stderr, flush=True))
        match request["action"]:
            case "list":
                return show(schedules.found())
            case "remove":
                name = schedule_name(request)
                found = schedules.remove(name, request["timeout"])
                print(f"schedule {name}: {'removed' if found else 'there was none'}")
                return 0
        return apply(to, schedules, request)


def apply(to: Target, schedules: Schedules, request: Mapping[str, Any]) -> int:
    pipeline = schedulable(request["pipeline"])
    zone = request["time_zone"] or to.environment.platform.pipelines_time_zone
    kubeflow_cron(request["cron"], zone, to.environment.platform.pipelines_time_zone)  # refused before anything is uploaded
    parameters = arguments(pipeline, request["usecase"], request["environment"], {**DEFAULTS[pipeline], **request["parameters"]})
    version = upload(to, pipeline, request["usecase"])
    made = schedules.apply(Schedule(schedule_name(request), version, request["cron"], zone, parameters), request["timeout"])
    print(f"schedule {made.schedule}: {made.description}")
    return 0


def schedulable(pipeline: str) -> str:
    """Raises WrongUsage for retraining: a schedule has no cause of its own, and a second run of one cause is a duplicate."""
    name = chosen(pipeline)
    if name not in DEFAULTS:
        raise WrongUsage(f"{pipeline} is started by the retrain trigger for a cause; schedule training instead")
    return name


def schedule_name(request: Mapping[str, Any]) -> str:
    """The pipeline's name in Kubeflow Pipelines, with the schedule's own behind it where a pipeline has several."""
    name = pipeline_name(request["usecase"], request["environment"], schedulable(request["pipeline"]))
    return f"{name}-{request['name']}" if request["name"] else name


def show(found: list[Recurring]) -> int:
    said = [
        {"schedule": each.schedule, "enabled": each.enabled, "said": each.description, "cron": each.cron, "id": each.id, "parameters": dict(each.parameters)}
        for each in found
    ]
    if not sys.stdout.isatty():
        print(json.dumps(said))
        return 0
    table = Table("schedule", "enabled", "cron (time zone), version", "parameters", box=None, pad_edge=False)
    for each in found:
        table.add_row(each.schedule, "yes" if each.enabled else "no", each.description, " ".join(f"{name}={value}" for name, value in each.parameters.items()))
    console = Console(highlight=False)
    console.print(table if found else "nothing is scheduled")
    enabled = {each.schedule for each in found if each.enabled}
    for name in sorted({each.schedule for each in found} - enabled):
        console.print(f"{name}: a change was not finished, and nothing runs; repeat the command that made it, or remove the schedule")
    return 0


if __name__ == "__main__":
    end_with(lambda: schedule(json.loads(sys.argv[1])))
