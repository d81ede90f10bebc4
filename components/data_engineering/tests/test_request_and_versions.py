"""What a run was asked for becomes definite; a data version can be asked for by its id."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.contracts.artifacts import DataVersion
from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import PLATFORM_VARIABLE, Platform
from components.contracts.records import RecordStore
from components.data_engineering.ingest import ingest_period
from components.data_engineering.ingest_steps import load_step, resolve_step
from components.data_engineering.request_steps import Request, resolve_request
from components.data_engineering.tests.small_source import DAY, FIRST, START, SmallSource
from components.data_engineering.withdraw import withdraw_last_period

pytestmark = pytest.mark.pipeline

CREATED = "2013-04-15T13:45:30Z"


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    found = Platform.embedded(tmp_path / "state")
    (tmp_path / "platform.json").write_text(found.model_dump_json())
    monkeypatch.setenv(PLATFORM_VARIABLE, str(tmp_path / "platform.json"))
    return found


def ingested(platform: Platform, days: int) -> DataVersion:
    return ingest_period(load_usecase("flights"), platform.lake_uri, START, FIRST + days * DAY, SmallSource(20).read_period)


def test_a_scheduled_training_gets_its_moment_and_a_cause_of_its_own(platform: Platform) -> None:
    found = resolve_request("flights", "training", CREATED, as_of="now/d", start="", end="", cause="")
    assert found == Request(as_of="2013-04-15T00:00:00Z", start="", end="", cause="training-2013-04-15T00:00:00Z")


def test_what_is_definite_stays_as_it_is(platform: Platform) -> None:
    found = resolve_request("flights", "training", CREATED, as_of="2013-04-01T00:00:00Z", start="", end="", cause="alert-1")
    assert (found.as_of, found.cause) == ("2013-04-01T00:00:00Z", "alert-1")


def test_a_period_goes_on_where_the_lake_ends(platform: Platform) -> None:
    with pytest.raises(CrisplineError, match="ingest a first period with a start of its own"):
        resolve_request("flights", "data", CREATED, as_of="", start="last", end="now", cause="")
    ingested(platform, 2)
    found = resolve_request("flights", "data", CREATED, as_of="", start="last", end="now/d", cause="")
    assert (found.start, found.end) == (format_moment(FIRST + 2 * DAY), "2013-04-15T00:00:00Z")


def test_a_version_is_resolved_recorded_and_loaded_by_its_id(platform: Platform, tmp_path: Path) -> None:
    first = ingested(platform, 2)
    later = ingest_period(load_usecase("flights"), platform.lake_uri, FIRST + 2 * DAY, FIRST + 3 * DAY, SmallSource(20).read_period)
    as_of = format_moment(FIRST + 3 * DAY)
    assert resolve_step("flights", as_of, tmp_path / "version.json") == later.id
    resolve_step("flights", format_moment(FIRST + 2 * DAY), tmp_path / "first.json")
    load_step("flights", first.id, tmp_path / "loaded.json")
    assert DataVersion.model_validate_json((tmp_path / "loaded.json").read_text()) == first
    assert resolve_step("flights", as_of, tmp_path / "wanted.json", first.id) == first.id
    assert {record.id for record in RecordStore(platform.records_uri).list("data_version")} == {first.id, later.id}


def test_a_version_that_knows_more_than_the_run_may_or_was_withdrawn_is_refused(platform: Platform, tmp_path: Path) -> None:
    first = ingested(platform, 2)
    resolve_step("flights", format_moment(FIRST + 2 * DAY), tmp_path / "version.json")
    with pytest.raises(CrisplineError, match=r"holds what became known until .*; the run may know nothing later than"):
        resolve_step("flights", format_moment(FIRST + 1 * DAY), tmp_path / "version.json", first.id)
    with pytest.raises(CrisplineError, match="no record data_version/0000"):
        resolve_step("flights", format_moment(FIRST + 2 * DAY), tmp_path / "version.json", "0000")
    withdraw_last_period(load_usecase("flights"), platform.lake_uri)
    with pytest.raises(CrisplineError, match=f"data version {first.id} was withdrawn; leave it out"):
        resolve_step("flights", format_moment(FIRST + 2 * DAY), tmp_path / "version.json", first.id)
