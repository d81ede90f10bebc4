"""The same metrics within each part of a slice, and over protected attributes where the use case declares some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from components.contracts.errors import CrisplineError
from components.contracts.evaluation import SlicePart
from components.contracts.usecase import Metric, Slice, UseCase
from components.evaluation.bootstrap import BoolArray, DayBootstrap
from components.evaluation.cost import decisions
from components.evaluation.metrics import Scored, measure

MISSING = "missing"
PROTECTED_BANDS = 4
# An integer with more distinct values (an age) is a quantity, not a group.
MAXIMUM_VALUES = 10


def measure_slices(
    frame: pd.DataFrame, scored: Scored, bootstrap: DayBootstrap, slices: Sequence[Slice], metrics: Sequence[Metric], protected: Iterable[str] = ()
) -> tuple[SlicePart, ...]:
    """Every part of every slice of `frame` [rows], in order; a part that cannot be judged is listed with the reason.

    Raises CrisplineError when the dataset lacks a slice's column.
    """
    guarded = set(protected)
    return tuple(_part(part, name, rows, scored, bootstrap, metrics, guarded) for part in slices for name, rows in parts_of(frame, part))


def slices_with_protected(config: UseCase, frame: pd.DataFrame) -> tuple[list[Slice], set[str]]:
    """The declared slices, one more for each protected column that the dataset has, and the names of those that are protected."""
    protected = {name: column for table in config.data.tables.values() for name, column in table.columns.items() if column.protected and name in frame.columns}
    slices = list(config.evaluation.slices)
    sliced = {part.column for part in slices}
    for name, column in protected.items():
        if name not in sliced:
            slices.append(Slice(name=name, column=name, bands=_bands(frame[name]) if _needs_bands(column.type, frame[name]) else None))
    return slices, {part.name for part in slices if part.column in protected}


def parts_of(frame: pd.DataFrame, part: Slice) -> Iterator[tuple[str, BoolArray]]:
    """(name, mask [rows]) of each part; bands include their upper edge, the first one both; rows without a value, or outside of all
    bands, form a part of their own."""
    if part.column not in frame.columns:
        raise CrisplineError(
            f"slice {part.name!r} needs the column {part.column!r}, which the dataset does not have; add it to the dataset, or remove the slice"
        )
    values = frame[part.column]
    if part.bands is not None:
        labels = [f"{low:g} to {high:g}" for low, high in zip(part.bands, part.bands[1:], strict=False)]
        named = pd.cut(values.astype("float64"), part.bands, labels=labels, include_lowest=True).astype(object)
        order = [label for label in labels if (named == label).any()]
        if named.isna().any():
            outside = named.isna() & values.notna()
            named = named.mask(outside, "outside of the bands")
            order += ["outside of the bands"] if outside.any() else []
    else:
        named = values.astype(object)
        order = sorted(named.dropna().unique().tolist(), key=lambda value: (str(type(value)), value))
    for value in order:
        yield str(value), (named == value).to_numpy(dtype=np.bool_)
    if values.isna().any():
        yield MISSING, values.isna().to_numpy(dtype=np.bool_)


def _part(part: Slice, name: str, rows: BoolArray, scored: Scored, bootstrap: DayBootstrap, metrics: Sequence[Metric], protected: set[str]) -> SlicePart:
    inside = scored.part(rows)
    count, positives = len(inside.label), int(inside.label.sum())
    why_not = ""
    if count < part.minimum_rows:
        why_not = f"{count} labelled rows, {part.minimum_rows} are needed"
    elif positives in (0, count):
        why_not = f"all {count} labels are {'positive' if positives else 'negative'}"
    values = {} if why_not else measure(metrics, inside, bootstrap.part(rows))
    if not why_not and len(values) < len(metrics):
        absent = ", ".join(metric for metric in metrics if metric not in values)
        why_not, values = f"{absent} cannot be computed in half of the bootstrap's draws: too few days with both classes", {}
    return SlicePart(
        slice=part.name,
        part=name,
        rows=count,
        positives=positives,
        judged=not why_not,
        why_not=why_not,
        protected=part.name in protected,
        metrics=values,
        decisions=decisions(inside) if count and not why_not else None,
    )


def _needs_bands(type: str, values: pd.Series) -> bool:
    return type == "float" or (type == "integer" and values.nunique() > MAXIMUM_VALUES)


def _bands(values: pd.Series) -> list[float]:
    return sorted({float(edge) for edge in values.dropna().quantile(np.linspace(0, 1, PROTECTED_BANDS + 1))})
