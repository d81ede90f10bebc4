"""The first step of a run on Kubeflow Pipelines. Environment: pipeline."""

from typing import NamedTuple

from components.environments.images import step


@step("pipeline")
def resolve_request(usecase: str, pipeline: str, created: str, as_of: str = "", start: str = "", end: str = "", cause: str = "") -> NamedTuple(  # type: ignore[valid-type, misc]
    "Request", [("as_of", str), ("start", str), ("end", str), ("cause", str)]
):
    """What the run was asked for, made definite: moments relative to when it was created (`created`) become absolute, a cause gets a name."""
    from collections import namedtuple
    from dataclasses import astuple, fields

    from components.data_engineering.request_steps import resolve_request

    request = resolve_request(usecase, pipeline, created, as_of, start, end, cause)
    return namedtuple("Request", [each.name for each in fields(request)])(*astuple(request))
