"""`crispline step <component>.<step>`: one step on one use case, in the environment of its image, on artifacts given by path.

What a step writes lies in `<state>/artifacts/<component>.<step>/<artifact>`; the next step of the experiment finds it by the artifact's name.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.contracts.errors import CrisplineError
from pipelines.commands.choices import WrongUsage
from pipelines.commands.reporting import end_with

COMPONENTS = {
    "understanding": ("component",),
    "data_engineering": ("component", "features_component", "request_component"),
    "model_engineering": ("component",),
    "evaluation": ("component",),
    "deployment": ("component",),
    "monitoring": ("component", "performance_component", "run_component"),
}


def run_step(request: dict[str, Any]) -> int:
    """`request`: step, inputs (paths by artifact), parameters, state. Prints what the step returned and where its artifacts lie, as JSON."""
    from pipelines.runners.progress import progress_for_stderr
    from pipelines.runners.single_step import run_single_step

    component, _, name = request["step"].partition(".")
    steps = steps_of(component)
    if name not in steps:
        raise WrongUsage(
            f"{component} has no step {name!r}; it has {', '.join(sorted(steps))}"
            if name
            else f"steps: {', '.join(f'{component}.{each}' for each in sorted(steps))}"
        )
    state = Path(request["state"]).resolve()
    index = state / "artifacts" / "latest.json"
    latest: dict[str, str] = json.loads(index.read_text()) if index.exists() else {}
    arguments = arguments_of(steps[name], request["step"], request["parameters"], {**latest, **request["inputs"]})
    folder = state / "artifacts" / request["step"]
    shutil.rmtree(folder, ignore_errors=True)
    outputs = run_single_step(steps[name], arguments, folder, state, progress_for_stderr())
    said = {name: str(value) if isinstance(value, Path) else value for name, value in outputs.items()}
    index.write_text(json.dumps({**latest, **{name: str(value) for name, value in outputs.items() if isinstance(value, Path)}}, indent=2))
    print(json.dumps(said, indent=2))
    return 0


def steps_of(component: str) -> dict[str, Any]:
    """The KFP components of one of COMPONENTS by name. Raises WrongUsage."""
    from kfp.dsl.base_component import BaseComponent

    if component not in COMPONENTS:
        raise WrongUsage(f"there is no component {component!r}; there are {', '.join(COMPONENTS)}")
    modules = [importlib.import_module(f"components.{component}.{module}") for module in COMPONENTS[component]]
    return {name: each for module in modules for name, each in vars(module).items() if isinstance(each, BaseComponent)}


def arguments_of(step: Any, name: str, parameters: Mapping[str, str], artifacts: Mapping[str, str]) -> dict[str, Any]:
    """Parameters with the step's types and artifacts as existing paths. Raises WrongUsage for what is missing or unknown, CrisplineError for a path."""
    inputs = step.component_spec.inputs or {}
    wanted = {each: spec for each, spec in inputs.items() if not spec.type.startswith("system.")}
    paths = {each for each in inputs if each not in wanted}
    unknown = sorted(set(parameters) - set(wanted) - {"usecase"})
    missing = [each for each, spec in wanted.items() if each not in parameters and not spec.optional]
    if unknown or missing or paths - set(artifacts):
        said = [f"-p {each}=<{wanted[each].type.lower()}>" for each in missing] + [f"-i {each}=<path>" for each in sorted(paths - set(artifacts))]
        raise WrongUsage(f"{name}: " + "; ".join([*(f"unknown parameter {each}" for each in unknown), *(["still needs " + " ".join(said)] if said else [])]))
    given: dict[str, Any] = {each: _typed(value, wanted[each].type, each) for each, value in parameters.items() if each in wanted}
    for each in paths:
        path = Path(artifacts[each]).resolve()
        if not path.exists():
            raise CrisplineError(f"artifact {each}: {path} does not exist; name it with -i {each}=<path>")
        given[each] = path
    return given


def _typed(value: str, declared: str, name: str) -> Any:
    try:
        match declared:
            case "Integer":
                return int(value)
            case "Float":
                return float(value)
            case "Boolean" | "List" | "Dict" | "PipelineTaskFinalStatus":
                return json.loads(value)
        return value
    except ValueError:
        raise WrongUsage(f"parameter {name}: {value!r} is no {declared.lower()}") from None


if __name__ == "__main__":
    end_with(lambda: run_step(json.loads(sys.argv[1])))
