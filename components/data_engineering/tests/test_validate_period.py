"""Each breach of the contract is found, named and shown with rows; data that hold it pass."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.contracts.errors import InvalidData
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import PLATFORM_VARIABLE, Platform
from components.contracts.records import RecordStore
from components.data_engineering.ingest import ingest_period
from components.data_engineering.ingest_steps import resolve_step, validate_step
from components.data_engineering.lake import current_version
from components.data_engineering.tests.small_source import DAY, FIRST, START, SmallSource
from components.data_engineering.validate import Finding, Validation, refuse_failed, validate_period, validation_record
from components.data_engineering.validation_report import validation_report

pytestmark = pytest.mark.pipeline

# Weekly periods; the last one has labels in it and before it.
EDGES = [START, *(FIRST + 7 * DAY * week for week in range(1, 6))]
LAST_START, LAST_END = EDGES[-2], EDGES[-1]


@pytest.fixture(scope="module")
def flights() -> LoadedUseCase:
    return load_usecase("flights")


def validated(flights: LoadedUseCase, lake: Path, source: SmallSource, edges: list[datetime] = EDGES) -> Validation:
    """Ingest all periods and validate the last."""
    for start, end in pairwise(edges):
        version = ingest_period(flights, str(lake), start, end, source.read_period)
    return validate_period(flights, str(lake), version, edges[-2], edges[-1])


def of_last_week(frame: pd.DataFrame) -> pd.Series:
    return (frame["known_at"] >= pd.Timestamp(LAST_START)) & (frame["known_at"] < pd.Timestamp(LAST_END))


def failures(validation: Validation) -> list[tuple[str, str, str]]:
    return [(finding.table, finding.check, finding.column) for finding in validation.failures]


def test_data_that_hold_the_contract_pass_every_week(flights: LoadedUseCase, tmp_path: Path) -> None:
    source = SmallSource(45)
    for number in range(2, len(EDGES) + 1):
        validation = validated(flights, tmp_path, source, EDGES[:number])
        assert failures(validation) == []
    judged = {(finding.table, finding.check) for finding in validation.findings if finding.outcome == "passed"}
    assert {("flights.outcome", "label_share"), ("flights.outcome", "freshness"), ("flights.departure", "volume"), ("planes.register", "contract")} <= judged
    record = validation_record(validation)
    assert (record.kind, record.outcome, record.details["check"], record.event_time) == ("check", "passed", "data_validation", LAST_END)


def one_row(group: str, column: str, value: object) -> Callable[[SmallSource], None]:
    def change(source: SmallSource) -> None:
        frame = source.frames[group]
        frame.loc[frame.index[of_last_week(frame)][:3], column] = value

    return change


def repeated_key(source: SmallSource) -> None:
    frame = source.frames["flights.departure"]
    frame.loc[frame.index[of_last_week(frame)][5], "flight_id"] = "F11"


def repeated_key_within(source: SmallSource) -> None:
    frame = source.frames["weather.observation"]
    source.frames["weather.observation"] = pd.concat([frame, frame[of_last_week(frame)].tail(1)])


def few_rows(source: SmallSource) -> None:
    for name in ("flights.schedule", "flights.departure", "flights.outcome"):
        frame = source.frames[name]
        source.frames[name] = frame[(frame["sched_dep_utc"] < pd.Timestamp(LAST_START)) | (np.arange(len(frame)) % 2 == 0)]


def many_rows(source: SmallSource) -> None:
    for name in ("flights.schedule", "flights.departure"):
        frame = source.frames[name]
        recent = frame[frame["sched_dep_utc"] >= pd.Timestamp(LAST_START - 2 * DAY)]
        source.frames[name] = pd.concat([frame, *(recent.assign(flight_id=recent["flight_id"] + f"x{copy}") for copy in range(3))])


def stale_weather(source: SmallSource) -> None:
    frame = source.frames["weather.observation"]
    source.frames["weather.observation"] = frame[frame["observed_utc"] < pd.Timestamp(LAST_END - 2 * DAY)]


def overdue_outcomes(source: SmallSource) -> None:
    frame = source.frames["flights.outcome"]
    source.frames["flights.outcome"] = frame[~of_last_week(frame) | (np.arange(len(frame)) % 5 > 0)]


def shifted_labels(source: SmallSource) -> None:
    frame = source.frames["flights.outcome"]
    frame.loc[of_last_week(frame), "arr_delay"] += 20.0


@pytest.mark.parametrize(
    ("change", "table", "check", "column"),
    [
        (one_row("weather.observation", "wind_speed", 1048.36), "weather.observation", "contract", "wind_speed"),
        (one_row("flights.schedule", "origin", "BOS"), "flights.schedule", "contract", "origin"),
        (one_row("flights.schedule", "distance", np.nan), "flights.schedule", "contract", "distance"),
        (one_row("flights.outcome", "outcome", None), "flights.outcome", "contract", "outcome"),
        (one_row("flights.schedule", "month", 13), "flights.schedule", "contract", "month"),
        (repeated_key, "flights.departure", "unique_key", "flight_id"),
        (repeated_key_within, "weather.observation", "unique_key", "origin, observed_utc"),
        (few_rows, "flights.schedule", "volume", ""),
        (many_rows, "flights.departure", "volume", ""),
        (stale_weather, "weather.observation", "freshness", ""),
        (overdue_outcomes, "flights.outcome", "freshness", "sched_dep_utc"),
        (shifted_labels, "flights.outcome", "label_share", "arr_delay"),
    ],
)
@pytest.mark.ml_test("data-1", "monitoring-2")
def test_a_breach_is_found_by_its_check(flights: LoadedUseCase, tmp_path: Path, change, table: str, check: str, column: str) -> None:
    source = SmallSource(45)
    change(source)
    validation = validated(flights, tmp_path, source)
    assert (table, check, column) in failures(validation)
    assert validation_record(validation).outcome == "failed"


def test_a_null_where_one_is_allowed_and_a_category_that_is_declared_pass(flights: LoadedUseCase, tmp_path: Path) -> None:
    source = SmallSource(45)
    one_row("weather.observation", "pressure", np.nan)(source)
    one_row("flights.schedule", "carrier", "YV")(source)
    assert failures(validated(flights, tmp_path, source)) == []


def test_the_report_shows_sample_rows_and_needs_no_network(flights: LoadedUseCase, tmp_path: Path) -> None:
    source = SmallSource(45)
    one_row("weather.observation", "wind_speed", 1048.36)(source)
    one_row("flights.schedule", "dest", "<script>alert(1)</script>")(source)
    one_row("flights.schedule", "distance", 9999.0)(source)
    page = validation_report(validated(flights, tmp_path, source))
    assert "1048.36" in page and "in the range 0 to 120" in page and "3 of 504 rows break" in page
    assert "<script" not in page and "http" not in page
    assert "2 checks failed" in page


def test_the_step_stops_the_pipeline_after_report_and_record(flights: LoadedUseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform.embedded(tmp_path / "state")
    (tmp_path / "platform.json").write_text(platform.model_dump_json())
    monkeypatch.setenv(PLATFORM_VARIABLE, str(tmp_path / "platform.json"))
    source = SmallSource(45)
    one_row("weather.observation", "wind_speed", 1048.36)(source)
    validated(flights, Path(platform.lake_uri), source)
    version = current_version(platform.lake_uri, flights, LAST_END)
    (tmp_path / "version.json").write_text(version.model_dump_json())
    moments = (LAST_START.isoformat(), LAST_END.isoformat())
    with pytest.raises(InvalidData, match=r"1 checks failed: weather\.observation.*\n.*report: .*report\.html"):
        validate_step("flights", *moments, tmp_path / "version.json", tmp_path / "report.html")
    assert "1048.36" in (tmp_path / "report.html").read_text()
    (record,) = RecordStore(platform.records_uri).list("check")
    assert record.outcome == "failed" and record.lineage.data_version == version.id
    with pytest.raises(InvalidData, match="withdraw"):
        resolve_step("flights", LAST_END.isoformat(), tmp_path / "resolved.json")
    resolve_step("flights", LAST_START.isoformat(), tmp_path / "resolved.json")
    refuse_failed(RecordStore(platform.records_uri), current_version(platform.lake_uri, flights, LAST_START))


def test_what_cannot_be_judged_yet_says_so(flights: LoadedUseCase, tmp_path: Path) -> None:
    validation = validated(flights, tmp_path, SmallSource(45), [START, FIRST + DAY])
    waiting: list[Finding] = [finding for finding in validation.findings if finding.outcome == "not_judged"]
    assert ("flights.outcome", "freshness") in {(finding.table, finding.check) for finding in waiting}
    assert ("flights.outcome", "label_share") in {(finding.table, finding.check) for finding in waiting}
    assert validation.passed
