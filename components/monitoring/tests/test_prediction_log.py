"""The prediction log over real files, read by DuckDB."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.contracts.errors import InvalidData
from components.contracts.serving import FeatureValue, LoggedPrediction
from components.monitoring.prediction_log import BATCH_PREDICTOR, PredictionLog, features_of

pytestmark = pytest.mark.monitoring
START = datetime(2013, 4, 1, tzinfo=UTC)


def prediction(number: int, moment: datetime, **changed: object) -> LoggedPrediction:
    features: dict[str, FeatureValue] = {"temp": 40.5 + number, "carrier": "AA", "count": number, "gone": None}
    fields: dict[str, object] = {
        "id": f"r{number}-0", "usecase": "flights", "predictor": "default", "entity": f"f{number}", "prediction_moment": moment,
        "event_time": moment + timedelta(hours=2), "model_version": "m1", "release": "r1", "feature_set": "fs", "probability": 0.25, "decision": False,
        "features": features, "feature_times": {"weather__1": moment, "plane__1": None}, "warnings": ["plane is unknown"], "instance": "a",
        "sequence": number + 1, "received": START,
    }  # fmt: skip
    return LoggedPrediction.model_validate({**fields, **changed})


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def test_rows_come_back_as_they_were_logged(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path))
    log.append([prediction(1, START), prediction(0, START + timedelta(hours=1), features={"temp": None, "carrier": "UA", "count": 3, "gone": None})])
    frame = log.read("flights", START, START + timedelta(days=1))
    assert list(frame["entity"]) == ["f1", "f0"]
    assert frame["prediction_moment"].iloc[0].to_pydatetime() == START
    assert list(frame["warnings"].iloc[0]) == ["plane is unknown"]
    read = features_of(frame, ["carrier", "temp", "gone"])
    assert list(read["carrier"]) == ["AA", "UA"]
    assert read["temp"].iloc[0] == 41.5
    assert read["temp"].isna().tolist() == [False, True]
    assert read["gone"].isna().all()


def test_appending_again_writes_nothing(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path))
    rows = [prediction(number, START + timedelta(hours=5 * number)) for number in range(10)]
    assert log.append(rows) == 10
    before = files(tmp_path)
    assert PredictionLog(str(tmp_path)).append(list(reversed(rows))) == 0
    assert files(tmp_path) == before


def test_batches_cut_differently_leave_no_row_twice(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path))
    rows = [prediction(number, START + timedelta(minutes=number)) for number in range(10)]
    log.append(rows[:6])
    log.append(rows[4:])
    assert list(log.read("flights", START, START + timedelta(days=1))["id"]) == [row.id for row in rows]


def test_the_period_is_half_open_and_filters_apply(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path))
    log.append([prediction(0, START), prediction(1, START + timedelta(days=1)), prediction(2, START, model_version="m2", release="r2", predictor="canary")])
    assert list(log.read("flights", START, START + timedelta(days=1))["id"]) == ["r0-0", "r2-0"]
    assert list(log.read("flights", START, START + timedelta(days=2), model_version="m1")["id"]) == ["r0-0", "r1-0"]
    assert list(log.read("flights", START, START + timedelta(days=2), predictor="canary")["id"]) == ["r2-0"]
    assert log.read("other", START, START + timedelta(days=2)).empty


def test_releases_with_other_features_stand_side_by_side(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path))
    log.append([prediction(0, START), prediction(1, START, release="r2", model_version="m2", features={"temp": 1.0, "new": "x"})])
    frame = log.read("flights", START, START + timedelta(days=1))
    assert frame["feature.new"].isna().tolist() == [True, False]
    assert frame["feature.carrier"].isna().tolist() == [False, True]


def test_a_feature_that_changes_its_type_within_a_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="temp"):
        PredictionLog(str(tmp_path)).append([prediction(0, START), prediction(1, START, features={"temp": "warm"})])
    assert files(tmp_path) == []


def test_compaction_keeps_every_row_and_leaves_one_file_a_release(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path))
    for number in range(8):
        log.append([prediction(number, START + timedelta(minutes=number), release=f"r{number % 2}")])
    before = log.read("flights", START, START + timedelta(days=1))
    assert log.compact("flights", START.date()) == 8
    assert len(files(tmp_path)) == 2
    assert log.read("flights", START, START + timedelta(days=1)).equals(before)
    assert log.compact("flights", START.date()) == 0


def test_reading_goes_on_while_the_day_is_compacted(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path))
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(len(log.read("flights", START, START + timedelta(days=1))))

    log.append([prediction(0, START)])
    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 25):
        log.append([prediction(number, START + timedelta(minutes=number))])
        if number % 3 == 0:
            log.compact("flights", START.date())
    stop.set()
    reader.join()
    assert seen == sorted(seen)
    assert len(log.read("flights", START, START + timedelta(days=1))) == 25


def test_the_clock_is_the_latest_moment_served_and_batches_do_not_set_it(tmp_path: Path) -> None:
    log = PredictionLog(str(tmp_path))
    assert log.latest("flights") is None
    log.append([prediction(0, START), prediction(1, START + timedelta(days=9), predictor=BATCH_PREDICTOR)])
    assert log.latest("flights") == START


def test_an_object_store_holds_the_log_as_well() -> None:
    log = PredictionLog("memory://bucket/log")
    log.append([prediction(0, START), prediction(1, START)])
    assert len(log.read("flights", START, START + timedelta(days=1))) == 2
