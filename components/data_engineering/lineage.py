"""OpenLineage run events: which dataset was built from which versions of which tables (https://openlineage.io/docs/spec/object-model)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.contracts.artifacts import DatasetManifest, DataVersion
from components.contracts.durations import format_moment
from components.contracts.storage import is_local, storage_path

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient

NAMESPACE = "crispline"
_PRODUCER = "urn:crispline:data_engineering"
_RUNS = uuid.UUID("7a5f7c1e-6f0b-5f3a-9f0e-0c6b5a1d2013")


def emit_dataset_built(lineage_uri: str, manifest: DatasetManifest, columns: Mapping[str, str]) -> str:
    """Say that a training dataset was built. `columns`: type by name. Returns the run's id, which follows from the dataset's: a repetition is the same run."""
    version = manifest.data_version
    return _emit(
        lineage_uri, version, "build_features", manifest.id, f"{manifest.usecase}.dataset", manifest.content_hash, manifest.rows, columns, version.as_of
    )


def emit_materialised(lineage_uri: str, data_version: DataVersion, end: datetime, rows: Mapping[str, int]) -> str:
    """Say that features were published until `end`. `rows`: rows by served view name."""
    views = dict.fromkeys(rows, "feature view")
    subject = f"{data_version.id}-{format_moment(end)}"
    return _emit(
        lineage_uri, data_version, "materialise", subject, f"{data_version.usecase}.online_features", format_moment(end), sum(rows.values()), views, end
    )


def _emit(
    lineage_uri: str,
    version: DataVersion,
    job: str,
    subject: str,
    output: str,
    output_version: str,
    rows: int,
    columns: Mapping[str, str],
    event_time: datetime,
) -> str:
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import dataset_version_dataset, output_statistics_output_dataset, schema_dataset

    run = str(uuid.uuid5(_RUNS, f"{job}/{subject}"))
    inputs = [
        InputDataset(
            namespace=NAMESPACE,
            name=f"{version.usecase}.{name}",
            facets={"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=f"{table.version}:{table.content_hash}")},
        )
        for name, table in version.tables.items()
    ]
    fields = [schema_dataset.SchemaDatasetFacetFields(name=name, type=kind) for name, kind in columns.items()]
    result = OutputDataset(
        namespace=NAMESPACE,
        name=output,
        facets={
            "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=output_version),
            "schema": schema_dataset.SchemaDatasetFacet(fields=fields),
        },
        outputFacets={"outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)},
    )
    client = _client(lineage_uri, run)
    for state in (RunState.START, RunState.COMPLETE):
        client.emit(
            RunEvent(
                eventType=state,
                eventTime=format_moment(event_time),
                producer=_PRODUCER,
                run=Run(runId=run),
                job=Job(namespace=NAMESPACE, name=f"{version.usecase}.{job}"),
                inputs=inputs,
                outputs=[result],
            )
        )
    return run


def _client(lineage_uri: str, run: str) -> OpenLineageClient:
    """Events go to a lineage server (http, https), or are appended to a local file, one a line, or become objects under a URI, one an event.

    Nothing can be appended to an object: their names begin with the run, so that no two runs ever write the same one.
    """
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.file import FileConfig, FileTransport
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    logging.getLogger("openlineage").setLevel(logging.WARNING)
    if lineage_uri.startswith(("http://", "https://")):
        return OpenLineageClient(transport=HttpTransport(HttpConfig(url=lineage_uri)))
    if is_local(storage_path(lineage_uri)):
        Path(lineage_uri).parent.mkdir(parents=True, exist_ok=True)
        return OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=lineage_uri, append=True)))
    return OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=f"{lineage_uri.rstrip('/')}/{run}")))
