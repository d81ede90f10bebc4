"""`crispline submit <pipeline> --env dev`: compile, upload what changed, start a run, follow it, say what came of it and where to look."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from components.contracts.durations import parse_moment
from components.contracts.errors import CrisplineError, StepFailed
from components.contracts.records import Record, RecordKind, RecordStore
from components.contracts.relative_moments import absolute_moment
from components.contracts.runs import FINISHED, Run
from pipelines.commands.kubeflow import Target, arguments, chosen, target, upload
from pipelines.commands.reporting import end_with
from pipelines.runners.kubeflow_api import PipelinesSilent
from pipelines.runners.kubeflow_follow import Outcome, follow
from pipelines.runners.kubeflow_runs import KubeflowRuns, PipelineVersion
from pipelines.runners.progress import progress_for_stderr

_CAUSED = ("training", "retraining")
_DECISIONS: tuple[RecordKind, ...] = ("feasibility", "gates", "promotion", "run")


def submit(request: Mapping[str, Any]) -> int:
    """`request`: pipeline, usecase, environment, parameters (as_of, start, end, cause and the pipeline's own), follow, timeout in seconds.

    Prints the result, as JSON where stdout is no terminal. Raises StepFailed when the run failed.
    """
    pipeline, usecase = chosen(request["pipeline"]), request["usecase"]
    with target(request["environment"]) as to:
        parameters = definite(arguments(pipeline, usecase, request["environment"], request["parameters"]), datetime.now(UTC))
        if pipeline in _CAUSED:
            parameters.setdefault("cause", f"{pipeline}-{parameters.get('as_of', '')}")
            parameters = {**what_is_known(to, usecase, parameters.get("as_of", "")), **parameters}
        version = upload(to, pipeline, usecase)
        run = start(to.runs, version, run_name(pipeline, parameters), parameters)
        print(f"run {run.id}: {to.runs.link(run.id)}", file=sys.stderr, flush=True)
        if not request["follow"]:
            say(to, version, run, None, [])
            return 0
        outcome = follow(to.runs, run.id, progress_for_stderr(), request["timeout"])
        say(to, version, run, outcome, decisions(to, usecase, parameters.get("cause", ""), run.id))
    if outcome.state == "failed":
        failed = ", ".join(f"{step.name} ({step.error})" if step.error else step.name for step in outcome.failed)
        raise StepFailed(f"run {run.id} failed{f' at {failed}' if failed else ''}: {outcome.error or 'see the log of the step'}\n    {to.runs.link(run.id)}")
    return 0


def definite(parameters: Mapping[str, str], now: datetime) -> dict[str, str]:
    """Moments that are relative to now become absolute here, so that the run's name and parameters show them; a start `last` is the run's to find."""
    moments = ("as_of", "start", "end", "window_start", "window_end")
    return {name: absolute_moment(value, now) if name in moments and value not in ("", "last") else value for name, value in parameters.items()}


def run_name(pipeline: str, parameters: Mapping[str, str]) -> str:
    """The display name: the cause is in it, or else the moment; the same request has the same name."""
    about = parameters.get("cause") or parameters.get("end") or parameters.get("window_end") or parameters.get("as_of", "")
    return "-".join(part for part in (pipeline.replace("_", "-"), about.removeprefix(f"{pipeline}-")) if part)


def start(runs: KubeflowRuns, version: PipelineVersion, name: str, parameters: Mapping[str, str]) -> Run:
    """The run of that name that has not ended, or a new one. A POST without an answer is looked into before anybody is told that it failed."""
    before = runs.named(name)
    for run in before:
        if run.state not in FINISHED:
            print(f"run {run.id} of that name has not ended; following it instead of starting another", file=sys.stderr, flush=True)
            return run
    try:
        return runs.submit_version(version, name, parameters, parameters.get("cause", ""))
    except PipelinesSilent:
        known = {run.id for run in before}
        made = [run for run in runs.named(name) if run.id not in known]
        if not made:
            raise
        return made[0]


def what_is_known(to: Target, usecase: str, as_of: str) -> dict[str, str]:
    """The data version as of a moment and the champion, where lake and GitOps repository can be read from here: they become the run's parameters.

    A run finds both itself; what cannot be read is left to it, and said.
    """
    from components.contracts.loading import load_usecase
    from components.data_engineering.lake import current_version
    from components.deployment.releases import current_release

    platform, found = to.environment.platform, {}
    try:
        lake = to.reach.path(platform.lake_uri)
        found["data_version"] = current_version(lake, load_usecase(usecase), parse_moment(as_of)).id
    except Exception as error:  # the object store's clients raise errors of their own
        print(f"the data version is left to the run: {_first_line(error)}", file=sys.stderr, flush=True)
    try:
        release = current_release(platform, usecase, platform.environment)
        found["champion"] = release.release if release is not None else ""
    except CrisplineError as error:
        print(f"the champion is left to the run: {_first_line(error)}", file=sys.stderr, flush=True)
    return found


def decisions(to: Target, usecase: str, cause: str, run: str) -> list[Record]:
    """The records of what a run decided; none where the records cannot be read from here, which is said."""
    try:
        store = RecordStore(to.reach.stores.records)
        return [
            record
            for kind in _DECISIONS
            for record in store.list(kind)
            if record.usecase == usecase and (record.lineage.run == run or (cause and record.lineage.cause == cause))
        ]
    except Exception as error:
        print(f"the records cannot be read from here: {_first_line(error)}", file=sys.stderr, flush=True)
        return []


def say(to: Target, version: PipelineVersion, run: Run, outcome: Outcome | None, decided: list[Record]) -> None:
    links = {"run": to.runs.link(run.id)}
    tracking = to.environment.platform.tracking_uri
    if tracking.startswith("http"):
        links["experiments"] = tracking
    for record in decided:
        if record.details.get("pull_request"):
            links["pull_request"] = str(record.details["pull_request"])
    if not sys.stdout.isatty():
        steps = {step.name: {"state": step.state, "seconds": step.seconds, "cached": step.cached} for step in (outcome.steps if outcome else ())}
        state = outcome.state if outcome else run.state
        told = [{"kind": record.kind, "id": record.id, "outcome": record.outcome, "reason": record.reason} for record in decided]
        print(
            json.dumps(
                {
                    "run": run.id,
                    "name": run.name,
                    "version": version.name,
                    "state": state,
                    "parameters": dict(run.parameters),
                    "steps": steps,
                    "decisions": told,
                }
                | {"links": links}
            )
        )
        return
    console = Console(highlight=False)
    console.print(f"{run.name}: {outcome.state if outcome else run.state}")
    for record in decided:
        console.print(f"  {record.kind:<12} {record.outcome:<10} {record.reason}")
    for name, link in links.items():
        console.print(f"  {name:<12} {link}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    end_with(lambda: submit(json.loads(sys.argv[1])))
