"""A pipeline compiled for a use case names the images that its content gives, so that Kubeflow Pipelines' cache follows the content."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import yaml

from pipelines.images import step_image_variables

pytestmark = pytest.mark.pipeline


def test_the_steps_of_a_compiled_pipeline_run_in_the_images_of_the_use_case() -> None:
    variables = step_image_variables("flights", "ghcr.io/acme")
    program = "from pipelines.compiled import compile_pipeline; print(compile_pipeline('training'), end='')"
    compiled = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env={**os.environ, **variables}).stdout
    document: dict[str, Any] = next(iter(yaml.safe_load_all(compiled)))
    assert {each["container"]["image"] for each in document["deploymentSpec"]["executors"].values()} == set(variables.values())
