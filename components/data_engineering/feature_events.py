"""Reads, at exactly the recorded versions, the rows that a feature view is computed from."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from components.contracts.artifacts import DataVersion
from components.contracts.features import FeatureView
from components.contracts.loading import LoadedUseCase
from components.data_engineering.feature_tables import KNOWN_AT, lookback
from components.data_engineering.lake import arrow_filesystem, table_uri

_TIMESTAMP = pa.timestamp("us", tz="UTC")
SMALL_FILE_BYTES, SMALL_FILES = 1 << 20, 256  # what a process keeps of a lake: some hundred megabytes at most, once decoded


def read_events(
    lake_uri: str, usecase: LoadedUseCase, data_version: DataVersion, view: FeatureView, first_tick: datetime, known_before: datetime
) -> pd.DataFrame:
    """Rows that matter for the ticks of `view` from `first_tick` on, known before `known_before`.

    Columns: `known_at`, the entity columns, the features' columns. Columns that an earlier group of the table holds (a flight's origin stands in
    its schedule) are joined by the table's key; such a row counts as known when both of its parts are.
    """
    limit = lookback(view)
    known_from = datetime(1970, 1, 1, tzinfo=UTC) if limit is None else first_tick - limit
    table = usecase.config.data.tables[view.table]
    wanted = list(dict.fromkeys([*view.entity, *(feature.column for feature in view.features)]))
    always = {*table.key, table.event_time}
    other: dict[str, list[str]] = {}
    for column in wanted:
        group = table.columns[column].known_at
        if group != view.group and column not in always:
            other.setdefault(group, []).append(column)
    own = [column for column in wanted if not any(column in columns for columns in other.values())]
    period = [(KNOWN_AT, ">=", pa.scalar(known_from, _TIMESTAMP)), (KNOWN_AT, "<", pa.scalar(known_before, _TIMESTAMP))]
    rows = read_rows(lake_uri, data_version, view.table, view.group, [*table.key, table.event_time, *own], period)
    for group, columns in other.items():
        rows = _joined(lake_uri, data_version, view.table, group, table.key, table.event_time, columns, rows, known_before)
    return rows[[KNOWN_AT, *wanted]]


def _joined(
    lake_uri: str,
    data_version: DataVersion,
    table: str,
    group: str,
    key: list[str],
    event_time: str,
    columns: list[str],
    rows: pd.DataFrame,
    known_before: datetime,
) -> pd.DataFrame:
    if rows.empty:
        return rows.assign(**{column: pd.Series(dtype=object) for column in columns})
    first, last = rows[event_time].min(), rows[event_time].max()
    filters = [
        (event_time, ">=", pa.scalar(first, _TIMESTAMP)),
        (event_time, "<=", pa.scalar(last, _TIMESTAMP)),
        (KNOWN_AT, "<", pa.scalar(known_before, _TIMESTAMP)),
    ]
    part = read_rows(lake_uri, data_version, table, group, [*key, *columns], filters)
    merged = rows.merge(part.rename(columns={KNOWN_AT: "_known_at"}), on=key, how="inner", validate="many_to_one")
    return merged.assign(**{KNOWN_AT: merged[[KNOWN_AT, "_known_at"]].max(axis=1)}).drop(columns="_known_at")


def read_rows(lake_uri: str, data_version: DataVersion, table: str, group: str, columns: list[str], filters: list[tuple[str, str, Any]]) -> pd.DataFrame:
    """Columns and `known_at` of one group's rows that pass `filters` (column, operator, Arrow scalar), at exactly the recorded version.

    Only the files whose statistics allow a hit are opened. `DeltaTable.to_pyarrow_table` does that, too, but makes a fragment of every file
    first: with one file per ingested day that is most of the time of a publication after some months.
    """
    recorded = data_version.tables[f"{table}.{group}"]
    uri = table_uri(lake_uri, data_version.usecase, table, group)
    delta, filesystem = DeltaTable(uri, version=recorded.version), arrow_filesystem(uri)
    wanted = list(dict.fromkeys([*columns, KNOWN_AT]))
    files = _matching_files(pa.table(delta.get_add_actions(flatten=True)), filters)
    expression, needed = pq.filters_to_expression(filters), tuple(dict.fromkeys([*wanted, *(column for column, _, _ in filters)]))
    parts = [
        _small_file(uri, path, needed).filter(expression).select(wanted)
        if size <= SMALL_FILE_BYTES
        else pq.read_table(path, columns=wanted, filters=expression, filesystem=filesystem)
        for path, size in files
    ]
    if not parts:
        schema = pa.schema(delta.schema().to_arrow())
        parts = [pa.schema([schema.field(name) for name in wanted]).empty_table()]
    frame: pd.DataFrame = pa.concat_tables(parts).to_pandas()
    return frame


@lru_cache(maxsize=SMALL_FILES)
def _small_file(uri: str, path: str, columns: tuple[str, ...]) -> pa.Table:
    """A data file's columns. Delta names a file anew whenever it writes one, so what was read stays true; a publisher reads most files every day."""
    return pq.read_table(path, columns=list(columns), filesystem=arrow_filesystem(uri))


def _matching_files(files: pa.Table, filters: list[tuple[str, str, Any]]) -> list[tuple[str, int]]:
    """Path and bytes of the files that may hold a matching row; a file without statistics may. Sorted, so that a version is always read in one order."""
    keep = np.ones(files.num_rows, dtype=bool)
    for column, operator, value in filters:
        bound = f"max.{column}" if operator in (">", ">=") else f"min.{column}"
        if bound in files.column_names:
            compare = pc.greater_equal if operator in (">", ">=") else pc.less_equal
            keep &= pc.fill_null(compare(files[bound].cast(value.type), value), True).to_numpy(zero_copy_only=False)
    kept = files.filter(pa.array(keep))
    return sorted(zip(kept["path"].to_pylist(), kept["size_bytes"].to_pylist(), strict=True))
