"""Files and objects through one set of functions: what is created once, what is listed, what is read together.

An object store is played by fsspec's own in-memory file system; tests/cluster has the same against a real one.
"""

from __future__ import annotations

import errno
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from upath import UPath

from components.contracts.errors import IntegrityError
from components.contracts.records import Record, RecordStore
from components.contracts.storage import create_atomically, names_in, read_folder, read_whole, remove, storage_path, write_atomically


@pytest.fixture(params=["file", "object"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UPath]:
    if request.param == "file":
        yield storage_path(str(tmp_path / "store"))
        return
    path = storage_path(f"memory://{uuid.uuid4().hex}/store")
    yield path
    path.fs.rm(path.parent.path, recursive=True) if path.fs.exists(path.parent.path) else None


def test_of_writers_at_once_exactly_one_creates_and_its_content_stays(tmp_path: Path) -> None:
    folder = storage_path(str(tmp_path / "store"))
    start, won = threading.Barrier(8), []

    def write(number: int) -> None:
        start.wait()
        if create_atomically(folder / "claim.json", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert read_whole(folder / "claim.json") == str(won[0]).encode()
    assert names_in(folder) == ["claim.json"], "no litter"


def test_what_is_there_is_not_created_again(folder: UPath) -> None:
    write_atomically(folder / "a", b"old")
    assert not create_atomically(folder / "a", b"new")
    assert read_whole(folder / "a") == b"old"


def test_a_folder_is_listed_in_order_without_what_is_hidden(folder: UPath) -> None:
    assert names_in(folder) == [] and read_folder(folder) == {}
    for name in ("b.json", "a.json", ".writing", "c/inner.json"):
        write_atomically(folder / name, name.encode())
    assert names_in(folder) == ["a.json", "b.json", "c"]
    assert read_folder(folder, lambda name: name.endswith(".json")) == {"a.json": b"a.json", "b.json": b"b.json"}


def test_what_another_process_writes_is_listed_at_once(folder: UPath) -> None:
    write_atomically(folder / "first", b"1")
    assert names_in(folder) == ["first"]
    write_atomically(storage_path(str(folder)) / "second", b"2")
    assert names_in(folder) == ["first", "second"]


def test_a_file_that_goes_between_listing_and_reading_is_left_out(folder: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(folder / "stays", b"1")
    monkeypatch.setattr("components.contracts.storage.names_in", lambda _: ["gone", "stays"])
    assert read_folder(folder) == {"stays": b"1"}


def test_removing_twice_is_no_error_and_reading_what_is_gone_is_one(folder: UPath) -> None:
    write_atomically(folder / "a", b"1")
    remove(folder / "a")
    remove(folder / "a")
    with pytest.raises(FileNotFoundError):
        read_whole(folder / "a")


def test_a_disk_without_hard_links_creates_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    assert create_atomically(tmp_path / "a", b"1")
    assert not create_atomically(tmp_path / "a", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"1"


class Answered(Exception):
    """What a client library of S3 raises, as far as we look at it."""

    def __init__(self, code: str) -> None:
        self.response = {"Error": {"Code": code}}


@pytest.mark.parametrize(("codes", "created"), [(["PreconditionFailed"], False), (["ConditionalRequestConflict", "ConditionalRequestConflict"], True)])
def test_what_s3_answers_to_a_conditional_write_is_understood(codes: list[str], created: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """MinIO and AWS answer 412 when something is there; AWS answers 409 when two writes cross, and then nothing is decided yet."""
    path, left = storage_path(f"memory://{uuid.uuid4().hex}/a"), list(codes)

    def pipe_file(_self: object, _path: str, _data: bytes, mode: str) -> None:
        assert mode == "create"
        if left:
            raise OSError(errno.EINVAL, "refused") from Answered(left.pop(0))

    monkeypatch.setattr(type(path.fs), "pipe_file", pipe_file)
    assert create_atomically(path, b"1") is created
    assert not left


def test_an_object_store_that_fails_is_an_error_and_not_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    path = storage_path(f"memory://{uuid.uuid4().hex}/a")

    def pipe_file(*_: object, **__: object) -> None:
        raise PermissionError("access denied") from Answered("AccessDenied")

    monkeypatch.setattr(type(path.fs), "pipe_file", pipe_file)
    with pytest.raises(PermissionError):
        create_atomically(path, b"1")


def record(reason: str, id: str = "one") -> Record:
    return Record(kind="gates", id=id, usecase="flights", event_time=datetime(2013, 5, 1, tzinfo=UTC), outcome="passed", reason=reason)


def test_of_two_different_records_under_one_id_the_first_stays(folder: UPath) -> None:
    store = RecordStore(folder)
    assert store.append(record("so")) == store.append(record("so")) == record("so")
    with pytest.raises(IntegrityError, match="exists with another content"):
        store.append(record("otherwise"))
    assert list(RecordStore(folder).list("gates")) == [record("so")]
    assert store.find("gates", "two") is None
