"""Append one period of business time to the lake: idempotent, crash-safe, and as cheap as the period's own rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from components.contracts.artifacts import DataVersion, TableVersion
from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.loading import LoadedUseCase, load_module
from components.data_engineering.content_hash import ContentHash
from components.data_engineering.lake import (
    KNOWN_AT,
    STATE_KEY,
    Period,
    TableState,
    arrow_schema,
    data_version,
    groups,
    last_period,
    period_ending,
    record_period,
    table_state,
    table_uri,
    table_version,
)

ReadPeriod = Callable[[str, str, datetime, datetime], pd.DataFrame]
_APPLICATION = "crispline.ingest"
# Opening a version replays the commits since the last checkpoint; with Delta's default of 100 a lake of daily periods opens ever more slowly.
_CONFIGURATION = {"delta.checkpointInterval": "10"}


def ingest_period(usecase: LoadedUseCase, lake_uri: str, start: datetime, end: datetime, read_period: ReadPeriod | None = None) -> DataVersion:
    """Append all rows that became known in [start, end) to every table of the use case and return the version of the whole.

    Periods follow each other without a gap. A period that is there already is not read again: the same version comes back. After a
    crash between two tables, the same call completes the rest. `read_period` defaults to the one of the use case's source.py.

    Raises CrisplineError for a gap, a period that ends inside of what is there, or a second writer; InvalidData for rows whose columns
    or types are not the contract's.
    """
    if start >= end:
        raise CrisplineError(f"the period [{format_moment(start)}, {format_moment(end)}) is empty; `end` must lie after `start`")
    known = period_ending(lake_uri, usecase.name, end)
    if known is not None:
        return known.version
    before = last_period(lake_uri, usecase.name)
    _refuse_out_of_order(before, start, end)
    reader = read_period if read_period is not None else source_reader(usecase)
    appended: dict[str, int] = {}
    tables: dict[str, TableVersion] = {}
    for table, group in groups(usecase.config):
        name = f"{table}.{group}"
        tables[name], appended[name] = _append(usecase, lake_uri, table, group, start if before is None else before.end, end, reader)
    version = data_version(usecase.name, end, tables)
    record_period(lake_uri, usecase.name, Period(start=start if before is None else before.end, end=end, appended=appended, version=version))
    return version


def source_reader(usecase: LoadedUseCase) -> ReadPeriod:
    """`read_period` of the use case's source.py. The module is loaded once a process (it may keep what it read), again when the file changes."""
    file = usecase.folder / "source.py"
    return _load_reader(file, file.stat().st_mtime_ns)


@cache
def _load_reader(file: Path, _modified: int) -> ReadPeriod:
    reader: ReadPeriod = load_module(file).read_period
    return reader


def _refuse_out_of_order(before: Period | None, start: datetime, end: datetime) -> None:
    if before is None:
        return
    if start > before.end:
        raise CrisplineError(
            f"the lake ends at {format_moment(before.end)} and the period starts at {format_moment(start)}; "
            f"ingest [{format_moment(before.end)}, {format_moment(start)}) first"
        )
    if end < before.end:
        raise CrisplineError(
            f"the lake already holds everything known before {format_moment(before.end)}, and no period of it ends at {format_moment(end)}; "
            "use the end of a period that was ingested"
        )


def _append(usecase: LoadedUseCase, lake_uri: str, table: str, group: str, start: datetime, end: datetime, reader: ReadPeriod) -> tuple[TableVersion, int]:
    """Bring one table up to `end`: (its version, rows that the period brought)."""
    name = f"{table}.{group}"
    uri = table_uri(lake_uri, usecase.name, table, group)
    schema = arrow_schema(usecase.config, table, group)
    try:
        delta = DeltaTable(uri)
    except TableNotFoundError:
        delta = DeltaTable.create(uri, schema, mode="ignore", name=name, configuration=_CONFIGURATION)
    state = table_state(delta)
    if state is not None and state.until > end:
        raise CrisplineError(f"{name} holds rows until {format_moment(state.until)}: an ingest of that period was interrupted; repeat it before any other")
    if state is not None and state.until > start:  # an interrupted run got this far
        start = state.until
    rows = _typed(reader(table, group, start, end), schema, name) if start < end else schema.empty_table()
    _refuse_foreign_moments(rows, start, end, name)
    if not rows.num_rows:
        return table_version(name, delta.version(), state), 0
    digest = ContentHash.parse(state.digest) + ContentHash.of(rows) if state else ContentHash.of(rows)
    after = TableState(until=end, rows=rows.num_rows + (state.rows if state else 0), digest=digest.hexdigest)
    # The transaction makes a second writer's commit fail instead of appending the same period twice.
    properties = CommitProperties(
        custom_metadata={STATE_KEY: after.model_dump_json()}, app_transactions=[Transaction(_APPLICATION, delta.version() + 1)], max_commit_retries=0
    )
    try:
        write_deltalake(delta, rows, mode="append", commit_properties=properties)
    except CommitFailedError as error:
        raise CrisplineError(f"another process appends to {name} at this moment; let it finish and repeat the ingest") from error
    return table_version(name, delta.version(), after), rows.num_rows


def _typed(frame: pd.DataFrame, schema: pa.Schema, name: str) -> pa.Table:
    """The rows in the stored types. Raises InvalidData naming columns that are missing, unknown or of another type, with a sample value."""
    missing, unknown = [column for column in schema.names if column not in frame], [column for column in frame if column not in schema.names]
    if missing or unknown:
        parts = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"brings unknown {', '.join(map(str, unknown))}"] * bool(unknown)
        raise InvalidData(f"{name}: the source {' and '.join(parts)}; nothing was appended. Correct source.py or the contract in usecase.yaml")
    columns = []
    for field in schema:
        try:
            columns.append(pa.Array.from_pandas(frame[field.name], type=field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            sample = frame[field.name].dropna().head(3).tolist()
            raise InvalidData(
                f"{name}: column {field.name!r} is declared {field.type} and the source delivers {sample} ({error}); nothing was appended. "
                "Correct source.py or the contract in usecase.yaml"
            ) from error
    return pa.table(columns, schema=schema).sort_by([(KNOWN_AT, "ascending"), (schema.names[0], "ascending")])


def _refuse_foreign_moments(rows: pa.Table, start: datetime, end: datetime, name: str) -> None:
    """Rows known outside of the period would sit in a version as of a moment at which nobody knew them."""
    import pyarrow.compute as pc

    if not rows.num_rows:
        return
    known = rows[KNOWN_AT]
    extremes = pc.min_max(known)
    if known.null_count or extremes["min"].as_py() < start or extremes["max"].as_py() >= end:
        raise InvalidData(
            f"{name}: the source delivers rows without known_at or known outside of [{format_moment(start)}, {format_moment(end)}): "
            f"{extremes['min'].as_py()} to {extremes['max'].as_py()}; read_period must return exactly the rows known in the period"
        )
