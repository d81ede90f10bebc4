"""The training frame: Feast's point-in-time join on exactly the recorded version of real flights."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from components.contracts.artifacts import DataVersion
from components.contracts.features import FeatureSet
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.contracts.serving import Feedback
from components.data_engineering.entities import read_entities
from components.data_engineering.feature_steps import build_features
from components.data_engineering.ingest import ingest_period
from components.data_engineering.lake import current_version
from components.data_engineering.offline_features import request_features, training_frame
from components.monitoring.feedback import store_feedback

pytestmark = pytest.mark.pipeline

FIRST, MIDDLE, LAST = (datetime(2012, 12, 20, tzinfo=UTC), datetime(2013, 2, 20, tzinfo=UTC), datetime(2013, 2, 27, tzinfo=UTC))
TRAINING_START = datetime(2013, 1, 1, tzinfo=UTC)


@cache
def flights() -> LoadedUseCase:
    loaded = load_usecase("flights")
    model = loaded.config.model.model_copy(update={"test_period": timedelta(days=5)})
    return LoadedUseCase(loaded.folder, loaded.config.model_copy(update={"model": model}), loaded.features)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    platform = Platform.embedded(tmp_path_factory.mktemp("join"))
    ingest_period(flights(), platform.lake_uri, FIRST, MIDDLE)
    return platform


@pytest.fixture(scope="module")
def version(platform: Platform) -> DataVersion:
    return current_version(platform.lake_uri, flights(), MIDDLE)


@pytest.fixture(scope="module")
def frame(platform: Platform, version: DataVersion) -> pd.DataFrame:
    return training_frame(flights(), platform, version, TRAINING_START)[0]


def test_every_flight_with_a_known_or_closed_label_is_in_the_frame_once(platform: Platform, version: DataVersion, frame: pd.DataFrame) -> None:
    from components.data_engineering.lake import read_group

    outcomes = read_group(platform.lake_uri, version, "flights", "outcome")
    assert frame["entity"].is_unique and frame["entity"].is_monotonic_increasing
    assert set(frame["entity"]) == set(outcomes["flight_id"])
    assert frame["outcome"].value_counts().to_dict() == outcomes["outcome"].value_counts().to_dict()
    assert frame.loc[frame["outcome"] != "arrived", "label"].isna().all() and frame.loc[frame["outcome"] == "arrived", "label"].notna().all()


def test_the_frame_holds_the_models_columns_in_their_types(frame: pd.DataFrame) -> None:
    names = flights().features.feature_names
    assert set(names) <= set(frame.columns)
    assert {str(frame[name].dtype) for view in flights().features.views for name in view.feature_names} == {"float64"}
    assert str(frame["label"].dtype) == "boolean" and str(frame["prediction_moment"].dtype) == "datetime64[us, UTC]"
    assert frame[["temp", "origin_delay_6h", "carrier_delay_7d"]].notna().mean().min() > 0.9


def test_appending_later_periods_changes_nothing_of_a_recorded_version(platform: Platform, version: DataVersion, tmp_path: Path) -> None:
    recorded = training_frame(flights(), platform, version, TRAINING_START)[1]
    ingest_period(flights(), platform.lake_uri, MIDDLE, LAST)
    elsewhere = platform.model_copy(update={"feature_store_uri": str(tmp_path / "features"), "records_uri": str(tmp_path / "records")})
    rebuilt = training_frame(flights(), elsewhere, version, TRAINING_START)[1]
    newer = training_frame(flights(), elsewhere, current_version(platform.lake_uri, flights(), LAST), TRAINING_START)[1]
    assert rebuilt == recorded
    assert newer.content_hash != recorded.content_hash


def test_a_value_older_than_its_views_limit_is_missing(platform: Platform, version: DataVersion) -> None:
    rows = read_entities(platform.lake_uri, flights(), version, MIDDLE - timedelta(hours=12), MIDDLE).head(5)
    asked = pd.concat([rows.assign(prediction_moment=pd.Timestamp(MIDDLE) + timedelta(days=days)) for days in (0, 2, 4)], ignore_index=True)
    frame = request_features(flights(), platform, version, asked.astype({"prediction_moment": "datetime64[us, UTC]"}))
    last_tick_age_in_days = frame["carrier_delay_7d"].isna().groupby(frame["prediction_moment"]).all()
    assert last_tick_age_in_days.tolist() == [False, False, True]  # published daily, last at MIDDLE - 1 day, good for 3 days
    assert frame.loc[frame["prediction_moment"] > pd.Timestamp(MIDDLE) + timedelta(days=1), "temp"].isna().all()


def test_rows_come_back_as_they_were_asked_for_even_when_they_repeat(platform: Platform, version: DataVersion) -> None:
    rows = read_entities(platform.lake_uri, flights(), version, MIDDLE - timedelta(hours=12), MIDDLE)
    asked = pd.concat([rows.tail(20), rows.head(20), rows.head(20)])
    frame = request_features(flights(), platform, version, asked)
    assert frame["entity"].tolist() == asked["entity"].tolist()
    pd.testing.assert_frame_equal(frame.iloc[20:40].reset_index(drop=True), frame.iloc[40:60].reset_index(drop=True))


def test_the_checks_of_join_and_split_are_on_record(platform: Platform, frame: pd.DataFrame) -> None:
    checks = {record.details["check"]: record.outcome for record in RecordStore(platform.records_uri).list("check")}
    assert checks["rows_preserved"] == "passed" and checks["embargo"] == "passed"


def test_a_feature_set_of_another_release_can_be_joined(platform: Platform, version: DataVersion) -> None:
    fewer = FeatureSet(views=flights().features.views[:1], request_fields=("carrier",))
    rows = read_entities(platform.lake_uri, flights(), version, MIDDLE - timedelta(hours=4), MIDDLE, fewer)
    assert "temp" in request_features(flights(), platform, version, rows, fewer) and "route" not in rows


def test_the_step_writes_dataset_manifest_record_and_lineage(platform: Platform, version: DataVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "platform.json").write_text(platform.model_dump_json())
    (tmp_path / "version.json").write_text(version.model_dump_json())
    monkeypatch.setenv("CRISPLINE_PLATFORM", str(tmp_path / "platform.json"))
    built = build_features("flights", tmp_path / "version.json", "2013-01-01T00:00:00Z", tmp_path / "out" / "dataset", tmp_path / "out" / "manifest")
    assert len(pd.read_parquet(tmp_path / "out" / "dataset")) == built.rows
    assert [record.id for record in RecordStore(platform.records_uri).list("dataset")] == [built.id]
    events = [json.loads(line) for line in Path(platform.lineage_uri).read_text().splitlines()]
    assert [event["eventType"] for event in events[-2:]] == ["START", "COMPLETE"]
    assert "flights.flights.schedule" in {table["name"] for table in events[-1]["inputs"]}


def test_a_correction_labels_a_row_of_the_frame_only_by_declared_policy(platform: Platform, version: DataVersion, frame: pd.DataFrame, tmp_path: Path) -> None:
    rows = read_entities(platform.lake_uri, flights(), version, MIDDLE - timedelta(days=3), MIDDLE)
    awaited = next(entity for entity in rows["entity"] if entity not in set(frame["entity"]))
    official = frame.loc[frame["label"].notna()].iloc[0]
    elsewhere = platform.model_copy(update={"labels_uri": str(tmp_path / "labels"), "records_uri": str(tmp_path / "records")})
    word = {"prediction_id": "p-0", "kind": "correction", "reason": "seen", "by": "desk", "event_time": MIDDLE - timedelta(hours=1)}
    for entity, value in ((awaited, True), (official["entity"], not official["label"])):
        store_feedback(elsewhere.labels_uri, "flights", Feedback.model_validate({**word, "entity": entity, "value": value}))
    never, manifest = training_frame(flights(), elsewhere, version, TRAINING_START)
    pd.testing.assert_frame_equal(never, frame)
    config = flights().config
    allowed = config.model_copy(update={"retraining": config.retraining.model_copy(update={"feedback_for_training": "corrections"})})
    corrected, changed = training_frame(LoadedUseCase(flights().folder, allowed, flights().features), elsewhere, version, TRAINING_START)
    labels = corrected.set_index("entity")["label"]
    assert labels[awaited] and labels[official["entity"]] == official["label"] and len(corrected) == len(frame) + 1
    assert changed.content_hash != manifest.content_hash


def test_a_view_without_any_row_in_the_version_joins_as_missing_values(tmp_path: Path) -> None:
    """The register of aircraft was delivered before the first period of this lake."""
    platform, end = Platform.embedded(tmp_path), datetime(2013, 2, 9, tzinfo=UTC)
    version = ingest_period(flights(), platform.lake_uri, end - timedelta(days=9), end)
    rows = read_entities(platform.lake_uri, flights(), version, end - timedelta(hours=12), end).head(20)
    joined = request_features(flights(), platform, version, rows)
    empty = next(view for view in flights().features.views if view.table == "planes")
    assert len(rows) == 20 and joined[list(empty.feature_names)].isna().all(axis=None)
    assert {str(joined[name].dtype) for name in empty.feature_names} == {"float64"}
    assert joined["temp"].notna().any()
