"""The interpreter and the variables with which a step of an environment runs on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from components.contracts.errors import CrisplineError
from components.contracts.platform import PLATFORM_VARIABLE, Platform
from components.contracts.storage import write_atomically
from components.environments.names import ENVIRONMENTS, image_name

ROOT: Final = Path(__file__).resolve().parents[2]

# Every Python process that we start is quiet: no telemetry, no check for updates, no window system.
QUIET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DISABLE_TELEMETRY": "true",
    "FEAST_USAGE": "False",
    "GIT_PYTHON_REFRESH": "quiet",
    "KFP_DISABLE_UPDATE_CHECK": "true",
    "MPLBACKEND": "Agg",
    "PYTHONUNBUFFERED": "1",
    # Where bytecode is not kept, every process compiles its packages anew: that doubles the time of a step.
    "PYTHONDONTWRITEBYTECODE": "",
}


def environment_folder(environment: str) -> Path:
    """The uv project of an environment."""
    if environment not in ENVIRONMENTS:
        raise CrisplineError(f"there is no environment {environment!r}; there are {', '.join(ENVIRONMENTS)}")
    return ROOT / "components" / "environments" / environment


def interpreter(environment: str) -> Path:
    """The Python of a synced environment; UV_PROJECT_ENVIRONMENT is honoured as uv does it. Raises CrisplineError when it is not installed."""
    project = environment_folder(environment)
    if not (project / "uv.lock").exists():  # an image holds one environment
        raise CrisplineError(f"the environment {environment!r} is not in this image; run it in the image {image_name(environment)}")
    python = project / os.environ.get("UV_PROJECT_ENVIRONMENT", ".venv") / "bin" / "python"
    if not python.exists():
        raise CrisplineError(f"the environment {environment!r} is not installed ({python} does not exist); run `make setup`")
    return python


def platform_file(state: Path) -> Path:
    """`<state>/platform.json`, written with the embedded defaults when it is not there yet."""
    file = state.resolve() / "platform.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, Platform.embedded(state).model_dump_json(indent=2).encode())
    return file


def step_variables(state: Path) -> dict[str, str]:
    """What a step finds in its environment beside the variables that it inherits (credentials, CRISPLINE_USECASES)."""
    return {**QUIET, PLATFORM_VARIABLE: str(platform_file(state))}
