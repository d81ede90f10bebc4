"""A hash of a table's rows that grows with every append and does not depend on how the rows were split into files or periods.

Each row is written canonically and hashed with SHA-256; the table's hash is the sum of the rows' hashes modulo 2**256 (AdHash: Bellare and
Micciancio 1997, https://doi.org/10.1007/3-540-69053-0_13). With unique keys it says the same as a hash over the rows in key order, but an
append costs only its own rows. It finds accidents and careless edits; it is not meant to withstand a chosen-collision attack on the sum.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

_MODULUS = 1 << 256


@dataclass(frozen=True)
class ContentHash:
    """The hash of no rows is zero."""

    total: int = 0

    @classmethod
    def of(cls, rows: pa.Table) -> ContentHash:
        """Hash of all rows of a table. Column names and types count, too: they are the prefix of every row."""
        prefix = hashlib.sha256(";".join(f"{field.name}:{field.type}" for field in rows.schema).encode())
        total = 0
        for line in _lines(rows):
            row = prefix.copy()
            row.update(line)
            total += int.from_bytes(row.digest(), "big")
        return cls(total % _MODULUS)

    @classmethod
    def parse(cls, hexdigest: str) -> ContentHash:
        return cls(int(hexdigest, 16))

    def __add__(self, other: ContentHash) -> ContentHash:
        return ContentHash((self.total + other.total) % _MODULUS)

    @property
    def hexdigest(self) -> str:
        return f"{self.total:064x}"


def _lines(rows: pa.Table) -> list[bytes]:
    """One canonical line per row: timestamps as integers, floats in their shortest form, text quoted, null empty."""
    columns = []
    for column in rows.columns:
        if pa.types.is_timestamp(column.type):
            columns.append(column.cast(pa.int64()))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            columns.append(pc.replace_substring(pc.replace_substring(column.cast(pa.string()), "\\", "\\\\"), "\n", "\\n"))
        else:
            columns.append(column)
    if not rows.num_rows:
        return []
    buffer = io.BytesIO()
    csv.write_csv(pa.table(columns, names=rows.column_names), buffer, csv.WriteOptions(include_header=False, quoting_style="needed"))
    return buffer.getvalue().splitlines()
