"""Everything that crispline keeps, on a real object store: what two writers do at once, what a reader sees, what is refused."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from feast.repo_config import RegistryConfig

from components.contracts.artifacts import DataVersion, TableVersion
from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.events import Alert
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Record, RecordStore
from components.contracts.serving import Feedback, LoggedPrediction
from components.contracts.storage import BlobStore, create_atomically, names_in, read_folder, read_whole, remove, storage_path, write_atomically
from components.data_engineering.feature_repository import online_store, register_views
from components.data_engineering.ingest import ingest_period
from components.data_engineering.lake import current_version, last_period, periods, read_group, verify_version
from components.data_engineering.lineage import emit_materialised
from components.data_engineering.registry_store import RegistryConflict, WholeRegistryStore
from components.data_engineering.tests.small_source import START as FIRST_KNOWN
from components.data_engineering.tests.small_source import SmallSource
from components.data_engineering.withdraw import withdraw_last_period
from components.monitoring.alert_outbox import AlertOutbox
from components.monitoring.feedback import FeedbackLabel, read_feedback, read_labels, store_feedback, store_labels
from components.monitoring.prediction_log import PredictionLog
from components.monitoring.windows import Closed, ClosedWindows, Window
from tests.cluster.access import Cluster
from tests.cluster.object_store import Bucket, bucket_of

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster]

START, DAY = datetime(2013, 5, 1, tzinfo=UTC), timedelta(days=1)


@pytest.fixture(scope="module")
def bucket(kube: Cluster) -> Iterator[Bucket]:
    with bucket_of(kube) as found:
        yield found


@pytest.fixture
def place(bucket: Bucket) -> str:
    """An empty place of the test's own."""
    return f"{bucket.uri}/{uuid.uuid4().hex}"


def at_once(*work: Callable[[], Any]) -> list[Any]:
    """What each of several threads returns or raises."""

    def attempt(each: Callable[[], Any]) -> Any:
        try:
            return each()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(attempt, work))


def test_of_writers_at_once_exactly_one_creates(place: str) -> None:
    for number in range(10):
        path, start = storage_path(place) / f"claim-{number}.json", threading.Barrier(6)
        won = at_once(*(lambda who=who, path=path, start=start: (start.wait(), create_atomically(path, str(who).encode()))[1] for who in range(6)))
        assert sorted(won) == [False] * 5 + [True]
        assert read_whole(path) == str(won.index(True)).encode()


def test_files_are_written_listed_read_and_removed(place: str) -> None:
    folder = storage_path(place)
    assert names_in(folder) == [] and read_folder(folder) == {}
    for name in ("b.json", "a.json", "deep/inner.json"):
        write_atomically(folder / name, name.encode())
    assert names_in(folder) == ["a.json", "b.json", "deep"]
    assert read_folder(folder, lambda name: name.endswith(".json")) == {"a.json": b"a.json", "b.json": b"b.json"}
    remove(folder / "a.json")
    remove(folder / "a.json")
    assert names_in(folder) == ["b.json", "deep"], "listings are not remembered"
    with pytest.raises(FileNotFoundError):
        read_whole(folder / "a.json")
    large = bytes(bytearray(range(256))) * (120 * 4096)  # 120 MiB: more than one request
    write_atomically(folder / "large", large)
    assert read_whole(folder / "large") == large


def record(reason: str, id: str = "one") -> Record:
    return Record(kind="gates", id=id, usecase="flights", event_time=START, outcome="passed", reason=reason)


def test_of_two_different_records_under_one_id_the_first_stays(place: str) -> None:
    start = threading.Barrier(4)
    answers = at_once(*(lambda who=who: (start.wait(), RecordStore(place).append(record(str(who))))[1] for who in range(4)))
    (kept,) = RecordStore(place).list("gates")
    assert [each for each in answers if isinstance(each, Record)] == [kept]
    assert sum(isinstance(each, IntegrityError) for each in answers) == 3
    assert RecordStore(place).append(kept) == kept
    for number in range(40):
        RecordStore(place).append(record("many", f"r{number:03d}"))
    assert len(list(RecordStore(place).list("gates"))) == 41
    assert RecordStore(place).find("gates", "absent") is None


def test_blobs_are_stored_once_and_a_changed_one_is_not_handed_out(place: str) -> None:
    store = BlobStore(place)
    digest = store.put(b"model")
    assert store.put(b"model") == digest and store.get(digest) == b"model"
    write_atomically(storage_path(place) / digest[:2] / digest, b"another")
    with pytest.raises(IntegrityError, match="does not match its hash"):
        store.get(digest)
    with pytest.raises(IntegrityError, match="no blob"):
        store.get("0" * 64)


# --- the lake


def test_of_two_ingests_at_once_one_commits_and_no_row_is_doubled(place: str) -> None:
    usecase, source, first_read, waited = load_usecase("flights"), SmallSource(days=4), threading.Barrier(2), threading.local()
    end = FIRST_KNOWN + 10 * DAY

    def read_period(table: str, group: str, start: datetime, end: datetime) -> pd.DataFrame:
        if not getattr(waited, "done", False):  # both have opened the first table at the same version by now
            waited.done = True
            first_read.wait(60)
        return source.read_period(table, group, start, end)

    def ingest() -> Any:
        return ingest_period(usecase, place, FIRST_KNOWN, end, read_period)

    answers = at_once(ingest, ingest)
    refused = [each for each in answers if isinstance(each, Exception)]
    assert len(refused) == 1 and isinstance(refused[0], CrisplineError) and "another process appends" in str(refused[0]), answers
    version = next(each for each in answers if not isinstance(each, Exception))
    assert ingest_period(usecase, place, FIRST_KNOWN, end, source.read_period) == version, "the one that was refused repeats, and finds it done"
    verify_version(place, version)
    alone = ingest_period(usecase, f"{place}-alone", FIRST_KNOWN, end, source.read_period)
    assert version.id == alone.id, "the same rows as one ingest alone"


def test_periods_follow_are_read_as_of_a_moment_and_are_taken_back(place: str) -> None:
    usecase, source = load_usecase("flights"), SmallSource(days=4)
    ends = [FIRST_KNOWN + days * DAY for days in (9, 10, 11)]
    versions = [ingest_period(usecase, place, start, end, source.read_period) for start, end in zip([FIRST_KNOWN, *ends], ends, strict=False)]
    assert [period.version for period in periods(place, usecase.name)] == versions
    assert current_version(place, usecase, ends[1]) == versions[1]
    rows = [len(read_group(place, version, "flights", "departure")) for version in versions]
    assert rows == sorted(set(rows)) and rows[0] > 0
    withdraw_last_period(usecase, place)
    found = last_period(place, usecase.name)
    assert found is not None and found.version == versions[1]
    assert ingest_period(usecase, place, ends[1], ends[2], source.read_period).id == versions[2].id
    verify_version(place, versions[0])


# --- features


def test_a_registry_that_another_process_changed_is_not_overwritten(place: str) -> None:
    one, other = (WholeRegistryStore(RegistryConfig(path=f"{place}/registry.db")) for _ in range(2))
    registries = [store.get_registry_proto() for store in (one, other)]
    one.update_registry_proto(registries[0])
    with pytest.raises(RegistryConflict):
        other.update_registry_proto(registries[1])  # both found none
    fresh = other.get_registry_proto()
    one.update_registry_proto(registries[0])  # its own last word is the one that is there
    with pytest.raises(RegistryConflict):
        other.update_registry_proto(fresh)


def test_use_cases_that_register_at_once_lose_no_view(place: str, tmp_path: Any) -> None:
    flights = load_usecase("flights")
    platform = Platform.embedded(tmp_path).model_copy(update={"feature_store_uri": place})
    start = threading.Barrier(4)

    def register(number: int) -> tuple[str, ...]:
        own = [view.model_copy(update={"name": f"{view.name}_{number}"}) for view in flights.features.views[:2]]
        config = flights.config.model_copy(update={"name": f"usecase_{number}"})
        store = online_store(platform.model_copy(update={"online_store": str(tmp_path / f"online-{number}.db")}))
        start.wait(120)
        return register_views(store, platform, config, own)

    names = at_once(*(lambda number=number: register(number) for number in range(4)))
    assert not [each for each in names if isinstance(each, Exception)], names
    there = {view.spec.name for view in WholeRegistryStore(RegistryConfig(path=f"{place}/registry.db")).get_registry_proto().feature_views}
    assert there == {name for each in names for name in each} and len(there) == 8


def test_lineage_events_are_one_object_each(place: str) -> None:
    table = TableVersion(table="flights.schedule", version=3, rows=10, content_hash="ab")
    version = DataVersion(id="v1", usecase="flights", as_of=START, tables={"flights.schedule": table})
    runs = [emit_materialised(f"{place}/lineage", version, START + hour * timedelta(hours=1), {"view": 1}) for hour in range(2)]
    names = names_in(storage_path(f"{place}/lineage"))
    assert len(names) == 4 and {name[:36] for name in names} == set(runs)


# --- monitoring


def prediction(number: int, **changed: Any) -> LoggedPrediction:
    moment = START + number * timedelta(minutes=1)
    fields: dict[str, Any] = {
        "id": f"r{number}-0", "usecase": "flights", "predictor": "default", "entity": f"f{number}", "prediction_moment": moment,
        "event_time": moment + timedelta(hours=2), "model_version": "m1", "release": "r1", "feature_set": "fs", "probability": 0.25, "decision": False,
        "features": {"temp": 40.5, "carrier": "AA"}, "feature_times": {"weather": moment}, "warnings": [], "instance": "a", "sequence": number + 1,
        "received": START,
    }  # fmt: skip
    return LoggedPrediction.model_validate({**fields, **changed})


def test_the_prediction_log_is_written_by_replicas_at_once_read_and_compacted(place: str) -> None:
    rows = [prediction(number) for number in range(60)]
    written = at_once(*(lambda part=part: PredictionLog(place).append(rows[part * 10 : part * 10 + 15]) for part in range(6)))
    assert sum(written) == 85  # the last part has ten rows only; five of each other stand in two files
    log = PredictionLog(place)
    assert PredictionLog(place).append(rows[:15]) == 0, "the same rows again write nothing"
    found = log.read("flights", START, START + DAY)
    assert list(found["id"]) == [row.id for row in rows] and found["feature.temp"].eq(40.5).all()
    assert log.latest("flights") == START + timedelta(minutes=59)
    (day,) = log.days("flights")
    assert log.compact("flights", day) == 6 and len(log.files("flights", day)) == 1
    assert list(log.read("flights", START, START + DAY)["id"]) == [row.id for row in rows]


def test_a_reader_and_a_compaction_at_once_lose_no_row(place: str) -> None:
    rows, log = [prediction(number) for number in range(40)], PredictionLog(place)
    for number in range(0, 40, 5):
        log.append(rows[number : number + 5])
    (day,) = log.days("flights")
    answers = at_once(
        lambda: PredictionLog(place).compact("flights", day),
        *(lambda: len(PredictionLog(place).read("flights", START, START + DAY)) for _ in range(3)),
        lambda: PredictionLog(place).compact("flights", day),
    )
    assert answers[1:4] == [40] * 3, answers
    assert not isinstance(answers[0], Exception) and not isinstance(answers[4], Exception), answers
    assert len(log.read("flights", START, START + DAY)) == 40


def test_a_window_is_closed_once(place: str) -> None:
    start = threading.Barrier(4)
    window = Window(START, START + DAY)

    def close(rows: int) -> Closed | None:
        closed = ClosedWindows(place, "flights")
        start.wait()
        closed.close(Closed(window_start=START, window_end=START + DAY, watermark=START + DAY, rows=rows, models=("m",), last_number={}))
        return closed.get(window)

    assert ClosedWindows(place, "flights").get(window) is None
    found = at_once(*(lambda rows=rows: close(rows) for rows in range(4)))
    assert len({each.rows for each in found}) == 1, "every replica goes on from the same marker"
    assert ClosedWindows(place, "flights").get(window) == found[0]


def test_alerts_wait_in_the_outbox_until_they_are_sent(place: str) -> None:
    alert = Alert(
        id="a1", usecase="flights", kind="data_drift", detector="d", model_version="m", release="r", window_start=START, window_end=START + DAY,
        rows=10, subject="temp", statistic=1.0, threshold=0.5, effect="warmer", details={},
    )  # fmt: skip
    at_once(*(lambda: AlertOutbox(place, "", lambda: 0.0).put(alert) for _ in range(3)))
    replica = AlertOutbox(place, "http://127.0.0.1:1/events", lambda: 0.0)
    assert replica.pending() == [alert] and replica.send() == 0, "nobody takes it"
    assert AlertOutbox(place, "", lambda: 0.0).pending() == [alert]


def test_labels_and_feedback_are_kept_once(place: str) -> None:
    usecase = load_usecase("flights").config
    label = FeedbackLabel(entity="f1", label=True, outcome=usecase.data.label.labelled_outcome, known_at=START)
    word = Feedback(entity="f1", prediction_id="r1-0", kind="dispute", reason="late", by="somebody", event_time=START)
    for _ in range(2):
        store_labels(place, usecase, [label])
        store_feedback(place, "flights", word)
    assert read_labels(place, "flights", START + DAY) == [label] and read_labels(place, "flights", START - DAY) == []
    assert read_feedback(place, "flights", START + DAY) == [word]
