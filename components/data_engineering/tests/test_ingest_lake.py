"""Ingest is idempotent, crash-safe and exact; a recorded version stays what it was."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contracts.errors import CrisplineError, IntegrityError, InvalidData
from components.contracts.loading import LoadedUseCase, load_usecase
from components.data_engineering.content_hash import ContentHash
from components.data_engineering.feature_events import read_events
from components.data_engineering.ingest import ingest_period
from components.data_engineering.lake import current_version, periods, read_group, table_uri, verify_version
from components.data_engineering.tests.small_source import DAY, FIRST, START, SmallSource
from components.data_engineering.withdraw import withdraw_last_period

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def flights() -> LoadedUseCase:
    return load_usecase("flights")


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def test_a_period_brings_exactly_the_rows_that_became_known_in_it(flights: LoadedUseCase, lake: str) -> None:
    source = SmallSource(20)
    first = ingest_period(flights, lake, START, FIRST + 2 * DAY, source.read_period)
    second = ingest_period(flights, lake, FIRST + 2 * DAY, FIRST + 3 * DAY, source.read_period)
    for name, frame in source.frames.items():
        for version, end in ((first, FIRST + 2 * DAY), (second, FIRST + 3 * DAY)):
            table, group = name.split(".")
            expected = frame[frame["known_at"] < pd.Timestamp(end)].sort_values(["known_at", frame.columns[0]], ignore_index=True)
            stored = read_group(lake, version, table, group)
            assert version.tables[name].rows == len(expected) == len(stored)
            pd.testing.assert_frame_equal(stored[list(expected.columns)], expected, check_dtype=False)
            assert str(stored["known_at"].dtype) == "datetime64[us, UTC]"


def test_a_lake_made_anew_in_the_same_place_is_read_and_appended_to_as_it_is(flights: LoadedUseCase, lake: str) -> None:
    for days in (20, 8):
        source = SmallSource(days)
        for end in (FIRST + 2 * DAY, FIRST + 3 * DAY):
            version = ingest_period(flights, lake, START, end, source.read_period)
            stored = read_group(lake, version, "flights", "schedule")
            assert len(stored) == version.tables["flights.schedule"].rows > 0
        verify_version(lake, version)
        shutil.rmtree(lake)


def test_a_view_is_not_computed_over_a_key_that_stands_twice(flights: LoadedUseCase, lake: str) -> None:
    source = SmallSource(20)
    source.frames["flights.schedule"] = pd.concat([source.frames["flights.schedule"]] * 2, ignore_index=True)
    version = ingest_period(flights, lake, START, FIRST + 3 * DAY, source.read_period)
    (departures,) = (view for view in flights.features.views if view.name == "airport_departures")
    with pytest.raises(InvalidData, match=r"flights\.schedule holds a key \(.*flight_id.*\) twice"):
        read_events(lake, flights, version, departures, START, FIRST + 3 * DAY)


def test_a_repeated_period_is_the_same_version_and_reads_nothing(flights: LoadedUseCase, lake: str) -> None:
    source = SmallSource(20)
    version = ingest_period(flights, lake, START, FIRST, source.read_period)
    source.reads.clear()
    assert ingest_period(flights, lake, START, FIRST, source.read_period) == version
    assert source.reads == []


def test_the_version_does_not_depend_on_how_the_time_was_split(flights: LoadedUseCase, tmp_path: Path) -> None:
    source = SmallSource(20)
    whole = ingest_period(flights, str(tmp_path / "a"), START, FIRST + 6 * DAY, source.read_period)
    moment = START
    while moment < FIRST + 6 * DAY:
        part = ingest_period(flights, str(tmp_path / "b"), moment, moment + DAY, source.read_period)
        moment += DAY
    assert part.id == whole.id
    assert {name: table.content_hash for name, table in part.tables.items()} == {name: table.content_hash for name, table in whole.tables.items()}


def test_a_recorded_version_does_not_change_with_later_appends(flights: LoadedUseCase, lake: str) -> None:
    source = SmallSource(20)
    version = ingest_period(flights, lake, START, FIRST + DAY, source.read_period)
    before = read_group(lake, version, "flights", "departure")
    ingest_period(flights, lake, FIRST + DAY, FIRST + 4 * DAY, source.read_period)
    pd.testing.assert_frame_equal(read_group(lake, version, "flights", "departure"), before)
    assert current_version(lake, flights, FIRST + DAY) == version
    assert current_version(lake, flights, FIRST + 4 * DAY - timedelta(seconds=1)) == version
    assert current_version(lake, flights, FIRST + 4 * DAY) != version
    with pytest.raises(CrisplineError, match="ingest a period first"):
        current_version(lake, flights, FIRST)


def test_a_part_of_the_time_can_be_read(flights: LoadedUseCase, lake: str) -> None:
    source = SmallSource(20)
    version = ingest_period(flights, lake, START, FIRST + 3 * DAY, source.read_period)
    part = read_group(lake, version, "flights", "departure", known_from=FIRST + DAY, known_before=FIRST + 2 * DAY, columns=["dep_delay"])
    known = source.frames["flights.departure"]["known_at"]
    assert len(part) == int(((known >= pd.Timestamp(FIRST + DAY)) & (known < pd.Timestamp(FIRST + 2 * DAY))).sum())
    assert list(part.columns) == ["dep_delay", "known_at"]


def test_a_gap_is_refused_with_the_period_that_is_missing(flights: LoadedUseCase, lake: str) -> None:
    source = SmallSource(20)
    ingest_period(flights, lake, START, FIRST, source.read_period)
    with pytest.raises(CrisplineError, match=r"ingest \[2013-01-01T00:00:00Z, 2013-01-02T00:00:00Z\) first"):
        ingest_period(flights, lake, FIRST + DAY, FIRST + 2 * DAY, source.read_period)
    with pytest.raises(CrisplineError, match="no period of it ends at"):
        ingest_period(flights, lake, START, FIRST - DAY, source.read_period)
    with pytest.raises(CrisplineError, match="`end` must lie after"):
        ingest_period(flights, lake, FIRST, FIRST, source.read_period)


def test_an_overlapping_period_brings_only_what_is_new(flights: LoadedUseCase, tmp_path: Path) -> None:
    source = SmallSource(20)
    ingest_period(flights, str(tmp_path / "a"), START, FIRST + DAY, source.read_period)
    overlapped = ingest_period(flights, str(tmp_path / "a"), START, FIRST + 2 * DAY, source.read_period)
    assert overlapped.id == ingest_period(flights, str(tmp_path / "b"), START, FIRST + 2 * DAY, source.read_period).id


KILLED = """
import os, signal, sys
from components.contracts.durations import parse_moment
from components.contracts.loading import load_usecase
from components.data_engineering import ingest
from components.data_engineering.tests.small_source import SmallSource
lake, start, end, victim = sys.argv[1:]
source = SmallSource(20)
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def read(table, group, first, last):
    return kill() if f"{table}.{group}" == victim else source.read_period(table, group, first, last)
if victim == "ledger":
    ingest.record_period = kill
ingest.ingest_period(load_usecase("flights"), lake, parse_moment(start), parse_moment(end), read)
"""


@pytest.mark.parametrize("victim", ["flights.departure", "weather.observation", "ledger"])
def test_a_killed_ingest_is_completed_by_repeating_it(flights: LoadedUseCase, tmp_path: Path, victim: str) -> None:
    source, lake = SmallSource(20), str(tmp_path / "killed")
    ingest_period(flights, lake, START, FIRST, source.read_period)
    arguments = [lake, FIRST.isoformat(), (FIRST + 2 * DAY).isoformat(), victim]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert DeltaTable(table_uri(lake, "flights", "flights", "schedule")).version() == 2, "the first table was appended before the kill"
    assert current_version(lake, flights, FIRST + 9 * DAY).as_of == FIRST, "an unfinished period is not a version"
    with pytest.raises(CrisplineError, match="interrupted; repeat it"):
        ingest_period(flights, lake, FIRST, FIRST + DAY, source.read_period)
    completed = ingest_period(flights, lake, FIRST, FIRST + 2 * DAY, source.read_period)
    undisturbed = ingest_period(flights, str(tmp_path / "undisturbed"), START, FIRST + 2 * DAY, source.read_period)
    assert completed.id == undisturbed.id
    verify_version(lake, completed)


def test_two_writers_at_once_append_a_period_once(flights: LoadedUseCase, lake: str) -> None:
    source = SmallSource(20)
    ingest_period(flights, lake, START, FIRST, source.read_period)
    together, refused = threading.Barrier(2, timeout=20), []

    def write() -> None:
        def read(table: str, group: str, start: datetime, end: datetime) -> pd.DataFrame:
            if (table, group) == ("flights", "schedule"):
                together.wait()
            return source.read_period(table, group, start, end)

        try:
            ingest_period(flights, lake, FIRST, FIRST + DAY, read)
        except CrisplineError as error:
            refused.append(str(error))

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(refused) == 1 and "another process appends" in refused[0]
    verify_version(lake, current_version(lake, flights, FIRST + DAY))
    assert read_group(lake, current_version(lake, flights, FIRST + DAY), "flights", "schedule")["flight_id"].is_unique


def test_a_compaction_by_someone_else_changes_nothing(flights: LoadedUseCase, lake: str) -> None:
    source = SmallSource(20)
    for day in range(4):
        version = ingest_period(flights, lake, START if day == 0 else FIRST + day * DAY, FIRST + (day + 1) * DAY, source.read_period)
    table = DeltaTable(table_uri(lake, "flights", "flights", "departure"))
    assert table.optimize.compact()["numFilesRemoved"] > 1
    verify_version(lake, version)
    after = ingest_period(flights, lake, FIRST + 4 * DAY, FIRST + 5 * DAY, source.read_period)
    verify_version(lake, after)
    assert after.tables["flights.departure"].rows > version.tables["flights.departure"].rows


def test_changed_rows_do_not_match_the_recorded_hash(flights: LoadedUseCase, lake: str) -> None:
    version = ingest_period(flights, lake, START, FIRST + DAY, SmallSource(20).read_period)
    delta = DeltaTable(table_uri(lake, "flights", "flights", "departure"))
    delta.update({"dep_delay": "dep_delay + 1"}, predicate="flight_id = 'F9'")
    forged = version.tables["flights.departure"].model_copy(update={"version": delta.version()})
    with pytest.raises(IntegrityError, match="do not train on it"):
        verify_version(lake, version.model_copy(update={"tables": {**version.tables, "flights.departure": forged}}))
    verify_version(lake, version)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="dep_delay"), "lacks dep_delay"),
        (lambda frame: frame.assign(gate="B7"), "brings unknown gate"),
        (lambda frame: frame.assign(dep_delay="soon"), r"'dep_delay' is declared double and the source delivers \['soon'"),
        (lambda frame: frame.assign(known_at=frame["known_at"] + pd.Timedelta(days=9)), "known outside of"),
        (lambda frame: frame.assign(known_at=pd.NaT), "without known_at"),
    ],
)
@pytest.mark.ml_test("monitoring-1")
def test_a_schema_change_is_refused_before_anything_is_appended(flights: LoadedUseCase, lake: str, change, message: str) -> None:
    source = SmallSource(20)

    def read(table: str, group: str, start: datetime, end: datetime) -> pd.DataFrame:
        rows = source.read_period(table, group, start, end)
        return change(rows) if group == "departure" else rows

    with pytest.raises(InvalidData, match=message):
        ingest_period(flights, lake, START, FIRST + DAY, read)
    assert DeltaTable(table_uri(lake, "flights", "flights", "departure")).count() == 0
    assert periods(lake, "flights") == []
    assert ingest_period(flights, lake, START, FIRST + DAY, source.read_period).tables["flights.departure"].rows > 0


def test_a_withdrawn_period_makes_room_for_corrected_rows(flights: LoadedUseCase, tmp_path: Path) -> None:
    lake, wrong, right = str(tmp_path / "lake"), SmallSource(20), SmallSource(20)
    wrong.frames["flights.departure"]["dep_delay"] *= 60
    good = ingest_period(flights, lake, START, FIRST, right.read_period)
    bad = ingest_period(flights, lake, FIRST, FIRST + DAY, wrong.read_period)
    assert withdraw_last_period(flights, lake).version == bad
    assert current_version(lake, flights, FIRST + DAY) == good
    corrected = ingest_period(flights, lake, FIRST, FIRST + DAY, right.read_period)
    verify_version(lake, corrected)
    assert corrected.id == ingest_period(flights, str(tmp_path / "clean"), START, FIRST + DAY, right.read_period).id
    verify_version(lake, bad)


def test_the_first_period_can_be_withdrawn_too(flights: LoadedUseCase, lake: str) -> None:
    source = SmallSource(20)
    version = ingest_period(flights, lake, START, FIRST + DAY, source.read_period)
    withdraw_last_period(flights, lake)
    with pytest.raises(CrisplineError, match="nothing to take back"):
        withdraw_last_period(flights, lake)
    assert ingest_period(flights, lake, START, FIRST + DAY, source.read_period).id == version.id


ROWS = st.lists(st.tuples(st.text(max_size=4), st.floats(allow_nan=False, width=32) | st.none(), st.booleans() | st.none()), max_size=12)


def arrow(rows: list[tuple[str, float | None, bool | None]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    return pa.table([pa.array(columns[0], pa.string()), pa.array(columns[1], pa.float64()), pa.array(columns[2], pa.bool_())], names=["a", "b", "c"])


@settings(deadline=None)
@given(ROWS, st.integers(0, 12), st.randoms())
def test_the_hash_grows_with_the_rows_and_ignores_their_order(rows, cut: int, random) -> None:
    shuffled = random.sample(rows, len(rows))
    assert ContentHash.of(arrow(rows)) == ContentHash.of(arrow(shuffled)) == ContentHash.of(arrow(rows[:cut])) + ContentHash.of(arrow(rows[cut:]))


@settings(deadline=None)
@given(ROWS, ROWS)
def test_other_rows_have_another_hash(rows, others) -> None:
    same = sorted(map(repr, rows)) == sorted(map(repr, others))
    assert (ContentHash.of(arrow(rows)) == ContentHash.of(arrow(others))) == same


def test_the_hash_of_known_rows_does_not_change_with_a_release() -> None:
    table = pa.table(
        {
            "id": ["x", 'a "quoted", one\nof two lines'],
            "at": pa.array([datetime(2013, 1, 1, tzinfo=UTC), None], pa.timestamp("us", tz="UTC")),
            "v": [0.1, -7e300],
        }
    )
    assert ContentHash.of(table).hexdigest == "b25bf0eaf05864a2e435cb36437a150f91dde238329a14e7993dd1905252fd2f"
