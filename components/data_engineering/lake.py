"""The lake: one append-only Delta table per known-at group, and a ledger that says which versions belong to which moment of business time.

Delta was chosen over content-addressed Parquet because an append is one atomic commit that carries our metadata, two writers that append
at once conflict instead of doubling rows, and every engine that a larger installation uses reads it.

Layout: `<lake_uri>/<use case>/<table>.<group>` (Delta) and `<lake_uri>/<use case>/_periods/<end>.json` (one `Period` per ingested period).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
from deltalake import DeltaTable
from pydantic import BaseModel, ConfigDict
from upath import UPath

from components.contracts.artifacts import DataVersion, TableVersion
from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.loading import LoadedUseCase
from components.contracts.records import record_id
from components.contracts.storage import names_in, read_folder, read_whole, remove, storage_path, write_atomically
from components.contracts.usecase import Column, Moment, UseCase
from components.data_engineering.content_hash import ContentHash
from components.data_engineering.table_files import Filter, arrow_filesystem, read_files

if TYPE_CHECKING:
    import pandas as pd

KNOWN_AT = "known_at"
STATE_KEY = "crispline.state"
TIMESTAMP = pa.timestamp("us", tz="UTC")
_ARROW_TYPES: dict[str, pa.DataType] = {
    "integer": pa.int64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "string": pa.string(),
    "timestamp": TIMESTAMP,
}


class Period(BaseModel):
    """One ingested period [start, end) and the version of all tables after it. `appended`: rows that it brought, by table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Moment
    end: Moment
    appended: dict[str, int]
    version: DataVersion


class TableState(BaseModel):
    """What a commit says of its table: rows known before `until` are in it; `rows` and `digest` cover all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: Moment
    rows: int
    digest: str


def groups(config: UseCase) -> list[tuple[str, str]]:
    """All (table, group) of a use case, in the order of usecase.yaml."""
    return [(table, group) for table, contract in config.data.tables.items() for group in contract.known_at]


def group_columns(config: UseCase, table: str, group: str) -> dict[str, Column]:
    """Contracts of a group's columns as stored: the table's key, its event time, then the group's own columns (without `known_at`)."""
    contract = config.data.tables[table]
    leading = [*contract.key, contract.event_time]
    own = [name for name, column in contract.columns.items() if column.known_at == group and name not in leading]
    return {name: contract.columns[name] for name in dict.fromkeys([*leading, *own])}


def arrow_schema(config: UseCase, table: str, group: str) -> pa.Schema:
    """The stored types; `known_at` is last."""
    fields = [pa.field(name, _ARROW_TYPES[column.type]) for name, column in group_columns(config, table, group).items()]
    return pa.schema([*fields, pa.field(KNOWN_AT, TIMESTAMP)])


def table_uri(lake_uri: str, usecase: str, table: str, group: str) -> str:
    return str(storage_path(lake_uri) / usecase / f"{table}.{group}")


def current_version(lake_uri: str | UPath, usecase: LoadedUseCase, as_of: datetime) -> DataVersion:
    """The version of all tables as of a moment of business time: the last ingested period that ends at or before it.

    Later appends do not change the answer. Raises CrisplineError when nothing was ingested by then.
    """
    found = [name for name in _ledger(lake_uri, usecase.name) if name <= _ledger_name(as_of)]
    if not found:
        raise CrisplineError(
            f"the lake {lake_uri} holds nothing of {usecase.name!r} as of {format_moment(as_of)}; ingest a period first: crispline run data --usecase {usecase.name}"
        )
    return _read_period_entry(lake_uri, usecase.name, found[-1]).version


def periods(lake_uri: str, usecase: str) -> list[Period]:
    """All ingested periods in order of their end."""
    return [Period.model_validate_json(content) for content in read_folder(_ledger_folder(lake_uri, usecase), _is_entry).values()]


def last_period(lake_uri: str, usecase: str) -> Period | None:
    names = _ledger(lake_uri, usecase)
    return _read_period_entry(lake_uri, usecase, names[-1]) if names else None


def period_ending(lake_uri: str, usecase: str, end: datetime) -> Period | None:
    try:
        return _read_period_entry(lake_uri, usecase, _ledger_name(end))
    except FileNotFoundError:
        return None


def record_period(lake_uri: str, usecase: str, period: Period) -> None:
    """Enter a finished period in the ledger; this is the moment at which its rows count as ingested."""
    write_atomically(_entry_path(lake_uri, usecase, _ledger_name(period.end)), period.model_dump_json(indent=2).encode())


def forget_period(lake_uri: str, usecase: str, period: Period) -> None:
    """Strike a period from the ledger; its tables must have been restored before."""
    remove(_entry_path(lake_uri, usecase, _ledger_name(period.end)))


def read_group(
    lake_uri: str,
    data_version: DataVersion,
    table: str,
    group: str,
    *,
    known_from: datetime | None = None,
    known_before: datetime | None = None,
    columns: list[str] | None = None,
) -> pd.DataFrame:
    """Rows of one group at exactly the recorded Delta version, ordered by `known_at`, then key.

    `known_from` (inclusive) and `known_before` (exclusive) narrow by `known_at`; files outside are not opened. Timestamps are
    `datetime64[us, UTC]`, categories and strings `object`, a missing value is None or NaN.
    Raises CrisplineError when the version has no such group.
    """
    filters: list[Filter] = []
    if known_from is not None:
        filters.append((KNOWN_AT, ">=", pa.scalar(known_from, TIMESTAMP)))
    if known_before is not None:
        filters.append((KNOWN_AT, "<", pa.scalar(known_before, TIMESTAMP)))
    content = read_table(lake_uri, data_version, table, group, columns, filters)
    keys = [(name, "ascending") for name in content.column_names if name != KNOWN_AT]
    rows: pd.DataFrame = content.sort_by([(KNOWN_AT, "ascending"), *keys[:1]]).to_pandas()
    return rows


def verify_version(lake_uri: str, data_version: DataVersion) -> None:
    """Read all rows of a recorded version again. Raises IntegrityError when count or content hash differ from the record."""
    for name, recorded in data_version.tables.items():
        table, group = name.split(".")
        uri = table_uri(lake_uri, data_version.usecase, table, group)
        content = DeltaTable(uri, version=recorded.version).to_pyarrow_table(filesystem=arrow_filesystem(uri))  # from the files, whatever was read before
        found = ContentHash.of(content).hexdigest
        if content.num_rows != recorded.rows or found != recorded.content_hash:
            raise IntegrityError(
                f"{name} at version {recorded.version} holds {content.num_rows} rows with hash {found[:12]}, recorded were {recorded.rows} with "
                f"{recorded.content_hash[:12]}; restore the lake from a copy, do not train on it"
            )


def table_state(table: DeltaTable) -> TableState | None:
    """The state that the newest of our commits left; a compaction in between, made by someone else, does not hide it."""
    for limit in (1, None):
        for commit in table.history(limit):
            if STATE_KEY in commit:
                return TableState.model_validate_json(commit[STATE_KEY])
    return None


def table_version(name: str, version: int, state: TableState | None) -> TableVersion:
    return TableVersion(
        table=name,
        version=version,
        rows=state.rows if state else 0,
        content_hash=state.digest if state else ContentHash().hexdigest,
    )


def data_version(usecase: str, as_of: datetime, tables: Mapping[str, TableVersion]) -> DataVersion:
    """A DataVersion whose id follows from its moment and contents: the same rows have the same id, however they were split into periods."""
    contents = [f"{name}:{table.rows}:{table.content_hash}" for name, table in sorted(tables.items())]
    return DataVersion(id=record_id(usecase, as_of, *contents), usecase=usecase, as_of=as_of, tables=dict(tables))


def read_table(lake_uri: str, data_version: DataVersion, table: str, group: str, columns: list[str] | None, filters: list[Filter]) -> pa.Table:
    """`columns` (None is all) and `known_at` of one group's rows that pass `filters`, at exactly the recorded version, in no particular order.

    Raises CrisplineError when the version has no such group.
    """
    name = f"{table}.{group}"
    if name not in data_version.tables:
        raise CrisplineError(f"data version {data_version.id} has no table {name}; it has {', '.join(data_version.tables)}")
    uri = table_uri(lake_uri, data_version.usecase, table, group)
    return read_files(uri, data_version.tables[name], None if columns is None else [*columns, KNOWN_AT], filters)


def _ledger(lake_uri: str | UPath, usecase: str) -> list[str]:
    return [name.removesuffix(".json") for name in names_in(_ledger_folder(lake_uri, usecase)) if _is_entry(name)]


def _ledger_folder(lake_uri: str | UPath, usecase: str) -> UPath:
    return storage_path(lake_uri) / usecase / "_periods"


def _is_entry(name: str) -> bool:
    return name.endswith(".json")


def _ledger_name(end: datetime) -> str:
    """Sorts as the moments do."""
    return end.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def _entry_path(lake_uri: str | UPath, usecase: str, name: str) -> UPath:
    return _ledger_folder(lake_uri, usecase) / f"{name}.json"


def _read_period_entry(lake_uri: str | UPath, usecase: str, name: str) -> Period:
    return Period.model_validate_json(read_whole(_entry_path(lake_uri, usecase, name)))
