"""Which image, hence which environment, a component's steps run in."""

import functools
import os
from collections.abc import Callable
from typing import Any, Literal

from kfp import dsl

from components.environments.names import DEFAULT_REGISTRY, IMAGE_TAG_VARIABLE, REGISTRY_VARIABLE, image_name, image_variable

StepEnvironment = Literal["pipeline", "monitoring"]


def image_reference(environment: str) -> str:
    """The image of an environment's steps.

    CRISPLINE_IMAGE_<ENVIRONMENT>, a whole reference by tag or digest, as `crispline images env` prints it; without it
    `<registry>/crispline-<environment>:<tag>`, the registry and the tag from CRISPLINE_IMAGE_REGISTRY and CRISPLINE_IMAGE_TAG (default `dev`).
    """
    named = os.environ.get(image_variable(environment), "")
    if named:
        return named
    registry = os.environ.get(REGISTRY_VARIABLE, DEFAULT_REGISTRY)
    return f"{registry}/{image_name(environment)}:{os.environ.get(IMAGE_TAG_VARIABLE, 'dev')}"


def step(environment: StepEnvironment) -> Callable[..., Any]:
    """The decorator of a component's function: `@step("pipeline")`.

    kfp is part of the image, so that nothing is installed when a step starts.
    """
    return functools.partial(dsl.component, base_image=image_reference(environment), install_kfp_package=False)
