"""Nothing that became known after a row's prediction moment reaches its features: shown on real flights, through the lake and Feast."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.data_engineering.entities import read_entities
from components.data_engineering.ingest import ReadPeriod, ingest_period, source_reader
from components.data_engineering.offline_features import request_features

pytestmark = pytest.mark.pipeline

FIRST, LAST = datetime(2012, 12, 20, tzinfo=UTC), datetime(2013, 1, 22, tzinfo=UTC)
ASKED, UNTIL = datetime(2013, 1, 19, 12, tzinfo=UTC), datetime(2013, 1, 21, tzinfo=UTC)
KEYS = {"flight_id", "sched_dep_utc", "origin", "observed_utc", "tailnum", "registered_utc", "known_at"}


@cache
def flights() -> LoadedUseCase:
    return load_usecase("flights")


@cache
def source() -> ReadPeriod:
    return source_reader(flights())


def features(state: Path, reader: ReadPeriod) -> pd.DataFrame:
    """Features of all flights whose prediction moment lies in [ASKED, UNTIL), from a lake that was filled by `reader`."""
    platform = Platform.embedded(state)
    version = ingest_period(flights(), platform.lake_uri, FIRST, LAST, reader)
    rows = read_entities(platform.lake_uri, flights(), version, ASKED, UNTIL)
    frame = request_features(flights(), platform, version, rows)
    return frame.set_index(["entity", "prediction_moment"])[list(flights().features.feature_names)[len(flights().features.request_fields) :]]


def changing_what_is_known_after(moment: datetime, reader: ReadPeriod, real: ReadPeriod) -> ReadPeriod:
    """`reader`, with every value of every row that in truth became known after `moment` changed; keys and moments stay."""

    def changed(table: str, group: str, start: datetime, end: datetime) -> pd.DataFrame:
        rows = reader(table, group, start, end)
        truth = real(table, group, FIRST - timedelta(days=60), LAST + timedelta(days=60))
        key = flights().config.data.tables[table].key
        known = rows[key].merge(truth[[*key, "known_at"]], on=key, how="left", validate="one_to_one")["known_at"]
        later = (known > pd.Timestamp(moment)).to_numpy()
        for column in rows.columns.difference(list(KEYS)):
            values = rows[column]
            if pd.api.types.is_bool_dtype(values.dtype):
                rows[column] = values ^ later
            elif pd.api.types.is_float_dtype(values.dtype):
                rows[column] = values.mask(later, 777.0)
            elif column == "outcome":
                rows[column] = values.mask(later, "diverted")
        return rows

    return changed


def changed_features(state: Path, reader: ReadPeriod, moments: list[datetime]) -> set[str]:
    """Names of the features, of rows predicted at or before one of `moments`, that change when what became known after it changes.

    Rows predicted later are built in the same frame, so that what became known after the moment is read, and could reach the others.
    """
    before, found = features(state / "before", reader), set()
    for moment in moments:
        after = features(state / f"after-{moment:%d%H%M}", changing_what_is_known_after(moment, reader, source()))
        assert before.index.equals(after.index)
        same = (before == after) | (before.isna() & after.isna())
        predicted = before.index.get_level_values("prediction_moment") <= pd.Timestamp(moment)
        assert predicted.sum() > 50
        assert not same[~predicted].all(axis=None), "the change reaches the rows that may know of it"
        found |= {str(name) for name in before.columns[~same[predicted].all()]}
    return found


def prediction_moments(count: int) -> list[datetime]:
    """Prediction moments of real rows, spread over two days; at each, that row's own delay is among what is changed."""
    departures = source()("flights", "schedule", FIRST, LAST)["sched_dep_utc"].drop_duplicates().sort_values()
    moments = departures - timedelta(hours=2)
    moments = moments[(moments >= ASKED + timedelta(hours=8)) & (moments < UNTIL - timedelta(hours=8))]
    return [moment.to_pydatetime() for moment in moments.iloc[np.linspace(0, len(moments) - 1, count).astype(int)]]


@pytest.mark.ml_test("data-7")
def test_no_feature_changes_when_what_is_known_later_changes(tmp_path: Path) -> None:
    assert changed_features(tmp_path, source(), prediction_moments(3)) == set()


def claiming_to_know_earlier(table: str, group: str, by: timedelta) -> ReadPeriod:
    """The planted leak: a source that stamps a group as known earlier than it was."""

    def forged(asked_table: str, asked_group: str, start: datetime, end: datetime) -> pd.DataFrame:
        if (asked_table, asked_group) != (table, group):
            return source()(asked_table, asked_group, start, end)
        rows = source()(table, group, start + by, end + by)
        return rows.assign(known_at=rows["known_at"] - by)

    return forged


@pytest.mark.parametrize(
    ("table", "group", "by", "seen"),
    [
        ("flights", "departure", timedelta(hours=6), {"origin_delay_2h", "origin_delay_6h"}),
        ("flights", "outcome", timedelta(days=14), {"route_arrival_delay", "route_late_share"}),
        ("weather", "observation", timedelta(hours=3), {"temp", "visib"}),
    ],
)
@pytest.mark.ml_test("data-7")
def test_a_planted_leak_is_seen(tmp_path: Path, table: str, group: str, by: timedelta, seen: set[str]) -> None:
    assert seen <= changed_features(tmp_path, claiming_to_know_earlier(table, group, by), prediction_moments(3)[1:2])


def test_a_window_that_ends_after_its_tick_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import components.data_engineering.feature_tables as tables

    honest: Callable[..., Any] = tables._aggregates

    def peeking(feature: Any, values: Any, known: Any, codes: Any, size: int, moments: Any, upto: Any) -> Any:
        ahead = moments + 3 * 3_600_000_000
        return honest(feature, values, known, codes, size, ahead, np.searchsorted(known, ahead, side="right"))

    monkeypatch.setattr(tables, "_aggregates", peeking)
    assert "origin_delay_2h" in changed_features(tmp_path, source(), prediction_moments(3)[1:2])
