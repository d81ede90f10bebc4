"""A model's folder is scored the same way whoever reads it: as a frame, as rows, before and after it was saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from components.contracts.artifacts import CodeVersion, ModelManifest
from components.contracts.errors import IntegrityError
from components.model_server.encoding import Encoding, InvalidModelInput
from components.model_server.scoring import MANIFEST_FILE, MODEL_FILE, Calibrator, ScoringModel, save_model

pytestmark = pytest.mark.serving

CATEGORIES = {"carrier": ("AA", "B6", "UA")}
NAMES = ("carrier", "delay", "distance", "holiday")
CALIBRATOR = Calibrator(kind="isotonic", x=(0.0, 0.3, 1.0), y=(0.0, 0.2, 1.0))


def rows(count: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(7)
    frame = pd.DataFrame({"carrier": random.choice(CATEGORIES["carrier"], count), "delay": random.normal(size=count)})
    frame["distance"] = random.normal(size=count)
    frame["holiday"] = random.random(count) < 0.5
    frame.loc[::9, "distance"] = np.nan
    return frame


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xgb.Booster]:
    frame, encoding = rows(), Encoding(NAMES, CATEGORIES)
    label = ((frame["delay"] + (frame["carrier"] == "B6") + 0.5 * frame["holiday"]) > 0.6).astype(float)
    data = xgb.DMatrix(encoding.encode(frame), label, feature_names=list(NAMES), feature_types=encoding.feature_types, enable_categorical=True)
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, data, 20)
    manifest = ModelManifest(
        version="m1",
        algorithm="xgboost",
        parameters={},
        best_iteration=19,
        seed=1,
        dataset="d",
        feature_names=NAMES,
        categorical=CATEGORIES,
        decision_threshold=0.25,
        code=CodeVersion(commit="", dirty=False, tree_hash="", lock_hash=""),
    )
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, manifest, booster, CALIBRATOR)
    return folder, booster


@pytest.fixture
def model(trained: tuple[Path, xgb.Booster]) -> ScoringModel:
    return ScoringModel.load(trained[0])


def test_a_loaded_model_gives_the_booster_s_own_probabilities(trained: tuple[Path, xgb.Booster], model: ScoringModel) -> None:
    frame = rows()
    data = xgb.DMatrix(model.encoding.encode(frame), feature_names=list(NAMES), feature_types=model.encoding.feature_types, enable_categorical=True)
    np.testing.assert_allclose(model.raw_probability(frame), trained[1].predict(data), rtol=1e-6)


def test_the_calibrated_probability_is_the_interpolated_one(model: ScoringModel) -> None:
    raw, calibrated = model.raw_probability(rows()), model.predict_probability(rows())
    np.testing.assert_allclose(calibrated, np.where(raw < 0.3, raw * 2 / 3, 0.2 + (raw - 0.3) * 0.8 / 0.7))


def test_rows_as_json_values_score_exactly_as_the_frame(model: ScoringModel) -> None:
    frame = rows()
    frame.loc[5, "carrier"] = None
    frame.loc[6, "carrier"] = "ZZ"
    as_rows = [{name: None if pd.isna(value) else value for name, value in row.items()} for row in frame.to_dict("records")]
    np.testing.assert_array_equal(model.predict_rows(as_rows), model.predict_probability(frame))
    np.testing.assert_array_equal(model.predict_probability(pd.DataFrame(as_rows)), model.predict_probability(frame))


def test_the_order_of_columns_and_their_dtype_do_not_matter(model: ScoringModel) -> None:
    frame = rows()
    other = frame[list(reversed(NAMES))].assign(
        carrier=frame["carrier"].astype("category"), holiday=frame["holiday"].astype("boolean"), delay=frame["delay"].astype(object)
    )
    np.testing.assert_array_equal(model.predict_probability(other), model.predict_probability(frame))


@pytest.mark.ml_test("monitoring-2")
def test_an_unknown_category_counts_as_missing_and_is_named(model: ScoringModel) -> None:
    row = {"carrier": "ZZ", "delay": 0.1, "distance": 0.2, "holiday": True}
    assert model.predict_rows([row])[0] == model.predict_rows([{**row, "carrier": None}])[0]
    assert model.predict_rows([row])[0] != model.predict_rows([{**row, "carrier": "B6"}])[0]
    assert "carrier: 'ZZ'" in model.warnings_of_row(row)[0]
    assert model.warnings_of_row({**row, "carrier": None}) == []
    masks = model.unknown_categories(pd.DataFrame([{**row, "carrier": "AA"}, row, {**row, "carrier": None}]))
    assert masks["carrier"].tolist() == [False, True, False]


@pytest.mark.ml_test("infrastructure-5")
def test_contributions_add_up_to_the_log_odds(model: ScoringModel) -> None:
    frame = rows(50)
    contributions = model.contributions(frame)
    assert list(contributions.columns) == [*NAMES, "bias"]
    np.testing.assert_allclose(1 / (1 + np.exp(-contributions.sum(axis=1))), model.raw_probability(frame), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"delay": "late"}, "delay"), ({"delay": float("inf")}, "delay"), ({"distance": [1]}, "distance")],
)
@pytest.mark.ml_test("monitoring-5")
def test_what_is_not_a_number_is_refused_by_name(model: ScoringModel, change: dict[str, object], named: str) -> None:
    row = {"carrier": "AA", "delay": 0.1, "distance": 0.2, "holiday": True, **change}
    with pytest.raises(InvalidModelInput, match=named):
        model.predict_rows([row])
    with pytest.raises(InvalidModelInput, match=named):
        model.predict_probability(pd.DataFrame([row]))


def test_an_absent_column_is_refused_and_not_taken_as_missing(model: ScoringModel) -> None:
    with pytest.raises(InvalidModelInput, match="distance"):
        model.predict_probability(rows().drop(columns="distance"))
    with pytest.raises(InvalidModelInput, match="distance"):
        model.predict_rows([{"carrier": "AA", "delay": 0.1, "holiday": True}])


def test_no_rows_give_no_probabilities(model: ScoringModel) -> None:
    assert model.predict_probability(rows().head(0)).shape == (0,)


def test_the_decision_is_positive_from_the_threshold_on(model: ScoringModel) -> None:
    assert model.decide(np.array([0.2499, 0.25, 0.9])).tolist() == [False, True, True]


def test_files_of_two_models_are_refused(trained: tuple[Path, xgb.Booster], tmp_path: Path) -> None:
    for file in trained[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = (tmp_path / MANIFEST_FILE).read_text()
    (tmp_path / MANIFEST_FILE).write_text(manifest.replace('"delay"', '"dep_delay"'))
    with pytest.raises(IntegrityError, match="two models"):
        ScoringModel.load(tmp_path)
    (tmp_path / MODEL_FILE).unlink()
    with pytest.raises(IntegrityError, match=MODEL_FILE):
        ScoringModel.load(tmp_path)
