"""What the local runner costs on the training pipeline, against the same functions called in one process per environment.

    components/environments/pipeline/.venv/bin/python benchmarks/runner_overhead.py [--state FOLDER]

Numerator: `crispline run training` as a person types it, from the start of the command to its end, caches empty. Denominator: a process of
the pipeline environment that calls the steps' function bodies one after the other without kfp, and a process of the monitoring environment
for its step; both with their imports, from start to end. Both work on copies of one ingested state, in the demo's configuration: history,
sample and budget of the first training. FOLDER keeps the ingested state for another run. Writes benchmarks/results/runner_overhead.md.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from components.contracts.durations import format_moment
from components.contracts.platform import PLATFORM_VARIABLE, Platform
from pipelines.runners.environments import QUIET, ROOT, interpreter, platform_file

USECASE, ENVIRONMENT, CAUSE = "flights", "dev", "first-training"
RESULT = ROOT / "benchmarks" / "results" / "runner_overhead.md"
MODULES = {
    "data_engineering.component": ("resolve_data_version",),
    "data_engineering.features_component": ("build_features",),
    "understanding.component": ("profile", "assess_feasibility"),
    "model_engineering.component": ("tune", "train", "track"),
    "evaluation.component": ("evaluate", "judge"),
    "deployment.component": ("current_champion", "register", "bundle", "promote"),
    "monitoring.component": ("fit_detectors",),
}
MODULE_OF = {step: module for module, steps in MODULES.items() for step in steps}
LIMIT = 1.2


def body_of(step: str) -> tuple[str, Callable[..., Any]]:
    """(source, function) of a step, without decorator and annotations, so that calling it needs no kfp."""
    file = ROOT / "components" / (MODULE_OF[step].replace(".", "/") + ".py")
    found = next(node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == step)
    found.decorator_list, found.returns = [], None
    for argument in found.args.args:
        argument.annotation = None
    source = ast.unparse(found)
    namespace: dict[str, Any] = {}
    exec(compile(source, str(file), "exec"), namespace)  # noqa: S102  our own file
    return source, namespace[step]


class Direct:
    """Calls steps in this process, and those of the monitoring environment in one of theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def artifact(self, name: str) -> SimpleNamespace:
        self.folder.mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(path=str(self.folder / name), uri=str(self.folder / name), metadata={})

    def call(self, step: str, **arguments: Any) -> Any:
        began = time.monotonic()
        returned = body_of(step)[1](usecase=USECASE, **arguments)
        self.seconds[step] = time.monotonic() - began
        return returned

    def call_in(self, environment: str, step: str, **arguments: Any) -> None:
        began = time.monotonic()
        given = {name: value.path for name, value in arguments.items()}
        subprocess.run([str(interpreter(environment)), __file__, "--one", step, json.dumps(given)], check=True, cwd=self.folder)
        self.seconds[step] = time.monotonic() - began


def train_directly(folder: Path, as_of: str, training_start: str) -> dict[str, Any]:
    """The training pipeline's steps in its order, as plain calls. Returns seconds by step and the gates' verdict."""
    d = Direct(folder)
    version, dataset, manifest = d.artifact("data_version"), d.artifact("dataset"), d.artifact("manifest")
    data = {"dataset": dataset, "manifest": manifest}
    d.call("resolve_data_version", as_of=as_of, data_version=version)
    d.call("build_features", data_version=version, training_start=training_start, **data)
    d.call("profile", **data, report=d.artifact("profile"))
    verdict = d.call("assess_feasibility", **data, feasibility=d.artifact("feasibility"))
    if verdict == "go":
        best, model, baseline = d.artifact("best"), d.artifact("model"), d.artifact("baseline")
        tracked, evaluation, gates, card = d.artifact("tracked"), d.artifact("evaluation"), d.artifact("gates"), d.artifact("model_card")
        champion = d.call("current_champion", environment=ENVIRONMENT)
        d.call("tune", **data, trials=0, best=best)
        d.call("train", **data, best=best, model=model, baseline=baseline)
        d.call("track", **data, best=best, model=model, baseline=baseline, cause=CAUSE, tracked=tracked)
        d.call(
            "evaluate",
            **data,
            model=model,
            baseline=baseline,
            champion=champion,
            evaluation=evaluation,
            report=d.artifact("evaluation_report"),
            model_card=card,
        )
        verdict = d.call("judge", evaluation=evaluation, cause=CAUSE, gates=gates)
        if verdict == "passed":
            detectors = d.artifact("detectors")
            d.call_in("monitoring", "fit_detectors", dataset=dataset, model=model, detectors=detectors)
            d.call("register", model=model, tracked=tracked, gates=gates, as_of=as_of)
            files = {"evaluation": evaluation, "gates": gates, "detectors": detectors, "model_card": card}
            release = d.call("bundle", **data, model=model, **files, cause=CAUSE, as_of=as_of)
            d.call("promote", environment=ENVIRONMENT, release=release, cause=CAUSE, as_of=as_of)
    return {"seconds": d.seconds, "verdict": verdict}


def ingested(state: Path, start: str, end: str) -> None:
    """A state folder that holds the history in its lake; kept as it is when it is there."""
    if (state / "lake").exists():
        return
    _, function = body_of_ingest()
    os.environ[PLATFORM_VARIABLE] = str(platform_file(state))
    function(usecase=USECASE, start=start, end=end, data_version=SimpleNamespace(path=str(state / "data_version.json"), metadata={}))


def body_of_ingest() -> tuple[str, Callable[..., Any]]:
    MODULE_OF["ingest"] = "data_engineering.component"
    return body_of("ingest")


@contextlib.contextmanager
def copy_of(state: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "state"
        shutil.copytree(state, copy, ignore=shutil.ignore_patterns("platform.json", "runs", "cache"))
        (copy / "platform.json").write_text(Platform.embedded(copy).model_dump_json())
        yield copy


def run_through_runner(state: Path, as_of: str, training_start: str) -> tuple[float, dict[str, Any]]:
    command = [str(ROOT / ".venv" / "bin" / "python"), "-m", "pipelines.cli", "run", "training", "--as-of", as_of, "--cause", CAUSE, "--usecase", USECASE]
    command += ["--state", str(state), "--start", training_start]
    return timed(command, dict(os.environ))


def timed(command: list[str], variables: dict[str, str]) -> tuple[float, dict[str, Any]]:
    """(wall seconds, the JSON of the last line with the CPU seconds of all its processes added as `cpu`)."""
    before, began = os.times(), time.monotonic()
    said = subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=variables).stdout
    wall, after = time.monotonic() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, {**json.loads(said.splitlines()[-1]), "cpu": cpu}


def run_direct(state: Path, as_of: str, training_start: str) -> tuple[float, dict[str, Any]]:
    variables = {**os.environ, **QUIET, PLATFORM_VARIABLE: str(state / "platform.json")}
    return timed([str(interpreter("pipeline")), __file__, "--direct", str(state / "direct"), as_of, training_start], variables)


def cold_start_seconds(step: str) -> float:
    """What the step would pay in an interpreter of its own: start, kfp's executor, its imports; twice, the better one."""
    from pipelines.runners.step_imports import modules_of_source

    code = "import sys; from pipelines.runners.step_imports import import_all; import_all(sys.argv[1:])"
    environment = "monitoring" if MODULE_OF[step].startswith("monitoring") else "pipeline"
    modules = ["kfp.dsl.executor_main", *modules_of_source(body_of(step)[0])]
    best = float("inf")
    for _ in range(2):
        began = time.monotonic()
        subprocess.run(
            [str(interpreter(environment)), "-c", code, *modules], check=True, env={**os.environ, **QUIET, "_KFP_RUNTIME": "true"}, stderr=subprocess.DEVNULL
        )
        best = min(best, time.monotonic() - began)
    return best


def report(runner: tuple[float, dict[str, Any]], direct: tuple[float, dict[str, Any]]) -> str:
    ratio = runner[0] / direct[0]
    verdict = direct[1]["verdict"]
    lines = [
        "# Overhead of the local runner",
        "",
        f"Training pipeline of `{USECASE}` in the demo's configuration (last verdict: {verdict}), {os.cpu_count()} cores.",
        "",
        f"- through the runner (`crispline run training`, nothing cached): {runner[0]:.1f} s, of CPU {runner[1]['cpu']:.1f} s",
        f"- the same functions, one process per environment: {direct[0]:.1f} s, of CPU {direct[1]['cpu']:.1f} s",
        f"- ratio: **{ratio:.2f}** (at most {LIMIT}); of CPU {runner[1]['cpu'] / direct[1]['cpu']:.2f}",
        "",
        "| step | direct s | runner s | of it imports before the fork s | cold start and imports s |",
        "|---|---:|---:|---:|---:|",
    ]
    for step, seconds in direct[1]["seconds"].items():
        through = runner[1]["seconds"].get(step, float("nan"))
        lines.append(f"| {step} | {seconds:.2f} | {through:.2f} | {runner[1]['imports'].get(step, 0.0):.2f} | {cold_start_seconds(step):.2f} |")
    lines += [
        "",
        "Direct seconds hold a module's import where a step is the first to need it. The runner's step server imports for the next steps while",
        "a step runs, so that only what is not there yet is imported before the fork. The last column is what a step pays in an interpreter of its",
        "own (the runner with `warm=False`, or a container): start, kfp's executor and the imports at the head of its implementation.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=None)
    parser.add_argument("--direct", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.direct:
        print(json.dumps(train_directly(Path(given.direct[0]), given.direct[1], given.direct[2])))
        return
    if given.one:
        artifacts = {name: SimpleNamespace(path=path, metadata={}) for name, path in json.loads(given.one[1]).items()}
        body_of(given.one[0])[1](usecase=USECASE, **artifacts)
        return
    from components.contracts.loading import load_usecase
    from pipelines.demo.settings import settings_of

    settings = settings_of(fast=False, full=False)
    as_of = format_moment(settings.start)
    training_start = format_moment(settings.start - load_usecase(USECASE).config.retraining.training_window)
    with tempfile.TemporaryDirectory() as temporary:
        state = (given.state or Path(temporary) / "state").resolve()
        ingested(state, format_moment(settings.history_start), as_of)
        with copy_of(state) as copy:
            direct = run_direct(copy, as_of, training_start)
        with copy_of(state) as copy:
            runner = run_through_runner(copy, as_of, training_start)
    text = report(runner, direct)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)
    sys.exit(0 if runner[0] <= LIMIT * direct[0] else 1)


if __name__ == "__main__":
    main()
