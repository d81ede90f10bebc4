"""What `crispline submit` and `crispline schedule` have in common: a pipeline of a use case, uploaded to the Kubeflow Pipelines of an environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from components.deployment.environment_file import EnvironmentFile, load_environment
from pipelines.commands.choices import WrongUsage
from pipelines.images import step_image_variables
from pipelines.reach import Reach, reached
from pipelines.runners.kubeflow_names import PIPELINES
from pipelines.runners.kubeflow_runs import KubeflowRuns, PipelineVersion


@dataclass(frozen=True)
class Target:
    """An environment's Kubeflow Pipelines as this machine reaches it."""

    environment: EnvironmentFile
    reach: Reach
    runs: KubeflowRuns


@contextmanager
def target(environment: str) -> Iterator[Target]:
    """Reach the Kubeflow Pipelines of an environment for as long as the block lasts. Raises CrisplineError with the remedy."""
    file = load_environment(environment)
    with reached(file) as reach:
        platform = file.platform
        url = reach.url(platform.pipelines_url) if platform.pipelines_url else ""
        here = platform.model_copy(update={"pipelines_url": url, "pipelines_ui_url": platform.pipelines_ui_url or platform.pipelines_url})
        yield Target(file, reach, KubeflowRuns(here))


def upload(to: Target, pipeline: str, usecase: str) -> PipelineVersion:
    """Compile a pipeline with the images of this checkout and upload it unless it is there; says which on stderr."""
    for name, reference in step_image_variables(usecase, to.environment.access.registry).items():
        os.environ.setdefault(name, reference)  # `eval "$(crispline images env --digests)"` pins other ones
    from pipelines.kubeflow_pipeline import build_pipeline
    from pipelines.runners.kubeflow_versions import publish

    built = build_pipeline(pipeline, usecase, to.environment)
    published = publish(to.runs, built.name, built.compiled, built.description)
    print(f"version {published.version.name}: {'uploaded' if published.uploaded else 'there already'}", file=sys.stderr, flush=True)
    return published.version


def chosen(pipeline: str) -> str:
    """The name of a pipeline as the code has it; dashes are as good as underscores. Raises WrongUsage."""
    name = pipeline.replace("-", "_")
    if name not in PIPELINES:
        raise WrongUsage(f"there is no pipeline {pipeline!r}; there are {', '.join(each.replace('_', '-') for each in PIPELINES)}")
    return name


def arguments(pipeline: str, usecase: str, environment: str, given: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a pipeline from what a person or a schedule says: `as_of`, `start` and `end` are called as the pipeline calls them."""
    names = {"start": "window_start", "end": "window_end"} if pipeline == "monitoring" else {}
    found = {"usecase": usecase, **({} if pipeline == "monitoring" else {"environment": environment})}
    found |= {names.get(name, name): value for name, value in given.items()}
    if pipeline == "monitoring":
        found = {"window_start": "", "window_end": "", **found}
    if pipeline in ("batch_scoring", "monitoring") and "as_of" not in found and found.get(names.get("end", "end")):
        found["as_of"] = found[names.get("end", "end")]
    return found
