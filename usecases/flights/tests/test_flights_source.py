"""The source delivers every flight once, in UTC, at the moment at which it became known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from components.contracts.errors import CrisplineError
from components.contracts.loading import load_module, load_usecase
from components.contracts.usecase import Table

pytestmark = pytest.mark.pipeline

FOLDER = Path(__file__).parents[1]
EVER = (datetime(2012, 1, 1, tzinfo=UTC), datetime(2015, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def source() -> ModuleType:
    return load_module(FOLDER / "source.py")


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    return load_usecase("flights").config.data.tables


def test_every_group_of_the_contract_is_delivered_with_its_columns(source: ModuleType, tables: dict[str, Table]) -> None:
    for table, contract in tables.items():
        for group in contract.known_at:
            own = {name for name, column in contract.columns.items() if column.known_at == group}
            assert set(source.read_period(table, group, *EVER).columns) == {*contract.key, contract.event_time, *own, "known_at"}


def test_no_flight_is_lost_and_none_comes_twice(source: ModuleType) -> None:
    for group in ("schedule", "departure", "outcome"):
        rows = source.read_period("flights", group, *EVER)
        assert len(rows) == 336_776
        assert rows["flight_id"].is_unique


def test_nothing_is_known_later_than_declared(source: ModuleType, tables: dict[str, Table]) -> None:
    for table, contract in tables.items():
        for group, declared in contract.known_at.items():
            rows = source.read_period(table, group, *EVER)
            assert (rows["known_at"] - rows[contract.event_time]).max() <= declared.latest


def test_nothing_is_known_before_it_happened(source: ModuleType) -> None:
    departure, outcome = source.read_period("flights", "departure", *EVER), source.read_period("flights", "outcome", *EVER)
    flown = departure[~departure["cancelled"]]
    assert (flown["known_at"] > flown["sched_dep_utc"] + pd.to_timedelta(flown["dep_delay"], unit="min")).all()
    schedule = source.read_period("flights", "schedule", *EVER).set_index("flight_id")
    arrived = outcome[outcome["outcome"] == "arrived"]
    duration = schedule.loc[arrived["flight_id"], "scheduled_minutes"].to_numpy() + arrived["arr_delay"].to_numpy()
    assert (arrived["known_at"] >= arrived["sched_dep_utc"] + pd.to_timedelta(duration, unit="min") + timedelta(days=14)).all()
    weather = source.read_period("weather", "observation", *EVER)
    assert (weather["known_at"] >= weather["observed_utc"] + timedelta(hours=1)).all()


def test_a_period_holds_exactly_the_rows_known_in_it(source: ModuleType) -> None:
    start = datetime(2013, 2, 3, 10, 30, tzinfo=UTC)
    whole = source.read_period("flights", "departure", *EVER)
    days = [source.read_period("flights", "departure", start + timedelta(days=day), start + timedelta(days=day + 1)) for day in range(3)]
    known = whole["known_at"]
    expected = whole[(known >= pd.Timestamp(start)) & (known < pd.Timestamp(start + timedelta(days=3)))].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.concat(days, ignore_index=True), expected)


def test_scheduled_arrivals_in_utc_agree_with_the_clock_at_the_destination(source: ModuleType) -> None:
    """Scheduled arrival plus delay, on the destination's clock, is the actual arrival time that the package holds in a column of its own."""
    flights = source._flights()
    raw = source._read("flights.csv.zip", ("arr_time", "dest"))
    actual = flights["sched_dep_utc"] + pd.to_timedelta(flights["scheduled_minutes"] + flights["arr_delay"], unit="min")
    wrong = 0
    for zone, rows in actual.dropna().groupby(raw["dest"].map(source._zones())):
        local = rows.dt.tz_convert(zone)
        clock = raw["arr_time"][rows.index]
        wrong += int((local.dt.hour * 60 + local.dt.minute != (clock // 100 * 60 + clock % 100) % 1440).sum())
    # One flight of 10 March, the night of the change to summer time, has an arrival time on the clock that was just put forward.
    assert wrong == 1


def test_flights_that_change_zone_or_day_have_plausible_lengths(source: ModuleType) -> None:
    schedule = source.read_period("flights", "schedule", *EVER)
    hours = schedule["scheduled_minutes"] / 60
    assert hours.between(schedule["distance"] / 600, schedule["distance"] / 400 + 3.5).all()
    honolulu, san_juan = schedule[schedule["dest"] == "HNL"], schedule[schedule["dest"] == "SJU"]
    assert honolulu["scheduled_minutes"].between(600, 720).all()
    assert san_juan["scheduled_minutes"].between(200, 260).all()


def test_a_flight_that_arrives_after_midnight_arrives_the_next_day(source: ModuleType) -> None:
    schedule = source.read_period("flights", "schedule", *EVER)
    overnight = schedule[(schedule["arr_minute"] < schedule["dep_minute"]) & (schedule["dest"] == "BQN")]
    assert len(overnight) > 100
    assert overnight["scheduled_minutes"].between(180, 300).all()


def test_cancelled_and_diverted_flights_are_outcomes_not_gaps(source: ModuleType) -> None:
    outcome = source.read_period("flights", "outcome", *EVER)
    assert outcome["outcome"].value_counts().to_dict() == {"arrived": 327_346, "cancelled": 8_255, "diverted": 1_175}
    assert (outcome["arr_delay"].isna() == (outcome["outcome"] != "arrived")).all()
    departure = source.read_period("flights", "departure", *EVER)
    assert (departure["dep_delay"].isna() == departure["cancelled"]).all()


def test_the_impossible_wind_is_delivered_as_missing_and_is_the_only_one(source: ModuleType) -> None:
    raw = source._read("weather.csv", ("wind_speed",))["wind_speed"]
    assert int((raw > source.STRONGEST_WIND).sum()) == 1
    delivered = source.read_period("weather", "observation", *EVER)["wind_speed"]
    assert int(delivered.isna().sum()) == int(raw.isna().sum()) + 1
    assert delivered.max() < 120


def test_congestion_counts_the_departures_within_an_hour(source: ModuleType) -> None:
    schedule = source.read_period("flights", "schedule", datetime(2013, 1, 10, tzinfo=UTC), datetime(2013, 1, 12, tzinfo=UTC))
    for position in (500, 900, 1_300):
        flight = schedule.iloc[position]
        gap = (schedule["sched_dep_utc"] - flight["sched_dep_utc"]).abs()
        assert flight["scheduled_departures"] == int(((gap <= timedelta(hours=1)) & (schedule["origin"] == flight["origin"])).sum())


def test_an_unknown_group_is_refused_with_those_that_exist(source: ModuleType) -> None:
    with pytest.raises(CrisplineError, match=r"flights\.departure"):
        source.read_period("flights", "arrival", *EVER)
