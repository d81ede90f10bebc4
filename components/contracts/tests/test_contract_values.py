"""Durations, moments, records, storage, the platform file and the JSON Schema."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from components.contracts.durations import floor_to, format_duration, format_moment, parse_duration, parse_moment
from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.json_schema import SCHEMA_FILE, schema_text, usecase_schema
from components.contracts.platform import PLATFORM_VARIABLE, Platform
from components.contracts.records import Record, RecordStore, record_id
from components.contracts.storage import BlobStore, sha256, write_atomically
from components.contracts.usecase import QUALITY_CHECKS

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)


def record(**changes: object) -> Record:
    values = {"kind": "check", "id": "a1", "usecase": "flights", "event_time": NOON, "outcome": "passed", "reason": "all well", **changes}
    return Record.model_validate(values)


@given(st.integers(min_value=0, max_value=10**8))
def test_a_duration_is_read_back_as_it_was_written(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["2", "2 h", "-1d", "1.5h", "1month", "", 3, None, True])
def test_what_is_not_a_duration_is_refused_with_examples(text: object) -> None:
    with pytest.raises(ValueError, match="90s, 15m, 2h"):
        parse_duration(text)


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_moment_is_read_back_as_it_was_written(moment: datetime) -> None:
    assert parse_moment(format_moment(moment)) == moment


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        parse_moment("2013-04-01T12:00:00")
    with pytest.raises(ValueError, match="no time zone"):
        format_moment(datetime(2013, 4, 1))  # noqa: DTZ001


@given(st.datetimes(min_value=datetime(1960, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_tick_is_the_last_whole_multiple(moment: datetime) -> None:
    tick = floor_to(moment, timedelta(hours=6))
    assert tick <= moment < tick + timedelta(hours=6)
    assert tick.hour % 6 == tick.minute == tick.second == tick.microsecond == 0


def test_a_tick_does_not_depend_on_the_zone_in_which_a_moment_is_written() -> None:
    assert floor_to(NOON.astimezone(timezone(timedelta(hours=5, minutes=30))), timedelta(days=1)) == datetime(2013, 4, 1, tzinfo=UTC)


def test_the_same_decision_twice_is_one_record(tmp_path: Path) -> None:
    store = RecordStore(str(tmp_path))
    assert store.append(record()) == store.append(record())
    assert list(store.list("check")) == [record()]


def test_another_decision_under_the_same_id_is_refused(tmp_path: Path) -> None:
    store = RecordStore(str(tmp_path))
    store.append(record())
    with pytest.raises(IntegrityError, match="immutable"):
        store.append(record(outcome="failed"))
    assert store.get("check", "a1").outcome == "passed"


def test_records_come_in_order_of_business_time(tmp_path: Path) -> None:
    store = RecordStore(str(tmp_path))
    for id, hours in (("b", 2), ("c", 1), ("a", 2)):
        store.append(record(id=id, event_time=NOON + timedelta(hours=hours)))
    assert [found.id for found in store.list("check")] == ["c", "a", "b"]
    assert store.find("check", "d") is None
    with pytest.raises(CrisplineError, match="no record check/d"):
        store.get("check", "d")


def test_a_record_id_leaves_no_way_out_of_its_folder() -> None:
    with pytest.raises(ValueError, match="pattern"):
        record(id="../alert/x")


def test_record_ids_follow_from_their_parts_alone() -> None:
    assert record_id("flights", NOON, 3) == record_id("flights", NOON, 3)
    assert len({record_id("a", "b"), record_id("ab"), record_id("a", "b", 0), record_id("b", "a")}) == 4


def test_a_blob_is_stored_once_under_its_hash(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    assert store.put(b"model") == store.put(b"model") == sha256(b"model")
    assert store.get(sha256(b"model")) == b"model"


def test_a_changed_blob_is_not_handed_out(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    digest = store.put(b"model")
    (tmp_path / digest[:2] / digest).write_bytes(b"another")
    with pytest.raises(IntegrityError, match="does not match its hash"):
        store.get(digest)
    with pytest.raises(IntegrityError, match="no blob"):
        store.get(sha256(b"never stored"))


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "release.json"
    write_atomically(file, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["release.json"]


def test_bytes_go_to_an_object_store_as_well() -> None:
    path = UPath("memory://bucket/folder/file.json")
    write_atomically(path, b"content")
    assert path.read_bytes() == b"content"
    digest = BlobStore("memory://bucket/blobs").put(b"model")
    assert BlobStore("memory://bucket/blobs").get(digest) == b"model"


def test_the_platform_file_is_read_back_and_a_wrong_one_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform.embedded(tmp_path / "state", trigger_url="http://localhost:1")
    file = tmp_path / "platform.json"
    file.write_text(platform.model_dump_json())
    monkeypatch.setenv(PLATFORM_VARIABLE, str(file))
    assert Platform.load() == platform
    file.write_text('{"lake": "x"}')
    with pytest.raises(CrisplineError, match="lake_uri"):
        Platform.load()
    monkeypatch.delenv(PLATFORM_VARIABLE)
    with pytest.raises(CrisplineError, match="CRISPLINE_PLATFORM is not set"):
        Platform.load()


def test_the_committed_json_schema_is_the_models_schema() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "run: python -m components.contracts.json_schema"


def test_the_json_schema_speaks_as_people_write() -> None:
    definitions = json.loads(json.dumps(usecase_schema()))["$defs"]
    assert definitions["Retraining"]["properties"]["cooldown"]["pattern"] == r"^\d+[smhdw]$"
    assert definitions["Risk"]["properties"]["check"]["enum"] == list(QUALITY_CHECKS)
    assert definitions["Business"]["additionalProperties"] is False
