"""Phase 2, first half: KFP definitions of ingest and validation. Environment: pipeline."""

from kfp.dsl import HTML, Artifact, Input, Output

from components.environments.images import step


@step("pipeline")
def ingest(usecase: str, start: str, end: str, data_version: Output[Artifact]):  # type: ignore[no-untyped-def]
    """Append all rows that became known in [start, end) to the lake and record the data version."""
    from pathlib import Path

    from components.data_engineering.ingest_steps import ingest_step

    ingest_step(usecase, start, end, Path(data_version.path))


@step("pipeline")
def validate(usecase: str, start: str, end: str, data_version: Input[Artifact], report: Output[HTML]) -> str:
    """Hold the period against the contract and its history; a breach stops the pipeline after the report is written."""
    from pathlib import Path

    from components.data_engineering.ingest_steps import validate_step

    return validate_step(usecase, start, end, Path(data_version.path), Path(report.path))


@step("pipeline")
def resolve_data_version(usecase: str, as_of: str, data_version: Output[Artifact], wanted: str = "") -> str:
    """The recorded data version as of a moment of business time, or `wanted`, the id of a version that holds nothing known later; returns its id."""
    from pathlib import Path

    from components.data_engineering.ingest_steps import resolve_step

    return resolve_step(usecase, as_of, Path(data_version.path), wanted)


@step("pipeline")
def load_data_version(usecase: str, id: str, data_version: Output[Artifact]):  # type: ignore[no-untyped-def]
    """A recorded data version by its id. Kubeflow Pipelines' cache knows an artifact by its number: the same id must come from the same run."""
    from pathlib import Path

    from components.data_engineering.ingest_steps import load_step

    load_step(usecase, id, Path(data_version.path))


@step("pipeline")
def withdraw(usecase: str) -> str:
    """Take the newest period back, so that corrected rows can be ingested in its place."""
    from components.data_engineering.ingest_steps import withdraw_step

    return withdraw_step(usecase)
