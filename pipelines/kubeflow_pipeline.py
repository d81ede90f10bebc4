"""One use case's pipeline for Kubeflow Pipelines in one environment: its name, its description, what is compiled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from components.contracts.errors import CrisplineError
from components.deployment.environment_file import ROOT, EnvironmentFile
from pipelines.kubernetes_settings import load_settings
from pipelines.runners.kubeflow_names import PIPELINES, pipeline_name


@dataclass(frozen=True)
class KubeflowPipeline:
    """`name`: in Kubeflow Pipelines. `compiled`: YAML, pipeline and platform specification."""

    name: str
    description: str
    compiled: str


def build_pipeline(pipeline: str, usecase: str, environment: EnvironmentFile, root: Path = ROOT) -> KubeflowPipeline:
    """Compile one of PIPELINES for a use case in an environment.

    The steps' images are those that the process's variables name when this is first called: `pipelines.images.step_image_variables`. Raises
    CrisplineError for an unknown pipeline, InvalidUseCase for settings that break their contract.
    """
    if pipeline not in PIPELINES:
        raise CrisplineError(f"there is no pipeline {pipeline!r}; there are {', '.join(PIPELINES)}")
    from pipelines.on_kubeflow import compile_for_kubeflow, step_names

    known = sorted({step for each in PIPELINES for step in step_names(each)})
    called = pipeline_name(usecase, environment.name, pipeline)
    labels = {
        "app.kubernetes.io/name": "crispline-pipelines",
        "app.kubernetes.io/part-of": "crispline",
        "crispline.io/environment": environment.name,
        "crispline.io/pipeline": pipeline,
        "crispline.io/usecase": usecase,
    }
    compiled = compile_for_kubeflow(pipeline, called, load_settings(environment, usecase, known, root), labels)
    return KubeflowPipeline(called, f"{pipeline.replace('_', ' ').capitalize()} of {usecase} in {environment.name}.", compiled)
