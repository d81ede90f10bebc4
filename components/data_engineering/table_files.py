"""Reads rows of one version of a Delta table: only from the files whose statistics allow a hit, each small file once a process.

`DeltaTable.to_pyarrow_table` prunes, too, but makes a fragment of every file first: with one file per ingested day that is most of the time of a
read after some months. Delta names a file anew whenever it writes one, and a recorded version's digest says what is in it, so what was read of
either stays true, also when the folder is removed and another table made in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from deltalake import DeltaTable

from components.contracts.artifacts import TableVersion

Filter = tuple[str, str, Any]  # column, one of > >= < <=, Arrow scalar
SMALL_FILE_BYTES, SMALL_FILES = 1 << 20, 256  # what a process keeps of a lake: some hundred megabytes at most, once decoded


def read_files(uri: str, recorded: TableVersion, columns: list[str] | None, filters: list[Filter]) -> pa.Table:
    """Rows that pass `filters`, file by file in order of the files' names. `columns`: None is all, in the table's order."""
    contents = _contents(uri, recorded.version, recorded.content_hash)
    wanted = contents.schema.names if columns is None else list(dict.fromkeys(columns))
    needed = tuple(dict.fromkeys([*wanted, *(column for column, _, _ in filters)]))
    passing = pq.filters_to_expression(filters) if filters else None
    parts = []
    for path, size in _matching_files(contents.files, filters):
        if size <= SMALL_FILE_BYTES:
            rows = _small_file(uri, path, needed)
            parts.append((rows if passing is None else rows.filter(passing)).select(wanted))
        else:
            parts.append(pq.read_table(path, columns=wanted, filters=passing, filesystem=arrow_filesystem(uri)))
    return pa.concat_tables(parts or [pa.schema([contents.schema.field(name) for name in wanted]).empty_table()])


def arrow_filesystem(uri: str) -> pa_fs.FileSystem:
    """Arrow's own filesystem, rooted at `uri` (a path, s3://, gs://, abfs://).

    Never a file object of Python's: Arrow's threads would call into the interpreter, and one that does so while it ends can abort the process
    after its work is done. Seen as "terminate called without an active exception": 1 of 16 ingests on a busy machine before, 0 of 40 since.
    """
    filesystem, path = pa_fs.FileSystem.from_uri(uri)
    return pa_fs.SubTreeFileSystem(path, filesystem)


@dataclass(frozen=True)
class _Contents:
    """What a table's version consists of: its data files with their statistics, and the schema."""

    files: pa.Table
    schema: pa.Schema


@lru_cache(maxsize=64)
def _contents(uri: str, version: int, _digest: str) -> _Contents:
    """Opening a version costs more than reading a day from it."""
    table = DeltaTable(uri, version=version)
    return _Contents(pa.table(table.get_add_actions(flatten=True)), pa.schema(table.schema().to_arrow()))


@lru_cache(maxsize=SMALL_FILES)
def _small_file(uri: str, path: str, columns: tuple[str, ...]) -> pa.Table:
    """A data file's columns; a publisher reads most files every day."""
    return pq.read_table(path, columns=list(columns), filesystem=arrow_filesystem(uri))


def _matching_files(files: pa.Table, filters: list[Filter]) -> list[tuple[str, int]]:
    """Path and bytes of the files that may hold a matching row; a file without statistics may. Sorted, so that a version is always read in one order."""
    keep = np.ones(files.num_rows, dtype=bool)
    for column, operator, value in filters:
        bound = f"max.{column}" if operator in (">", ">=") else f"min.{column}"
        if bound in files.column_names:
            compare = pc.greater_equal if operator in (">", ">=") else pc.less_equal
            keep &= pc.fill_null(compare(files[bound].cast(value.type), value), True).to_numpy(zero_copy_only=False)
    kept = files.filter(pa.array(keep))
    return sorted(zip(kept["path"].to_pylist(), kept["size_bytes"].to_pylist(), strict=True))
