"""Runs in Kubeflow Pipelines, as `components.contracts.runs` sees them.

A run's display name is the name that its submitter chose, so that whoever crashed between posting a run and recording it finds it again:
POST /apis/v2beta1/runs has no idempotency of its own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import kfp_server_api as server

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.runs import Run, RunState
from pipelines.runners.kubeflow_api import NOT_FOUND, TIMEOUT_SECONDS, Criterion, KubeflowApi, PipelinesRefused, filter_of
from pipelines.runners.kubeflow_names import pipeline_name, pipeline_of

STATES: Final[Mapping[str, RunState]] = {
    "RUNTIME_STATE_UNSPECIFIED": "pending",
    "PENDING": "pending",
    "RUNNING": "running",
    "CANCELING": "running",
    "PAUSED": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "failed",
}
# The branch of the retraining pipeline that only the holder of the cause's claim enters (dsl.If(..., name="effective")).
_EFFECTIVE_BRANCH: Final = "effective"
_LONGEST_DISPLAY_NAME: Final = 128  # the API server's limit on a run's display name


@dataclass(frozen=True)
class PipelineVersion:
    """An uploaded version of a pipeline; `inputs`: the declared type and whether it may be left out, by parameter."""

    pipeline: str
    pipeline_id: str
    id: str
    name: str
    inputs: Mapping[str, tuple[str, bool]]


class KubeflowRuns:
    """The RunSubmitter of a cluster. Submits the newest version of a pipeline; uploads nothing."""

    def __init__(self, platform: Platform, timeout_seconds: int = TIMEOUT_SECONDS) -> None:
        """Raises CrisplineError when the platform names no Kubeflow Pipelines."""
        self.api = KubeflowApi(platform, timeout_seconds)
        self.environment = platform.environment
        self._ui_url = (platform.pipelines_ui_url or platform.pipelines_url).rstrip("/")
        self._root = platform.pipelines_root
        self._pipelines: dict[str, str] = {}  # names by id; a pipeline's name never changes
        self._specs: dict[str, Mapping[str, Any]] = {}  # by a version's id; a version never changes

    def find(self, name: str) -> Run | None:
        """The run of that display name submitted first; None when there is none. Raises CrisplineError when the API refuses or is silent."""
        found = self.named(name)
        return found[0] if found else None

    def named(self, name: str) -> list[Run]:
        """All runs of this environment with that display name, in order of submission. Another environment on the same installation may have
        runs of the same name: what caused them has an id derived from model and window, and a promoted model is the same in both."""
        experiment = self.api.known_experiment_id()
        found = self._listed({"experiment_id": experiment}, Criterion("display_name", name)) if experiment is not None else []
        return [self._run(each) for each in found]

    def submit(self, name: str, pipeline: str, parameters: Mapping[str, str], cause: str) -> Run:
        """Post a run of the pipeline's newest version; does not look for the name (see `find`).

        `parameters` must hold `usecase`; they are text and become what the pipeline declares. Raises CrisplineError when the pipeline was
        never uploaded, a parameter is unknown, missing or of another type, or the API refuses; when it is silent, the run may exist.
        """
        version = self.newest_version(parameters.get("usecase", ""), pipeline)
        return self.submit_version(version, name, parameters, cause)

    def submit_version(self, version: PipelineVersion, name: str, parameters: Mapping[str, str], cause: str) -> Run:
        """Post a run of one version. Raises what `submit` raises."""
        if not name or len(name) > _LONGEST_DISPLAY_NAME:
            raise CrisplineError(f"a run's name has 1 to {_LONGEST_DISPLAY_NAME} characters; {name!r} has {len(name)}")
        wanted = server.V2beta1Run(
            display_name=name,
            description=described(pipeline_of(version.pipeline), parameters, cause),
            experiment_id=self.api.experiment_id(),
            pipeline_version_reference=server.V2beta1PipelineVersionReference(pipeline_id=version.pipeline_id, pipeline_version_id=version.id),
            runtime_config=self.runtime_config(version, parameters),
        )
        return self._run(self.api.call(self.api.runs.run_service_create_run, wanted))

    def runtime_config(self, version: PipelineVersion, parameters: Mapping[str, str]) -> Any:
        """Parameters with the types that the version declares, and where artifacts go. Raises CrisplineError for parameters that do not fit."""
        return server.V2beta1RuntimeConfig(parameters=typed(version, parameters), pipeline_root=self._root or None)

    def get(self, id: str) -> Run:
        """Raises CrisplineError for an unknown id."""
        return self._run(self.details(id))

    def details(self, id: str) -> Any:
        """The API's own V2beta1Run, with the state of its tasks. Raises CrisplineError for an unknown id."""
        try:
            return self.api.call(self.api.runs.run_service_get_run, id)
        except PipelinesRefused as error:
            if error.status == NOT_FOUND:
                raise CrisplineError(f"there is no run {id} in Kubeflow Pipelines at {self.api.url}") from error
            raise

    def list(self, pipeline: str = "", cause: str = "") -> list[Run]:
        """Runs of this environment in order of submission, narrowed by pipeline and cause where given."""
        experiment = self.api.known_experiment_id()
        runs = [self._run(each) for each in self._listed({"experiment_id": experiment})] if experiment is not None else []
        return [run for run in runs if pipeline in ("", run.pipeline) and cause in ("", run.cause)]

    def newest_version(self, usecase: str, pipeline: str) -> PipelineVersion:
        """The version of a use case's pipeline that was uploaded last. Raises CrisplineError when there is none."""
        name = pipeline_name(usecase, self.environment, pipeline)
        id = self.pipeline_id(name)
        if id is None:
            raise CrisplineError(
                f"Kubeflow Pipelines at {self.api.url} has no pipeline {name!r}; upload it: crispline submit {pipeline} --env {self.environment}"
            )
        page = self.api.call(self.api.pipelines.pipeline_service_list_pipeline_versions, id, page_size=1, sort_by="created_at desc")
        if not page.pipeline_versions:
            raise CrisplineError(f"pipeline {name!r} has no version; upload one: crispline submit {pipeline} --env {self.environment}")
        return version_of(name, page.pipeline_versions[0])

    def pipeline_id(self, name: str) -> str | None:
        """The id of a pipeline by its name; None when it was never uploaded."""
        page = self.api.call(self.api.pipelines.pipeline_service_list_pipelines, page_size=1, filter=filter_of(Criterion("name", name)), **self.api.namespaced)
        if not page.pipelines:
            return None
        id = str(page.pipelines[0].pipeline_id)
        self._pipelines[id] = name
        return id

    def link(self, id: str) -> str:
        """The run's page."""
        return f"{self._ui_url}/#/runs/details/{id}"

    def state(self, run: Any) -> RunState:
        """The state of a run as the API returns it; `duplicate` where a retraining succeeded without entering the branch of the claim's holder."""
        state = STATES.get(str(run.state), "pending")
        tasks = (run.run_details and run.run_details.task_details) or ()
        skipped = {task.display_name for task in tasks if task.state == "SKIPPED"}
        if state == "succeeded" and skipped and skipped & {key for key, name in tasks_of(self._spec(run)).items() if name == _EFFECTIVE_BRANCH}:
            return "duplicate"
        return state

    def step_names(self, run: Any) -> frozenset[str]:
        """The tasks of a run that are steps, by Kubeflow Pipelines' own names (`build-features`)."""
        spec = self._spec(run)
        components = spec.get("components", {})
        return frozenset(key for key, component in _references(spec) if "executorLabel" in components.get(component, {}))

    def _spec(self, run: Any) -> Mapping[str, Any]:
        """The pipeline's specification; empty where it is no longer to be had."""
        reference = run.pipeline_version_reference
        if reference is None or not reference.pipeline_version_id:
            return _pipeline_spec(run.pipeline_spec or {})
        id = str(reference.pipeline_version_id)
        if id not in self._specs:
            get = self.api.pipelines.pipeline_service_get_pipeline_version
            try:
                self._specs[id] = _pipeline_spec(self.api.call(get, reference.pipeline_id, id).pipeline_spec or {})
            except PipelinesRefused as error:
                if error.status != NOT_FOUND:
                    raise
                self._specs[id] = {}
        return self._specs[id]

    def _listed(self, experiment: Mapping[str, str], *where: Criterion) -> Sequence[Any]:
        runs = functools.partial(self.api.runs.run_service_list_runs, **experiment, **self.api.namespaced)
        return list(self.api.pages(runs, "runs", sort_by="created_at asc", where=where))

    def _run(self, found: Any) -> Run:
        parameters = {name: _text(value) for name, value in ((found.runtime_config and found.runtime_config.parameters) or {}).items()}
        reference = found.pipeline_version_reference
        pipeline = pipeline_of(self._pipeline_name(reference.pipeline_id)) if reference is not None and reference.pipeline_id else ""
        return Run(
            id=str(found.run_id),
            name=str(found.display_name),
            pipeline=pipeline,
            cause=parameters.get("cause", ""),
            state=self.state(found),
            parameters=parameters,
        )

    def _pipeline_name(self, id: str) -> str:
        if id not in self._pipelines:
            try:
                found = self.api.call(self.api.pipelines.pipeline_service_get_pipeline, id)
                self._pipelines[id] = str(found.name or found.display_name)
            except PipelinesRefused as error:
                if error.status != NOT_FOUND:
                    raise
                self._pipelines[id] = ""  # its pipeline was deleted; the run is still a run
        return self._pipelines[id]


def tasks_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """What each task of a pipeline's specification is called by its author, by the name that the compiler gave it (`condition-1`: `effective`)."""
    dags = [each["dag"]["tasks"] for each in (spec.get("root", {}), *spec.get("components", {}).values()) if "dag" in each]
    return {key: str(task.get("taskInfo", {}).get("name", key)) for tasks in dags for key, task in tasks.items()}


def _references(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(task, component) of every task."""
    dags = [each["dag"]["tasks"] for each in (spec.get("root", {}), *spec.get("components", {}).values()) if "dag" in each]
    return [(key, str(task.get("componentRef", {}).get("name", ""))) for tasks in dags for key, task in tasks.items()]


def _pipeline_spec(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The API returns the pipeline alone, or pipeline_spec and platform_spec side by side."""
    found: Mapping[str, Any] = spec.get("pipeline_spec", spec)
    return found


def described(pipeline: str, parameters: Mapping[str, str], cause: str) -> str:
    """The run's description for a person: what for, on which data, against which champion."""
    said = [f"{pipeline.replace('_', ' ').capitalize()} of {parameters.get('usecase', '?')}"]
    said += [f"cause: {cause}"] if cause else []
    for name, words in (("as_of", "as of"), ("data_version", "data version"), ("champion", "champion")):
        if parameters.get(name):
            said.append(f"{words}: {parameters[name]}")
    return "; ".join(said)


def version_of(pipeline: str, found: Any) -> PipelineVersion:
    """A version as the API returns it."""
    spec = _pipeline_spec(found.pipeline_spec or {})
    declared = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    inputs = {name: (each.get("parameterType", "STRING"), bool(each.get("isOptional", False))) for name, each in declared.items()}
    return PipelineVersion(
        pipeline=pipeline, pipeline_id=str(found.pipeline_id), id=str(found.pipeline_version_id), name=str(found.display_name or found.name), inputs=inputs
    )


def typed(version: PipelineVersion, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Parameters given as text with the types that the pipeline declares. Raises CrisplineError."""
    unknown = sorted(set(parameters) - set(version.inputs))
    missing = sorted(name for name, (_, optional) in version.inputs.items() if name not in parameters and not optional)
    if unknown or missing:
        said = [f"unknown parameters: {', '.join(unknown)}"] if unknown else []
        said += [f"missing parameters: {', '.join(missing)}"] if missing else []
        raise CrisplineError(f"pipeline {version.pipeline}: {'; '.join(said)}; version {version.name} takes {', '.join(sorted(version.inputs))}")
    return {name: _typed(version.pipeline, name, value, version.inputs[name][0]) for name, value in parameters.items()}


def _typed(pipeline: str, name: str, value: str, declared: str) -> Any:
    try:
        match declared:
            case "NUMBER_INTEGER":
                return int(value)
            case "NUMBER_DOUBLE":
                return float(value)
            case "STRING":
                return value
        return json.loads(value)
    except ValueError:
        raise CrisplineError(f"pipeline {pipeline}: parameter {name}: {value!r} is no {declared.lower()}") from None


def _text(value: Any) -> str:
    """A parameter as text. Numbers come back as floats: JSON has no other, and 3.0 was 3."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
