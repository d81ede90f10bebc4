"""The pipelines as Kubeflow Pipelines runs them: the same functions, between a first step that makes the request definite and an exit task.

On this machine neither is needed: the command line gives absolute moments, the runner knows how a run ended. On Kubeflow Pipelines a schedule
can only give constants, so a run itself turns `now-1d/d` into a moment; and nobody waits for its end, so it tells of it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from kfp import compiler, dsl, kubernetes
from kfp.dsl import pipeline_task
from kfp.dsl.pipeline_context import Pipeline

from components.contracts.errors import CrisplineError
from components.contracts.platform import PLATFORM_VARIABLE
from components.data_engineering.request_component import resolve_request
from components.monitoring.run_component import notify
from pipelines.caching import always
from pipelines.kubernetes_settings import KubernetesSettings, StepSettings

# Which parameter of a pipeline is which part of the request. Retraining is missing on purpose: the trigger gives absolute moments, and its
# first step must be the claim.
REQUESTS: Final[Mapping[str, Mapping[str, str]]] = {
    "data": {"start": "start", "end": "end"},
    "training": {"as_of": "as_of", "cause": "cause"},
    "retraining": {},
    "batch_scoring": {"as_of": "as_of", "start": "start", "end": "end"},
    "monitoring": {"as_of": "as_of", "start": "window_start", "end": "window_end"},
}
RUN = "run"  # the parameter that holds the run's own id; Kubeflow Pipelines knows it only when the run is there
EXIT_NAME = "run"
PLATFORM_FOLDER: Final = "/etc/crispline"
SCRATCH_VOLUME: Final = "crispline-scratch"


def pipeline_function(name: str) -> Callable[..., None]:
    """The building function of one of the pipelines for Kubeflow Pipelines: the same parameters, without `run`."""
    inner = importlib.import_module(f"pipelines.{name}").pipeline.pipeline_func
    given = inspect.signature(inner).parameters
    kept = [each for each in given.values() if each.name != RUN]
    wanted = REQUESTS[name]

    @functools.wraps(inner)
    def build(*values: Any) -> None:
        channels = {each.name: value for each, value in zip(kept, values, strict=True)}
        cause = channels.get("cause", "")
        about = {"usecase": channels["usecase"], "pipeline": name, "created": dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER}
        moment = channels.get("as_of", channels.get("end"))
        told = always(notify(**about, run=dsl.PIPELINE_JOB_ID_PLACEHOLDER, as_of=moment, cause=cause))
        with dsl.ExitHandler(told, name=EXIT_NAME):
            definite = dict(channels)
            if wanted:
                request = always(resolve_request(**about, **{part: channels[parameter] for part, parameter in wanted.items()}))
                definite.update({parameter: request.outputs[part] for part, parameter in wanted.items()})
            if RUN in given:
                definite[RUN] = dsl.PIPELINE_JOB_ID_PLACEHOLDER
            inner(**definite)

    build.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    return build


def compile_for_kubeflow(name: str, called: str, settings: KubernetesSettings, labels: Mapping[str, str]) -> str:
    """The YAML of one of the pipelines, with what Kubernetes is told of every step.

    `called`: its name in Kubeflow Pipelines, which is part of the cache's keys and the beginning of its Workflows' names. `labels`: of every
    step's pod.

    The steps' images are those that components/environments/images.py reads from the environment when the components are imported. Raises
    CrisplineError when there is no pipeline of that name.
    """
    if name not in REQUESTS:
        raise CrisplineError(f"there is no pipeline {name!r}; there are {', '.join(REQUESTS)}")
    build = pipeline_function(name)

    @functools.wraps(build)
    def with_settings(*values: Any) -> None:
        build(*values)
        for task in Pipeline.get_default_pipeline().tasks.values():
            apply_settings(task, settings, labels)

    original = importlib.import_module(f"pipelines.{name}").pipeline
    config = dsl.PipelineConfig(active_deadline_seconds=_seconds(settings.run_timeout), ttl_seconds_after_finished=_seconds(settings.keep))
    decorate = dsl.pipeline(name=called, description=original.component_spec.description, pipeline_config=config)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(decorate(with_settings), str(file))
        return file.read_text()


def step_names(name: str) -> list[str]:
    """The steps of one of the pipelines on Kubeflow Pipelines, in alphabetical order, by the names of their functions."""
    build = pipeline_function(name)
    found: set[str] = set()

    @functools.wraps(build)
    def observed(*values: Any) -> None:
        build(*values)
        found.update(step_name(task) for task in Pipeline.get_default_pipeline().tasks.values())

    dsl.pipeline(name="steps")(observed)
    return sorted(found)


def step_name(task: pipeline_task.PipelineTask) -> str:
    """`build_features`, whatever number Kubeflow Pipelines gave to this use of it."""
    return str(task.component_spec.name).replace("-", "_")


def apply_settings(task: pipeline_task.PipelineTask, settings: KubernetesSettings, labels: Mapping[str, str]) -> None:
    """Everything that Kubernetes is told of one step (read in kubernetes_platform and driver/k8s.go of 2.17).

    The compiler of Kubeflow Pipelines itself drops all capabilities, forbids privilege escalation and sets the seccomp profile; the user it
    leaves to the image, which a namespace that enforces `restricted` does not accept. A root file system that is read-only it cannot set.
    """
    name = step_name(task)
    step = settings.step(name)
    kubernetes.set_security_context(task, run_as_user=settings.user, run_as_group=settings.group, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, settings.image_pull_policy)
    if settings.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(settings.image_pull_secrets))
    for key, value in sorted(labels.items()):
        kubernetes.add_pod_label(task, key, value)

    kubernetes.use_config_map_as_volume(task, settings.config_map, PLATFORM_FOLDER)
    kubernetes.empty_dir_mount(task, SCRATCH_VOLUME, "/tmp", size_limit=settings.scratch or None)  # noqa: S108  the pod's own, mounted here
    for volume in settings.volumes:
        if not volume.steps or name in volume.steps:
            kubernetes.mount_pvc(task, volume.claim, volume.mount_path)
    for key, value in sorted({PLATFORM_VARIABLE: f"{PLATFORM_FOLDER}/platform.json", **settings.variables}.items()):
        task.set_env_variable(key, value)
    for secret in settings.secrets:
        if not secret.steps or name in secret.steps:
            kubernetes.use_secret_as_env(task, secret.name, {key: key for key in secret.keys}, optional=secret.optional)

    _share_of_node(task, step)
    for each in step.tolerations:
        kubernetes.add_toleration(task, key=each.key or None, operator=each.operator, value=each.value or None, effect=each.effect or None)
    if step.node_selector:
        for key, value in sorted(step.node_selector.items()):
            kubernetes.add_node_selector(task, key, value)
    kubernetes.set_timeout(task, _seconds(step.timeout))
    if step.retries.number:
        # Argo takes the longest duration for the deadline of every further attempt as well, counted from the start of the first: less than all
        # attempts and waits together would end a retry while it works.
        attempts = step.timeout * (step.retries.number + 1) + step.retries.waits()
        task.set_retry(
            step.retries.number,
            backoff_duration=f"{_seconds(step.retries.first_wait)}s",
            backoff_factor=float(step.retries.factor),
            backoff_max_duration=f"{_seconds(attempts)}s",
        )


def _share_of_node(task: pipeline_task.PipelineTask, step: StepSettings) -> None:
    for amount, setter in (
        (step.requests.cpu, task.set_cpu_request),
        (step.requests.memory, task.set_memory_request),
        (step.limits.cpu, task.set_cpu_limit),
        (step.limits.memory, task.set_memory_limit),
    ):
        if amount:
            setter(amount)


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())
