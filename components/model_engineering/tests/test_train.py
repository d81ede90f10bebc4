"""The same data and seed give the same bytes; what was not to be seen was not seen; a baseline is beaten."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from components.contracts.artifacts import CodeVersion
from components.contracts.errors import CrisplineError, IntegrityError, InvalidData
from components.contracts.loading import LoadedUseCase
from components.model_engineering.baseline import Baseline, fit_baseline
from components.model_engineering.rows import encoding_of, labelled_rows
from components.model_engineering.tests.flight_rows import flight_rows, manifest_of
from components.model_engineering.train import decision_threshold, prepare, read_training, reproduce, train
from components.model_server.scoring import ScoringModel

pytestmark = pytest.mark.pipeline

PARAMETERS = {"max_bin": 128, "max_depth": 4, "learning_rate": 0.2, "subsample": 0.7, "colsample_bytree": 0.7}
CODE = CodeVersion(commit="c0ffee", dirty=False, tree_hash="t", lock_hash="l")


@pytest.fixture(scope="module")
def frame(flights: LoadedUseCase):
    return flight_rows(flights, 6000, signal=2.0)


@pytest.fixture(scope="module")
def model_folder(flights, frame, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "model"
    train(flights, prepare(flights, frame), manifest_of(flights, frame), PARAMETERS, CODE, folder, threads=2)
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.mark.ml_test("infrastructure-1")
def test_another_row_order_and_thread_count_give_the_same_bytes(flights, frame, model_folder, tmp_path) -> None:
    shuffled = frame.sample(frac=1, random_state=3)
    train(flights, prepare(flights, shuffled), manifest_of(flights, frame), PARAMETERS, CODE, tmp_path, threads=1)
    assert digests(tmp_path) == digests(model_folder)


def test_another_seed_gives_another_model_under_another_version(flights, frame, model_folder, tmp_path) -> None:
    config = flights.config.model_copy(update={"model": flights.config.model.model_copy(update={"seed": 2})})
    other = LoadedUseCase(flights.folder, config, flights.features)
    manifest = train(other, prepare(other, frame), manifest_of(flights, frame), PARAMETERS, CODE, tmp_path)
    assert manifest.version != ScoringModel.load(model_folder).manifest.version


@pytest.mark.ml_test("infrastructure-2")
def test_test_and_embargo_rows_do_not_touch_the_model(flights, frame, model_folder, tmp_path) -> None:
    changed = frame.copy()
    later = changed["split"].isin(["test", "embargo"])
    changed.loc[later, "label"] = ~changed.loc[later, "label"].astype("boolean")
    changed.loc[later, "origin_delay_2h"] = 99.0
    train(flights, prepare(flights, changed), manifest_of(flights, frame), PARAMETERS, CODE, tmp_path)
    assert digests(tmp_path) == digests(model_folder)


def test_cancelled_flights_are_not_trained_on(flights, frame, model_folder) -> None:
    training = read_training(model_folder)
    assert training.rows["train"] == int(((frame["split"] == "train") & frame["label"].notna()).sum())
    assert training.rows["train"] < int((frame["split"] == "train").sum())


@pytest.mark.ml_test("infrastructure-1")
def test_a_recorded_model_is_built_again(flights, frame, model_folder, tmp_path) -> None:
    recorded = read_training(model_folder)
    assert reproduce(flights, prepare(flights, frame), manifest_of(flights, frame), recorded, tmp_path) == recorded


def test_a_model_that_cannot_be_built_again_is_noticed(flights, frame, model_folder, tmp_path) -> None:
    recorded, manifest = read_training(model_folder), manifest_of(flights, frame)
    changed = frame.copy()
    changed.loc[0, "label"] = ~changed.loc[0, "label"]
    with pytest.raises(IntegrityError, match="dataset"):
        reproduce(flights, prepare(flights, changed), manifest_of(flights, changed), recorded, tmp_path)
    assert reproduce(flights, prepare(flights, changed), manifest, recorded, tmp_path).model_hash != recorded.model_hash


@pytest.mark.ml_test("infrastructure-2", "model-5")
def test_the_saved_model_scores_better_than_both_baselines_on_later_rows(flights, frame, model_folder, tmp_path) -> None:
    fitted, test = labelled_rows(frame, "train"), labelled_rows(frame, "test")
    fit_baseline(flights, fitted).save(tmp_path)
    baseline = Baseline.load(tmp_path)
    model = roc_auc_score(test.label, ScoringModel.load(model_folder).predict_probability(test.frame))
    simple = roc_auc_score(test.label, baseline.predict_probability(test.frame))
    assert model > simple + 0.02
    assert simple > 0.6
    assert set(baseline.predict_constant(test.frame)) == {fitted.label.mean()}


def test_the_stored_baseline_equals_scikit_learn_s(flights, frame) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows = labelled_rows(frame, "train")
    fields = flights.features.request_fields
    categorical = encoding_of(flights).categorical
    numeric = [name for name in fields if name not in categorical]
    named = [name for name in fields if name in categorical]
    reference = make_pipeline(
        make_column_transformer((StandardScaler(), numeric), (OneHotEncoder(categories=[list(categorical[name]) for name in named]), named)),
        LogisticRegression(max_iter=500),
    ).fit(rows.frame, rows.label)
    np.testing.assert_allclose(fit_baseline(flights, rows).predict_probability(rows.frame), reference.predict_proba(rows.frame)[:, 1], atol=1e-4)


def test_the_threshold_makes_acting_the_cheaper_decision(flights) -> None:
    business = flights.config.business
    threshold = decision_threshold(business)
    assert threshold == pytest.approx(120 / 520)
    for probability, act in ((threshold + 0.01, True), (threshold - 0.01, False)):
        assert ((1 - probability) * business.cost_false_alarm < probability * business.cost_miss) is act


def test_a_period_without_both_classes_is_refused(flights, frame) -> None:
    one_class = frame.copy()
    one_class.loc[one_class["split"] == "train", "label"] = False
    with pytest.raises(InvalidData, match="'train'"):
        prepare(flights, one_class)


def test_a_feature_that_is_a_free_string_is_refused(flights) -> None:
    features = flights.features.model_copy(update={"request_fields": (*flights.features.request_fields, "dest")})
    with pytest.raises(CrisplineError, match="dest"):
        encoding_of(LoadedUseCase(flights.folder, flights.config, features))
