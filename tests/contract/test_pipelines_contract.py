"""The pipelines' interface: what they compile to, where their steps run, what is cached, and that they hold no logic."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.environments.names import IMAGE_TAG_VARIABLE, environment_of_image
from pipelines.compiled import GOLDEN_TAG, PIPELINES, compile_pipeline

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
EFFECTS_OUTSIDE = {"ingest", "validate", "materialise", "register", "promote", "claim", "emit", "score_batch"}
READS_THE_PRESENT = {"resolve_data_version", "current_champion", "summarise_feedback", "assess_performance", "check_serving_skew"}


def _documents(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text())))
    return found


def _steps(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task of the pipeline and of its nested ones that runs a component's function, by the function's name."""
    found = {}
    for component in [document["root"], *document["components"].values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            called = document["components"][task["componentRef"]["name"]]
            if "executorLabel" in called:
                found[name.replace("-", "_")] = {
                    "task": task,
                    "container": document["deploymentSpec"]["executors"][called["executorLabel"]]["container"],
                    "inputs": called.get("inputDefinitions", {}),
                    "outputs": called.get("outputDefinitions", {}),
                }
    return found


def test_the_data_pipeline_publishes_for_the_champion_too() -> None:
    given = _steps(_documents("data"))["materialise"]["task"]["inputs"]["parameters"]["releases"]
    assert given["taskOutputParameter"]["producerTask"] == "current-champion"


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_compiles_to_its_golden_file(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After a wanted change: components/environments/pipeline/.venv/bin/python -m pipelines.compiled tests/contract/golden --golden"""
    import os
    import subprocess
    import sys

    environment = {**os.environ, IMAGE_TAG_VARIABLE: GOLDEN_TAG}  # the images' tags are read when a component's module is imported
    subprocess.run(
        [sys.executable, "-c", f"from pipelines.compiled import compile_pipeline; print(compile_pipeline({name!r}), end='')"],
        check=True,
        env=environment,
        stdout=(tmp_path / "now").open("w"),
    )
    assert (tmp_path / "now").read_text() == (GOLDEN / f"{name}.yaml").read_text()


def test_there_is_a_golden_file_of_every_pipeline_and_of_nothing_else() -> None:
    assert sorted(file.stem for file in GOLDEN.glob("*.yaml")) == sorted(PIPELINES)


@pytest.mark.parametrize("name", PIPELINES)
def test_every_step_names_an_environment_of_ours_and_installs_nothing_when_it_starts(name: str) -> None:
    for step, found in _steps(_documents(name)).items():
        container = found["container"]
        assert environment_of_image(container["image"]) in ("pipeline", "monitoring"), step
        assert container["image"].endswith(f":{GOLDEN_TAG}"), step
        assert "pip" not in " ".join(container["command"][:3]), step


@pytest.mark.parametrize("name", PIPELINES)
def test_steps_that_act_on_or_read_the_world_outside_are_never_cached_and_the_others_are(name: str) -> None:
    for step, found in _steps(_documents(name)).items():
        assert found["task"]["cachingOptions"].get("enableCache", False) == (step not in EFFECTS_OUTSIDE | READS_THE_PRESENT), step


@pytest.mark.parametrize("name", PIPELINES)
def test_the_step_in_the_pipeline_is_the_one_in_its_component(name: str) -> None:
    for step, found in _steps(_documents(name)).items():
        source = ast.parse(found["container"]["command"][3])
        function = next(node for node in source.body if isinstance(node, ast.FunctionDef))
        declared = {*found["inputs"].get("parameters", {}), *found["inputs"].get("artifacts", {}), *found["outputs"].get("artifacts", {})}
        assert {argument.arg for argument in function.args.args} == declared, step
        assert function.name == step, step


@pytest.mark.parametrize("name", PIPELINES)
def test_a_components_function_imports_its_implementation_and_calls_it_and_the_call_fits(name: str) -> None:
    """The body runs in another process: a wrong name in it would show only there."""
    import importlib

    for step, found in _steps(_documents(name)).items():
        if environment_of_image(found["container"]["image"]) != "pipeline":
            continue  # its implementation cannot be imported in this environment
        function = next(node for node in ast.parse(found["container"]["command"][3]).body if isinstance(node, ast.FunctionDef))
        imported: dict[str, Any] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("components."):
                module = importlib.import_module(node.module)
                imported.update({alias.asname or alias.name: getattr(module, alias.name) for alias in node.names})
        assert imported, step
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and inspect.isfunction(imported.get(node.func.id)):
                positional = [None] * len(node.args)
                keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                inspect.signature(imported[node.func.id]).bind(*positional, **keywords)


def test_a_pipeline_is_composed_of_components_and_holds_no_logic() -> None:
    for name in [*PIPELINES, "composition"]:
        tree = ast.parse((ROOT / "pipelines" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            assert not isinstance(node, ast.If | ast.For | ast.While | ast.Try | ast.Lambda | ast.ListComp), (name, node.lineno)
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                assert module.startswith(("kfp", "pipelines.")) or module.endswith("component"), (name, module)


def test_retraining_is_training_behind_a_claim() -> None:
    training, retraining = _steps(_documents("training")), _steps(_documents("retraining"))
    assert set(retraining) - set(training) == {"claim", "summarise_feedback"}
    assert set(training) <= set(retraining)
    for step in training:
        assert training[step]["container"] == retraining[step]["container"], step


def test_a_no_go_and_a_refusal_leave_out_what_follows() -> None:
    document = _documents("training")
    conditions = [
        task["triggerPolicy"]["condition"]
        for component in [document["root"], *document["components"].values()]
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "triggerPolicy" in task
    ]
    assert len(conditions) == 2
    assert "== 'go'" in conditions[0] + conditions[1]
    assert "== 'passed'" in conditions[0] + conditions[1]


def test_no_step_takes_metrics_which_kfp_never_caches() -> None:
    for name in PIPELINES:
        for step, found in _steps(_documents(name)).items():
            kinds = [artifact["artifactType"]["schemaTitle"] for artifact in found["outputs"].get("artifacts", {}).values()]
            assert "system.Metrics" not in kinds, step


def test_an_unknown_pipeline_is_refused() -> None:
    from components.contracts.errors import CrisplineError

    with pytest.raises(CrisplineError, match="there is no pipeline 'serving'"):
        compile_pipeline("serving")
