"""The pipelines as KFP compiles them: intermediate representation in YAML.

<pipeline environment's python> -m pipelines.compiled <folder>      writes <pipeline>.yaml of every pipeline
... -m pipelines.compiled tests/contract/golden --golden            the golden files, with a placeholder for the image tag
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from components.contracts.errors import CrisplineError
from components.contracts.storage import write_atomically
from components.environments.names import ENVIRONMENTS, IMAGE_TAG_VARIABLE, REGISTRY_VARIABLE, image_variable

PIPELINES: Final = ("data", "training", "retraining", "batch_scoring", "monitoring")
GOLDEN_TAG: Final = "IMAGE_TAG"
_IMAGE_VARIABLES: Final = (IMAGE_TAG_VARIABLE, REGISTRY_VARIABLE, *(image_variable(environment) for environment in ENVIRONMENTS))


def compile_pipeline(name: str) -> str:
    """The YAML of one of PIPELINES. Raises CrisplineError when there is none of that name."""
    if name not in PIPELINES:
        raise CrisplineError(f"there is no pipeline {name!r}; there are {', '.join(PIPELINES)}")
    from kfp import compiler

    pipeline = importlib.import_module(f"pipelines.{name}").pipeline
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(file))
        return file.read_text()


def compiled_pipeline(pipeline: str, state: Path) -> str:
    """The YAML of a pipeline by name, from `<state>/compiled` when this code was compiled before; or of a file, by its path."""
    if pipeline.endswith((".yaml", ".yml")):
        file = Path(pipeline)
        if not file.exists():
            raise CrisplineError(f"{file} does not exist; give the name of a pipeline or the path of a compiled one")
        return file.read_text()
    from pipelines.runners.cache import tree_version

    code = [tree_version(), *(os.environ.get(variable, "") for variable in _IMAGE_VARIABLES)]
    known = state / "compiled" / f"{pipeline}-{hashlib.sha256(chr(0).join(code).encode()).hexdigest()[:16]}.yaml"
    if not known.exists():
        write_atomically(known, compile_pipeline(pipeline).encode())
    return known.read_text()


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0])
    if "--golden" in arguments:
        for variable in _IMAGE_VARIABLES:
            os.environ.pop(variable, None)
        os.environ[IMAGE_TAG_VARIABLE] = GOLDEN_TAG
    folder.mkdir(parents=True, exist_ok=True)
    for name in PIPELINES:
        (folder / f"{name}.yaml").write_text(compile_pipeline(name))


if __name__ == "__main__":
    main(sys.argv[1:])
