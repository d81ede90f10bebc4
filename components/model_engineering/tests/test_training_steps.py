"""The three steps in a row, on files, with the real MLflow on SQLite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.model_engineering import steps
from components.model_engineering.rows import labelled_rows
from components.model_engineering.tests.flight_rows import flight_rows, manifest_of
from components.model_engineering.tracking import Tracked, quiet_mlflow
from components.model_server.scoring import ScoringModel

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def run(flights, tmp_path_factory):
    """Everything that the steps left behind: folder, platform, dataset, manifest."""
    folder = tmp_path_factory.mktemp("steps")
    platform = Platform.embedded(folder / "state")
    (folder / "platform.json").write_text(platform.model_dump_json())
    frame = flight_rows(flights, 3000)
    manifest = manifest_of(flights, frame)
    frame.to_parquet(folder / "dataset.parquet")
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    names = {name: str(folder / name) for name in ("dataset.parquet", "manifest.json", "best.json", "model", "baseline", "tracked.json")}
    dataset, description, best, model, baseline, tracked = names.values()
    patch = pytest.MonkeyPatch()
    patch.setenv("CRISPLINE_PLATFORM", str(folder / "platform.json"))
    patch.setattr(steps, "load_usecase", lambda _: flights)
    steps.run_tune("flights", dataset, description, 2, best)
    steps.run_train("flights", dataset, description, best, model, baseline)
    steps.run_track("flights", dataset, description, best, model, baseline, "schedule-1", tracked)
    yield folder, platform, frame, manifest
    patch.undo()


@pytest.fixture
def tracked(run) -> Tracked:
    return Tracked.model_validate_json((run[0] / "tracked.json").read_text())


@pytest.fixture
def logged(run, tracked):
    mlflow = quiet_mlflow()
    mlflow.set_tracking_uri(run[1].tracking_uri)
    return mlflow.MlflowClient().get_run(tracked.run_id)


def test_mlflow_holds_what_is_needed_to_build_the_model_again(run, logged) -> None:
    manifest, model = run[3], ScoringModel.load(run[0] / "model").manifest
    assert logged.data.params["max_depth"] == str(model.parameters["max_depth"])
    assert logged.data.params["seed"] == str(model.seed)
    assert logged.data.tags["dataset_hash"] == manifest.content_hash
    assert logged.data.tags["data_version"] == manifest.data_version.id
    assert logged.data.tags["code.tree_hash"] == model.code.tree_hash
    assert logged.data.tags["code.dirty"] in ("true", "false")
    assert len(logged.data.tags["environment.lock_hash"]) == 64
    assert logged.data.tags["cause"] == "schedule-1"
    assert 0.5 < logged.data.metrics["calibration_roc_auc"] < 1
    assert logged.inputs.dataset_inputs[0].dataset.digest == manifest.content_hash[:36]


def test_the_model_in_mlflow_scores_like_the_file(run, flights, tracked) -> None:
    mlflow = quiet_mlflow()
    mlflow.set_tracking_uri(run[1].tracking_uri)
    loaded = mlflow.pyfunc.load_model(tracked.model_uri)
    model = ScoringModel.load(run[0] / "model")
    rows = labelled_rows(run[2], "test").frame
    numbers = {name: "float64" for name in model.feature_names if name not in model.manifest.categorical}
    answer = loaded.predict(rows[list(model.feature_names)].astype(numbers))
    np.testing.assert_array_equal(answer["probability"].to_numpy(), model.predict_probability(rows))
    assert [column.name for column in loaded.metadata.signature.inputs] == list(model.feature_names)


def test_artifacts_go_where_the_platform_says(run) -> None:
    artifacts = Path(run[1].artifact_uri)
    assert list(artifacts.glob("flights/models/*/artifacts/data/model/model.ubj"))
    assert list(artifacts.glob("tuning/flights/*.log"))
    assert not list(artifacts.glob("**/uv.lock"))


def test_tracking_again_gives_the_run_that_is_there(run, tracked) -> None:
    folder = run[0]
    names = [str(folder / name) for name in ("dataset.parquet", "manifest.json", "best.json", "model", "baseline")]
    steps.run_track("flights", *names, "schedule-1", str(folder / "again.json"))
    assert Tracked.model_validate_json((folder / "again.json").read_text()) == tracked
    steps.run_track("flights", *names, "alert-7", str(folder / "other.json"))
    assert Tracked.model_validate_json((folder / "other.json").read_text()).run_id != tracked.run_id


def test_the_record_tells_the_training(run, tracked) -> None:
    store = RecordStore(run[1].records_uri)
    training = next(record for record in store.list("training") if record.lineage.cause == "schedule-1")
    assert training.lineage.run == tracked.run_id
    assert training.event_time == run[3].data_version.as_of
    assert training.lineage.model_version == tracked.model_version
