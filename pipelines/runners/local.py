"""Runs compiled pipelines on this machine with kfp.local, each step in the environment that its image names.

kfp.local 2.17 walks the pipeline, evaluates its conditions, passes parameters and artifacts and keeps the cache. Three of its seams are
taken here, all looked up by name when a pipeline runs: the handler that starts a task, the execution of a single task (which knows the
step's name), and the cache. tests/test_local_runner.py fails when a release of kfp moves one of them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import components as kfp_components
from kfp import dsl, local
from kfp.local import cache as kfp_cache
from kfp.local import config as kfp_config
from kfp.local import graph_utils, task_dispatcher
from kfp.local.orchestrator import task_executor
from kfp.local.status import Status
from kfp.local.subprocess_task_handler import replace_python_executable
from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType

from components.contracts.errors import CrisplineError, StepFailed
from components.environments.names import environment_of_image
from pipelines.compiled import compiled_pipeline
from pipelines.runners.cache import ContentCache
from pipelines.runners.environments import interpreter, step_variables
from pipelines.runners.failures import failure_of_log
from pipelines.runners.progress import Progress, Silent
from pipelines.runners.step_client import WARM_BY_DEFAULT, StepRequest, StepServers
from pipelines.runners.step_process import EXECUTOR

_one_at_a_time = threading.Lock()  # kfp.local's configuration is global to the process


@dataclass(frozen=True)
class StepRun:
    """One step of a run. `outputs`: parameters by name (`Output` is the returned value) and artifacts as paths. Seconds are wall time."""

    name: str
    outputs: Mapping[str, Any]
    seconds: float
    imports_seconds: float
    cached: bool


@dataclass(frozen=True)
class RunResult:
    """A finished run. `outputs`: the value each step returned, where it returned one; `artifacts`: {step: {name: path}}. Steps that a
    condition left out are absent."""

    run_id: str
    outputs: Mapping[str, Any]
    artifacts: Mapping[str, Mapping[str, Path]]
    steps: Sequence[StepRun]

    @property
    def seconds(self) -> Mapping[str, float]:
        return {step.name: step.seconds for step in self.steps}


def run_pipeline(
    pipeline: str,
    parameters: Mapping[str, Any],
    state: Path,
    run_id: str = "",
    *,
    progress: Progress | None = None,
    servers: StepServers | None = None,
    warm: bool = WARM_BY_DEFAULT,
) -> RunResult:
    """Run one of the pipelines (`training`, ...) or a compiled one (the path of its YAML) to its end.

    `parameters` by name; a parameter `run` of the pipeline gets the run's id. Logs of the steps: `<state>/runs/<run id>/<step>.log`. A run
    that failed is resumed by running it again: what succeeded comes from the cache, except the steps with effects outside, which are
    idempotent by keys of their own. `servers`: step servers to use, else own ones for the length of this run (`warm`), else one interpreter
    a step. Raises StepFailed with the step's traceback, CrisplineError when the pipeline or a parameter does not exist.
    """
    run_id = run_id or uuid.uuid4().hex[:12]
    state = state.resolve()
    folder = state / "runs" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    variables = step_variables(state)
    with contextlib.ExitStack() as stack:
        if servers is None and warm:
            servers = stack.enter_context(StepServers(state / "runs" / "servers", variables))
            servers.start("pipeline")  # its interpreter starts while we compile
        component = kfp_components.load_component_from_text(compiled_pipeline(pipeline, state))
        arguments = _arguments(component, pipeline, parameters, run_id)
        run = _Run(folder=folder, variables=variables, progress=progress or Silent(), servers=servers)
        run.announce(component)
        stack.enter_context(_one_at_a_time)
        stack.enter_context(run.inside_kfp(state))
        try:
            component(**arguments)
        except RuntimeError as error:
            raise run.failure(error) from None
    return RunResult(
        run_id=run_id,
        outputs={step.name: step.outputs["Output"] for step in run.steps if "Output" in step.outputs},
        artifacts={step.name: {name: value for name, value in step.outputs.items() if isinstance(value, Path)} for step in run.steps},
        steps=tuple(run.steps),
    )


def _arguments(component: Any, pipeline: str, parameters: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    declared = component.pipeline_spec.root.input_definitions.parameters
    arguments = dict(parameters)
    if "run" in declared and "run" not in arguments:
        arguments["run"] = run_id
    unknown = sorted(set(arguments) - set(declared))
    missing = sorted(name for name, each in declared.items() if name not in arguments and not each.is_optional)
    if unknown or missing:
        said = [f"unknown parameters: {', '.join(unknown)}"] if unknown else []
        said += [f"missing parameters: {', '.join(missing)}"] if missing else []
        raise CrisplineError(f"pipeline {pipeline}: {'; '.join(said)}; it takes {', '.join(sorted(declared))}")
    return {name: _typed(pipeline, name, value, declared[name].parameter_type) for name, value in arguments.items()}


def _typed(pipeline: str, name: str, value: Any, declared: int) -> Any:
    """A parameter that came as text (run store, command line) as the pipeline declares it."""
    types = ParameterType.ParameterTypeEnum
    if not isinstance(value, str) or declared == types.STRING:
        return value
    try:
        if declared == types.NUMBER_INTEGER:
            return int(value)
        if declared == types.NUMBER_DOUBLE:
            return float(value)
        return json.loads(value)
    except ValueError:
        raise CrisplineError(f"pipeline {pipeline}: parameter {name}: {value!r} is no {types.Name(declared).lower()}") from None


def _executors_in_order(spec: Any, component: Any) -> Iterator[str]:
    order = graph_utils.topological_sort_tasks(component.dag.tasks)
    while order:
        called = spec.components[component.dag.tasks[order.pop()].component_ref.name]
        if called.WhichOneof("implementation") == "dag":
            yield from _executors_in_order(spec, called)
        else:
            yield called.executor_label


@dataclass
class _Run:
    folder: Path
    variables: Mapping[str, str]
    progress: Progress
    servers: StepServers | None
    steps: list[StepRun] = field(default_factory=list)
    failed: StepFailed | None = None
    imports: dict[str, float] = field(default_factory=dict)
    _started: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _current: threading.local = field(default_factory=threading.local)

    def announce(self, component: Any) -> None:
        """Tell the step servers what will come, in the order in which kfp.local will run it."""
        if self.servers is None:
            return
        spec = component.pipeline_spec
        coming: dict[str, list[tuple[str, str]]] = {}
        for label in _executors_in_order(spec, spec.root):
            container = spec.deployment_spec["executors"][label]["container"]
            coming.setdefault(environment_of_image(container["image"]), []).append((container["args"][-1], container["command"][-1]))
        for environment, steps in coming.items():
            self.servers.expect(environment, steps)

    @contextlib.contextmanager
    def inside_kfp(self, state: Path) -> Iterator[None]:
        """kfp.local, with its three seams taken and its own chatter in `kfp.log`."""
        root = state / "cache"
        cache = ContentCache(str(root))
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(self.folder / "artifacts"), enable_caching=True, cache_root=str(root))
        kfp_cache._cache_singleton, kfp_cache._cache_singleton_root = cache, str(root)
        execute = task_executor.execute_single_task
        handlers = task_dispatcher.subprocess_task_handler
        task_executor.execute_single_task = functools.partial(self._observe, execute, cache)
        task_dispatcher.subprocess_task_handler = _Handlers(functools.partial(_StepHandler, self))
        try:
            with (self.folder / "kfp.log").open("a") as chatter, contextlib.redirect_stdout(chatter):
                yield
        finally:
            task_executor.execute_single_task = execute
            task_dispatcher.subprocess_task_handler = handlers
            kfp_config.LocalExecutionConfig.instance = None
            kfp_cache.reset_local_cache_singleton()

    def _observe(self, execute: Any, cache: ContentCache, **arguments: Any) -> tuple[dict[str, Any], Status]:
        """kfp's execution of one task, with progress around it."""
        name = self._name_of(arguments["task_name"].replace("-", "_"))  # kfp's name of a task is its function's, with dashes
        self._current.step = name
        self.progress.started(name)
        began = time.monotonic()
        cache.forget_hits()
        outputs, status = execute(**arguments)
        seconds = time.monotonic() - began
        if status is Status.SUCCESS:
            cached = cache.was_hit()
            self.progress.finished(name, seconds, cached)
            values = {key: Path(value.path) if isinstance(value, dsl.Artifact) else value for key, value in outputs.items()}
            self.steps.append(StepRun(name=name, outputs=values, seconds=seconds, imports_seconds=self.imports.get(name, 0.0), cached=cached))
        else:
            self.progress.failed(name, seconds)
            self.failed = self.failed or StepFailed(failure_of_log(name, self.folder / f"{name}.log"))
        return outputs, status

    def _name_of(self, task: str) -> str:
        """`score_batch`, of the next iteration of the same task `score_batch-2`: kfp.local runs two at a time, each needs files of its own."""
        with self._lock:
            number = self._started[task] = self._started.get(task, 0) + 1
        return task if number == 1 else f"{task}-{number}"

    def failure(self, error: RuntimeError) -> StepFailed:
        return self.failed or StepFailed(str(error))

    def execute(self, image: str, command: Sequence[str], variables: Mapping[str, str]) -> int:
        """Run the current step's process; returns its exit code."""
        name = self._current.step
        environment = environment_of_image(image)
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        folder = self.folder / "steps" / name
        folder.mkdir(parents=True, exist_ok=True)
        step_variables_ = {**self.variables, **variables}
        if self.servers is not None:
            source, arguments = _parts(command)
            step = StepRequest(name=arguments[-1], source=source, arguments=arguments, variables=step_variables_, folder=folder, log=log)
            ended = self.servers.run(environment, step)
            self.imports[name] = ended.imports_seconds
            return ended.code
        with log.open("ab") as output:
            process = subprocess.Popen(
                replace_python_executable(list(command), str(interpreter(environment))),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **step_variables_},
                cwd=folder,
                start_new_session=True,
            )
            try:
                return process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise


@dataclass(frozen=True)
class _Handlers:
    """What the dispatcher sees as kfp's module of handlers."""

    SubprocessTaskHandler: Any


class _StepHandler:
    """kfp's ITaskHandler: starts the step's process in the environment of its image."""

    def __init__(self, run: _Run, image: str, full_command: list[str], pipeline_root: str, runner: Any, env_vars: dict[str, str] | None = None) -> None:  # noqa: ARG002
        self._run, self._image, self._command, self._variables = run, image, full_command, env_vars or {}

    def run(self) -> Status:
        return Status.SUCCESS if self._run.execute(self._image, self._command, self._variables) == 0 else Status.FAILURE


def _parts(command: Sequence[str]) -> tuple[str, list[str]]:
    """(source, arguments of the executor) of a lightweight component's `sh -ec <script> <source> --executor_input ... --function_to_execute ...`."""
    if len(command) < 5 or command[0] != "sh" or EXECUTOR not in command[2]:
        raise CrisplineError(f"the local runner runs lightweight Python components only; this step's command is {command[0]} ...")
    return command[3], list(command[4:])
