"""What pipelines, versions and runs of crispline are called in Kubeflow Pipelines, and back."""

from __future__ import annotations

from components.contracts.errors import CrisplineError

PIPELINES = ("data", "training", "retraining", "batch_scoring", "monitoring")
# Names are those of Kubernetes objects when Kubeflow Pipelines keeps its pipelines in Kubernetes, and label values of a run's pods.
LONGEST_NAME = 63
VERSION_DIGITS = 12


def pipeline_name(usecase: str, environment: str, pipeline: str) -> str:
    """`flights-dev-batch-scoring`. Raises CrisplineError when that is too long for a label."""
    name = "-".join((usecase, environment, pipeline)).replace("_", "-")
    if len(name) + VERSION_DIGITS + 1 > LONGEST_NAME:
        raise CrisplineError(f"the pipeline's name {name!r} and its version exceed {LONGEST_NAME} characters; shorten the name of the use case")
    return name


def version_name(content_hash: str) -> str:
    """Within its pipeline: the beginning of the hash over what was compiled."""
    return content_hash[:VERSION_DIGITS]


def version_display_name(pipeline: str, content_hash: str) -> str:
    """`flights-dev-training-0123456789ab`: for people, and as a Kubernetes object; unique over all pipelines of a namespace."""
    return f"{pipeline}-{version_name(content_hash)}"


def pipeline_of(name: str) -> str:
    """Which of PIPELINES a pipeline of that name is; the empty string for one that is none of ours."""
    return next((each for each in PIPELINES if name.endswith("-" + each.replace("_", "-"))), "")
