"""Pandera schemas built from the contract of the columns in usecase.yaml; nothing is written twice."""

from __future__ import annotations

from datetime import datetime

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from components.contracts.usecase import Column, UseCase
from components.data_engineering.lake import KNOWN_AT, group_columns

_DTYPES = {
    "integer": "int64",
    "float": "float64",
    "boolean": "bool",
    "category": "object",
    "string": "object",
    "timestamp": "datetime64[us, UTC]",
}
# pandas has no null in these two, so a nullable column uses its extension type
_NULLABLE_DTYPES = {"integer": "Int64", "boolean": "boolean"}


def group_schema(config: UseCase, table: str, group: str, start: datetime, end: datetime) -> pa.DataFrameSchema:
    """Schema of one known-at group's rows that became known in [start, end): types, ranges, categories, nulls, unique key, no other column."""
    columns = {name: _column(column) for name, column in group_columns(config, table, group).items()}
    within = pa.Check(lambda known: (known >= pd.Timestamp(start)) & (known < pd.Timestamp(end)), error="known within the period")
    columns[KNOWN_AT] = pa.Column(_DTYPES["timestamp"], within, nullable=False)
    return pa.DataFrameSchema(columns, strict=True, unique=config.data.tables[table].key, report_duplicates="all", name=f"{table}.{group}")


def breaches(schema: pa.DataFrameSchema, rows: pd.DataFrame) -> pd.DataFrame:
    """All breaches at once, empty when there are none: columns `column`, `check`, `index` (row of `rows`; null for a whole column), `value`."""
    try:
        schema.validate(rows, lazy=True)
    except SchemaErrors as errors:
        cases = errors.failure_cases
        return pd.DataFrame({"column": cases["column"], "check": cases["check"], "index": cases["index"], "value": cases["failure_case"]})
    return pd.DataFrame(columns=["column", "check", "index", "value"])


def _column(column: Column) -> pa.Column:
    checks = []
    if column.range is not None:
        low, high = column.range
        checks.append(pa.Check.in_range(low, high, error=f"in the range {low:g} to {high:g}"))
    if column.categories is not None:
        checks.append(pa.Check.isin(column.categories, error=f"one of {', '.join(column.categories)}"))
    if column.type in ("category", "string"):
        checks.append(pa.Check(lambda values: values.map(type).eq(str), error="text"))
    dtype = _NULLABLE_DTYPES.get(column.type, _DTYPES[column.type]) if column.nullable else _DTYPES[column.type]
    return pa.Column(dtype, checks, nullable=column.nullable, coerce=column.nullable and column.type in _NULLABLE_DTYPES)
