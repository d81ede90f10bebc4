"""What the ingest and validation steps do around the plain functions: platform, records, files."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from components.contracts.artifacts import DataVersion
from components.contracts.durations import format_moment, parse_moment
from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore


def ingest_step(usecase: str, start: str, end: str, data_version: Path) -> None:
    """Ingest [start, end), record the data version and write it to `data_version`. Nothing is appended to a version that failed validation."""
    from components.data_engineering.ingest import ingest_period
    from components.data_engineering.lake import last_period
    from components.data_engineering.validate import refuse_failed

    platform, loaded = Platform.load(), load_usecase(usecase)
    records = RecordStore(platform.records_uri)
    before = last_period(platform.lake_uri, loaded.name)
    if before is not None and before.end < parse_moment(end):
        refuse_failed(records, before.version)
    version = ingest_period(loaded, platform.lake_uri, parse_moment(start), parse_moment(end))
    records.append(data_version_record(version))
    _write(version, data_version)


def validate_step(usecase: str, start: str, end: str, data_version: Path, report: Path) -> str:
    """Validate, write the report and the record. Raises InvalidData after that when a check failed; returns "passed" otherwise."""
    from components.data_engineering.validate import validate_period, validation_record
    from components.data_engineering.validation_report import validation_report

    platform, loaded = Platform.load(), load_usecase(usecase)
    version = DataVersion.model_validate_json(data_version.read_text())
    validation = validate_period(loaded, platform.lake_uri, version, parse_moment(start), parse_moment(end))
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(validation_report(validation))
    record = RecordStore(platform.records_uri).append(validation_record(validation))
    if not validation.passed:
        raise InvalidData(f"{len(validation.failures)} checks failed: {record.reason}", str(report))
    return record.outcome


def resolve_step(usecase: str, as_of: str, data_version: Path, wanted: str = "") -> str:
    """Write the data version as of `as_of`, or the recorded one of the id `wanted`; return its id. A version whose validation failed is refused."""
    from components.data_engineering.lake import current_version
    from components.data_engineering.validate import refuse_failed

    platform, loaded = Platform.load(), load_usecase(usecase)
    records = RecordStore(platform.records_uri)
    moment = parse_moment(as_of)
    version = wanted_version(platform, loaded.name, wanted, moment) if wanted else current_version(platform.lake_uri, loaded, moment)
    refuse_failed(records, version)
    records.append(data_version_record(version))
    _write(version, data_version)
    return version.id


def load_step(usecase: str, id: str, data_version: Path) -> None:
    """Write the recorded data version of an id."""
    _write(recorded_version(RecordStore(Platform.load().records_uri), load_usecase(usecase).name, id), data_version)


def wanted_version(platform: Platform, usecase: str, id: str, as_of: datetime) -> DataVersion:
    """A data version by its id, out of the lake's own ledger. Raises CrisplineError when it holds what became known after `as_of`, was withdrawn
    since, or never was."""
    from components.data_engineering.lake import periods

    found = next((period.version for period in periods(platform.lake_uri, usecase) if period.version.id == id), None)
    if found is None:
        recorded_version(RecordStore(platform.records_uri), usecase, id)  # says so when there never was one
        raise CrisplineError(f"data version {id} was withdrawn; leave it out, and the run takes the one as of {format_moment(as_of)}")
    if found.as_of > as_of:
        raise CrisplineError(
            f"data version {id} holds what became known until {format_moment(found.as_of)}; the run may know nothing later than {format_moment(as_of)}"
        )
    return found


def recorded_version(records: RecordStore, usecase: str, id: str) -> DataVersion:
    """A data version by its id. Raises CrisplineError when it is not recorded or is another use case's."""
    version = DataVersion.model_validate_json(json.dumps(records.get("data_version", id).details["data_version"]))
    if version.usecase != usecase:
        raise CrisplineError(f"data version {id} is of {version.usecase!r}, not of {usecase!r}")
    return version


def withdraw_step(usecase: str) -> str:
    """Take the newest period back; returns its end."""
    from components.data_engineering.withdraw import withdraw_last_period

    return format_moment(withdraw_last_period(load_usecase(usecase), Platform.load().lake_uri).end)


def data_version_record(version: DataVersion) -> Record:
    """The record of a data version; its id is the version's own."""
    rows = sum(table.rows for table in version.tables.values())
    return Record(
        kind="data_version",
        id=version.id,
        usecase=version.usecase,
        event_time=version.as_of,
        outcome="recorded",
        reason=f"{rows:,} rows of {len(version.tables)} tables, all known before {format_moment(version.as_of)}",
        details={"data_version": version.model_dump(mode="json")},
        lineage=Lineage(data_version=version.id),
    )


def _write(version: DataVersion, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(version.model_dump_json(indent=2))
