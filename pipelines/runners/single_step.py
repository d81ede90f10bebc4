"""One component by itself, as kfp.local would run it in a pipeline, on artifacts that already exist."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.compiler import pipeline_spec_builder  # noqa: F401  executor_input_utils needs it imported first
from kfp.local import executor_input_utils, executor_output_utils, placeholder_utils
from kfp.local.subprocess_task_handler import replace_python_executable

from components.contracts.errors import StepFailed
from components.environments.names import environment_of_image
from pipelines.runners.environments import interpreter, step_variables
from pipelines.runners.failures import failure_of_log
from pipelines.runners.progress import Progress


@dataclass(frozen=True)
class PreparedStep:
    """A component with its arguments filled in: `command` is what its container runs, as Kubeflow Pipelines' launcher would fill it in."""

    name: str
    image: str
    command: list[str]
    executor_input: Any
    component_spec: Any


def prepare_step(component: Any, arguments: Mapping[str, Any], folder: Path) -> PreparedStep:
    """Fill in the placeholders of a component's command. `arguments`: parameters, and artifacts as paths; outputs will lie in `folder`, which is not touched."""
    spec = component.pipeline_spec
    label, component_spec = next(iter(spec.components.items()))
    container = spec.deployment_spec["executors"][component_spec.executor_label]["container"]
    name = label.removeprefix("comp-").replace("-", "_")
    executor_input = executor_input_utils.construct_executor_input(
        component_spec=component_spec,
        arguments={key: dsl.Artifact(name=key, uri=str(value)) if isinstance(value, Path) else value for key, value in arguments.items()},
        task_root=str(folder),
        block_input_artifact=False,
    )
    for key, definition in component_spec.input_definitions.artifacts.items():
        executor_input.inputs.artifacts[key].artifacts[0].type.CopyFrom(definition.artifact_type)
    command = placeholder_utils.replace_placeholders(
        full_command=[*container["command"], *container["args"]],
        executor_input_dict=executor_input_utils.executor_input_to_dict(executor_input, component_spec),
        pipeline_resource_name="step",
        task_resource_name=name,
        pipeline_root=str(folder),
        unique_pipeline_id="step",
    )
    return PreparedStep(name, container["image"], command, executor_input, component_spec)


def run_single_step(component: Any, arguments: Mapping[str, Any], folder: Path, state: Path, progress: Progress) -> dict[str, Any]:
    """Run `component` in the environment of its image; returns its outputs: parameters by name and artifacts as paths.

    `arguments`: parameters, and artifacts as paths. Outputs and the log lie in `folder`. Raises StepFailed with the step's traceback.
    """
    prepared = prepare_step(component, arguments, folder)
    name = prepared.name
    folder.mkdir(parents=True)
    log = folder / "step.log"
    progress.started(name)
    began = time.monotonic()
    with log.open("wb") as output:
        python = interpreter(environment_of_image(prepared.image))
        code = subprocess.run(
            replace_python_executable(prepared.command, str(python)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **step_variables(state)},
            cwd=folder,
            check=False,
        ).returncode
    seconds = time.monotonic() - began
    if code != 0:
        progress.failed(name, seconds)
        raise StepFailed(failure_of_log(name, log))
    progress.finished(name, seconds, cached=False)
    outputs = executor_output_utils.get_outputs_for_task(executor_input=prepared.executor_input, component_spec=prepared.component_spec)
    return {key: Path(value.path) if isinstance(value, dsl.Artifact) else value for key, value in outputs.items()}
