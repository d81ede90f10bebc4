"""`python -m pipelines.runners.scheduled_run`: one occurrence of a schedule of charts/platform starts its run in Kubeflow Pipelines, and ends.

A CronJob calls it with the name of its Job as `--occurrence`. That becomes the run's name, so that a Job that is tried again, because a pod
died or no answer came, finds the run that it has started. While the run of an earlier occurrence has not ended, nothing is started: the
next one takes all that became known since.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.runs import FINISHED, Run, RunSubmitter
from pipelines.commands.kubeflow import arguments as pipeline_arguments
from pipelines.commands.kubeflow import chosen
from pipelines.commands.reporting import end_with
from pipelines.runners.kubeflow_runs import KubeflowRuns

PREFIX = "crispline-"


def start_once(runs: RunSubmitter, schedule: str, occurrence: str, pipeline: str, parameters: Mapping[str, str]) -> tuple[Run, str]:
    """The run that stands for this occurrence and what was done: `started`, `found`, or `busy` with the run of an earlier one.

    `occurrence`: `crispline-<schedule>-<anything>`. Raises CrisplineError when Kubeflow Pipelines refuses, or does not answer (a run may exist then).
    """
    stem, name = f"{schedule}-", occurrence.removeprefix(PREFIX)
    if not name.startswith(stem):
        raise CrisplineError(f"--occurrence is {occurrence!r}; it must be the name of the schedule's Job, {PREFIX}{stem}...")
    found = runs.find(name)
    if found is not None:
        return found, "found"
    for run in runs.list(pipeline):
        if run.name.startswith(stem) and run.state not in FINISHED:
            return run, "busy"
    return runs.submit(name, pipeline, parameters, parameters.get("cause", "")), "started"


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scheduled-run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("schedule", "occurrence", "usecase", "pipeline"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="of the pipeline; moments may be relative: now-1d/d")
    options = parser.parse_args(given)
    absent = [each for each in options.parameter if "=" not in each]
    if absent:
        parser.error(f"--parameter {absent[0]!r} is not <name>=<value>")
    platform, pipeline = Platform.load(), chosen(options.pipeline)
    parameters = pipeline_arguments(pipeline, options.usecase, platform.environment, dict(each.split("=", 1) for each in options.parameter))
    runs = KubeflowRuns(platform)
    run, done = start_once(runs, options.schedule, options.occurrence, pipeline, parameters)
    said = {"started": "started", "found": "was started by an earlier try", "busy": "has not ended; nothing is started"}[done]
    print(f"run {run.name} ({run.id}) {said}: {runs.link(run.id)}", flush=True)
    return 0


if __name__ == "__main__":
    end_with(lambda: main(sys.argv[1:]))
