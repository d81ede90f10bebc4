"""What a feature view publishes at each tick of its cadence, computed from the rows of its known-at group.

The row of an entity at tick T is a function of the rows known at T, no older than the view's lookback, and of nothing else: not of the
order of the rows, not of the period that is built with it. So a day that is built alone for the online store and the same day inside a
year that is built for training give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.contracts.features import Aggregate, FeatureView, Latest
from components.data_engineering.lake import KNOWN_AT

EVENT_TIMESTAMP: Final = "event_timestamp"
STAMP: Final = "datetime64[us, UTC]"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def tick_key(view: FeatureView) -> str:
    """Name of the join key that holds the tick of a view that is keyed by tick."""
    return f"{view.name}_tick"


def join_key_columns(view: FeatureView) -> tuple[str, ...]:
    """The view's join keys: its entity columns and, when it is keyed by tick, the tick."""
    return (*view.entity, tick_key(view)) if view.keyed_by_tick else view.entity


def tick_numbers(view: FeatureView, moments: pd.Series[Any]) -> Integers:
    """The number of the last tick at or before each moment: whole cadences since the epoch."""
    return _microseconds(moments) // _length(view.cadence)


def ticks_between(cadence: timedelta, start: datetime, end: datetime) -> Integers:
    """Numbers of the ticks in [start, end)."""
    first, last = (-((_EPOCH - moment) // cadence) for moment in (start, end))
    return np.arange(first, last, dtype=np.int64)


def lookback(view: FeatureView) -> timedelta | None:
    """How long before a tick a row must have become known to matter; None when there is no limit.

    The longest window plus one cadence: an entity whose last window became empty is published once more, with nulls, so that its old value
    is not served on.
    """
    longest = timedelta(0)
    for feature in view.features:
        reach = feature.window if isinstance(feature, Aggregate) else feature.max_age
        if reach is None:
            return None
        longest = max(longest, reach)
    return longest + view.cadence


def build_view(view: FeatureView, events: pd.DataFrame, start: datetime, end: datetime) -> pd.DataFrame:
    """The rows that `view` publishes at its ticks in [start, end).

    `events`: rows of the view's group with `known_at` (aware), the entity columns and the features' columns, in any order; it must hold all
    rows that became known within `lookback(view)` before each tick; rows known later are not looked at. Rows without an entity are left out.
    Returns the join keys, `event_timestamp` (the tick's moment, UTC, microseconds) and the features (float64; text stays text), sorted by
    tick, then entity. A tick publishes every entity that has a row within the lookback.

    A feature is null when no value of the entity lies in its window (count: 0). With `shrink` k, n values and the statistic s of the
    entity, S of all entities in the same window, it is (n s + k S) / (n + k): the posterior mean under a prior worth k observations. `std` divides by n.
    """
    ticks = ticks_between(view.cadence, start, end)
    rows = _ordered(view, events)
    known = _microseconds(rows[KNOWN_AT])
    entities = rows[list(view.entity)].drop_duplicates().sort_values(list(view.entity), ignore_index=True)
    codes = _codes(rows, entities, view.entity)
    moments = ticks * _length(view.cadence)
    upto = np.searchsorted(known, moments, side="right")
    published = _published(view, known, codes, len(entities), moments, upto)
    part = np.repeat(np.arange(len(ticks)), [len(each) for each in published])
    chosen = np.concatenate(published) if published else np.empty(0, np.int64)
    frame = entities.iloc[chosen].reset_index(drop=True)
    if view.keyed_by_tick:
        frame[tick_key(view)] = ticks[part]
    frame[EVENT_TIMESTAMP] = pd.Series(pd.to_datetime(moments[part], unit="us", utc=True)).astype(STAMP)
    for feature in view.features:
        column = rows[feature.column]
        if isinstance(feature, Latest):
            frame[feature.name] = _latest(feature, column, known, codes, len(entities), moments, upto, published)
        else:
            each = _aggregates(feature, _numbers(column), known, codes, len(entities), moments, upto)
            values = [by_entity[which] for by_entity, which in zip(each, published, strict=True)]
            frame[feature.name] = np.concatenate(values) if values else np.empty(0)
    return frame


def _ordered(view: FeatureView, events: pd.DataFrame) -> pd.DataFrame:
    """In order of known_at, then of everything else, so that sums run in one order whatever the order of the input."""
    values = list(dict.fromkeys(feature.column for feature in view.features))
    columns = [KNOWN_AT, *view.entity, *(column for column in values if column not in view.entity)]
    return events[columns].dropna(subset=list(view.entity)).sort_values(columns, ignore_index=True)


def _codes(rows: pd.DataFrame, entities: pd.DataFrame, keys: tuple[str, ...]) -> Integers:
    if len(keys) == 1:
        return np.searchsorted(entities[keys[0]].to_numpy(), rows[keys[0]].to_numpy()).astype(np.int64)
    return pd.MultiIndex.from_frame(entities).get_indexer(pd.MultiIndex.from_frame(rows[list(keys)])).astype(np.int64)


def _published(view: FeatureView, known: Integers, codes: Integers, size: int, moments: Integers, upto: npt.NDArray[np.intp]) -> list[Integers]:
    """Codes of the entities that each tick publishes, in order."""
    limit, seen, done = lookback(view), np.full(size, np.iinfo(np.int64).min), 0
    published = []
    for moment, last in zip(moments, upto, strict=True):
        seen[codes[done:last]] = known[done:last]
        done = last
        oldest = np.iinfo(np.int64).min + 1 if limit is None else moment - _length(limit)
        published.append(np.flatnonzero(seen >= oldest))
    return published


def _latest(
    feature: Latest,
    column: pd.Series[Any],
    known: Integers,
    codes: Integers,
    size: int,
    moments: Integers,
    upto: npt.NDArray[np.intp],
    published: list[Integers],
) -> npt.NDArray[Any]:
    numeric = pd.api.types.is_numeric_dtype(column.dtype)
    values = _numbers(column) if numeric else column.astype(object).to_numpy()
    present = column.notna().to_numpy()
    held = np.full(size, np.nan) if numeric else np.full(size, None, dtype=object)
    since = np.full(size, np.iinfo(np.int64).min)
    result, done = [held[:0]], 0
    for moment, last, which in zip(moments, upto, published, strict=True):
        new = np.flatnonzero(present[done:last]) + done
        held[codes[new]], since[codes[new]] = values[new], known[new]
        done = last
        now = held[which]
        if feature.max_age is not None:
            now[since[which] < moment - _length(feature.max_age)] = np.nan if numeric else None
        result.append(now)
    return np.concatenate(result)


def _aggregates(
    feature: Aggregate, values: Floats, known: Integers, codes: Integers, size: int, moments: Integers, upto: npt.NDArray[np.intp]
) -> Iterator[Floats]:
    """The feature of every entity at each tick, over (tick - window, tick]."""
    if feature.function == "share_above":
        values = np.where(np.isnan(values), np.nan, values > (feature.threshold or 0.0))
    since = np.searchsorted(known, moments - _length(feature.window), side="right")
    for first, last in zip(since, upto, strict=True):
        window, who = values[first:last], codes[first:last]
        there = ~np.isnan(window)
        yield _statistic(feature, window[there], who[there], size)


def _statistic(feature: Aggregate, values: Floats, codes: Integers, size: int) -> Floats:
    count = np.bincount(codes, minlength=size).astype(np.float64)
    if feature.function == "count":
        return count
    if not len(values):
        return np.full(size, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.bincount(codes, weights=values, minlength=size) / count
        overall = float(values.mean())
        if feature.function == "std":
            own = np.sqrt(np.bincount(codes, weights=(values - own[codes]) ** 2, minlength=size) / count)
            overall = float(values.std())
    if feature.shrink:
        own = (count * own + feature.shrink * overall) / (count + feature.shrink)
    return np.asarray(own, dtype=np.float64)


def _numbers(column: pd.Series[Any]) -> Floats:
    return np.asarray(column.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def _microseconds(moments: pd.Series[Any]) -> Integers:
    return np.asarray(moments.astype(STAMP).astype("int64").to_numpy(), dtype=np.int64)


def _length(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)
