"""Reads, at exactly the recorded versions, the rows that a feature view is computed from."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from components.contracts.artifacts import DataVersion
from components.contracts.errors import InvalidData
from components.contracts.features import FeatureView
from components.contracts.loading import LoadedUseCase
from components.data_engineering.feature_tables import lookback
from components.data_engineering.lake import KNOWN_AT, TIMESTAMP, read_table

_OTHER_KNOWN_AT = "_known_at"


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
    period = [(KNOWN_AT, ">=", pa.scalar(known_from, TIMESTAMP)), (KNOWN_AT, "<", pa.scalar(known_before, TIMESTAMP))]
    rows = read_table(lake_uri, data_version, view.table, view.group, [*table.key, table.event_time, *own], period)
    for group, columns in other.items():
        rows = _joined(lake_uri, data_version, view.table, group, table.key, table.event_time, columns, rows, known_before)
    frame: pd.DataFrame = rows.select([KNOWN_AT, *wanted]).to_pandas()
    return frame


def _joined(
    lake_uri: str,
    data_version: DataVersion,
    table: str,
    group: str,
    key: list[str],
    event_time: str,
    columns: list[str],
    rows: pa.Table,
    known_before: datetime,
) -> pa.Table:
    """`rows` with `columns` of another group, joined by the key in Arrow: pandas would number every distinct key first."""
    before = pa.scalar(known_before, TIMESTAMP)
    period = pc.min_max(rows[event_time]) if rows.num_rows else {"min": before, "max": before}
    filters = [(event_time, ">=", period["min"]), (event_time, "<=", period["max"]), (KNOWN_AT, "<", before)]
    part = read_table(lake_uri, data_version, table, group, [*key, *columns], filters).rename_columns({KNOWN_AT: _OTHER_KNOWN_AT})
    if part.group_by(key, use_threads=False).aggregate([]).num_rows < part.num_rows:
        raise InvalidData(
            f"{table}.{group} holds a key ({', '.join(key)}) twice, so its rows cannot be joined\n    remedy: validate the period; see its report"
        )
    merged = rows.join(part, keys=key, join_type="inner", use_threads=False)
    own, others = merged[KNOWN_AT], merged[_OTHER_KNOWN_AT]
    known = pc.if_else(pc.greater(own, others), own, others)
    return merged.set_column(merged.column_names.index(KNOWN_AT), KNOWN_AT, known).drop_columns(_OTHER_KNOWN_AT)
