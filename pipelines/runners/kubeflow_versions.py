"""Compiled pipelines in Kubeflow Pipelines: uploaded once, under a name that follows from their content."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from components.contracts.errors import CrisplineError
from pipelines.runners.kubeflow_api import CONFLICT, Criterion, PipelinesRefused, PipelinesSilent, filter_of
from pipelines.runners.kubeflow_names import version_display_name, version_name
from pipelines.runners.kubeflow_runs import KubeflowRuns, PipelineVersion, version_of


@dataclass(frozen=True)
class Published:
    """`uploaded`: whether this call did it; a version whose content did not change is there already."""

    version: PipelineVersion
    uploaded: bool


def content_hash(compiled: str) -> str:
    """SHA-256 (hex) over what a compiled pipeline says, whatever the order and the comments of its YAML."""
    documents = [document for document in yaml.load_all(compiled, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if document]
    return hashlib.sha256(yaml.safe_dump_all(documents, sort_keys=True).encode()).hexdigest()


def publish(runs: KubeflowRuns, pipeline: str, compiled: str, description: str) -> Published:
    """The version of `pipeline` (its name in Kubeflow Pipelines) with this content, uploaded unless it is there. Safe to repeat.

    Raises CrisplineError when Kubeflow Pipelines refuses it. A silence after an upload is looked into: the version may be there.
    """
    digest = content_hash(compiled)
    name = version_display_name(pipeline, digest)
    id = _pipeline(runs, pipeline, description)
    found = find_version(runs, pipeline, id, name)
    if found is not None:
        return Published(found, uploaded=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_text(compiled)
        try:
            upload = runs.api.uploads.upload_pipeline_version
            runs.api.call(upload, str(file), name=version_name(digest), display_name=name, pipelineid=id, description=description)
        except (PipelinesSilent, PipelinesRefused) as error:
            if isinstance(error, PipelinesRefused) and error.status != CONFLICT:
                raise
            found = find_version(runs, pipeline, id, name)
            if found is None:
                raise
            return Published(found, uploaded=False)
    found = find_version(runs, pipeline, id, name)
    if found is None:
        raise CrisplineError(f"Kubeflow Pipelines at {runs.api.url} took version {name} and does not list it; look at its log")
    return Published(found, uploaded=True)


def find_version(runs: KubeflowRuns, pipeline: str, id: str, name: str) -> PipelineVersion | None:
    """A version by its display name; None when there is none."""
    versions = runs.api.pipelines.pipeline_service_list_pipeline_versions
    page = runs.api.call(versions, id, page_size=1, filter=filter_of(Criterion("display_name", name)))
    return version_of(pipeline, page.pipeline_versions[0]) if page.pipeline_versions else None


def _pipeline(runs: KubeflowRuns, name: str, description: str) -> str:
    import kfp_server_api as server

    id = runs.pipeline_id(name)
    if id is not None:
        return id
    wanted = server.V2beta1Pipeline(name=name, display_name=name, description=description, namespace=runs.api.namespace or None)
    try:
        return str(runs.api.call(runs.api.pipelines.pipeline_service_create_pipeline, wanted).pipeline_id)
    except (PipelinesSilent, PipelinesRefused) as error:
        id = runs.pipeline_id(name) if isinstance(error, PipelinesSilent) or error.status == CONFLICT else None
        if id is None:
            raise
        return id
