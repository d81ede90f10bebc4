"""Batch scoring uses the server's checks and scoring, and writes the prediction log once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.contracts.artifacts import Release
from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.deployment.bundle import fetch_bundle
from components.deployment.gitops import GitRepository
from components.deployment.releases import release_content, release_path
from components.deployment.tests.example_release import build_release
from components.model_server.batch import score_batch, score_frame
from components.model_server.scoring import ScoringModel
from components.model_server.tests.processes import FEATURES, FIELDS
from components.monitoring.prediction_log import PredictionLog

pytestmark = pytest.mark.pipeline
START = datetime(2013, 4, 1, tzinfo=UTC)


@pytest.fixture
def frame() -> pd.DataFrame:
    """5 rows as entities_to_score writes them: typed columns, gaps in looked-up features, other columns beside."""
    moments = pd.date_range(START, periods=5, freq="h").astype("datetime64[us, UTC]")
    served = {name: np.linspace(0, 1, 5) for name in FEATURES.feature_names if name not in FIELDS}
    rows = pd.DataFrame({"entity": [f"AA{n}" for n in range(5)], "prediction_moment": moments, "event_time": moments + timedelta(hours=2), **FIELDS, **served})
    rows.loc[2, "temp"] = np.nan
    return rows.assign(tailnum="N1", dest="BOS")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    release = build_release(tmp_path / "bundles", maximum_batch_rows=2)
    fetch_bundle(str(tmp_path / "bundles"), release, tmp_path / "release")
    return tmp_path / "release"


def test_a_batch_gives_the_models_own_probabilities(folder: Path, frame: pd.DataFrame) -> None:
    rows = score_frame(folder, frame)
    assert [row.probability for row in rows] == list(ScoringModel.load(folder).predict_probability(frame))
    assert [row.entity for row in rows] == list(frame["entity"]) and {row.predictor for row in rows} == {"batch"}
    assert rows[2].features["temp"] is None and rows[1].features["month"] == 4
    assert [row.sequence for row in rows] == [1, 1, 2, 2, 3] and len({row.id for row in rows}) == 5


def test_a_row_that_breaks_the_contract_stops_the_batch(folder: Path, frame: pd.DataFrame) -> None:
    with pytest.raises(InvalidData, match=r"instances\[1\]\.features\.distance"):
        score_frame(folder, frame.assign(distance=[1.0, 2.0, 3.0, np.inf, 5.0]))
    with pytest.raises(InvalidData, match="lack temp"):
        score_frame(folder, frame.drop(columns="temp"))


def test_the_same_rows_are_logged_once(tmp_path: Path, frame: pd.DataFrame, released: Callable[[Platform], str]) -> None:
    platform, usecase = Platform.embedded(tmp_path / "state"), load_usecase("flights")
    frame.to_parquet(tmp_path / "entities.parquet")
    with pytest.raises(CrisplineError, match="no release"):
        score_batch(platform, usecase, "dev", tmp_path / "entities.parquet", tmp_path / "predictions.parquet")
    release = released(platform)
    for _ in range(2):
        assert score_batch(platform, usecase, "dev", tmp_path / "entities.parquet", tmp_path / "predictions.parquet") == 5
    logged = PredictionLog(platform.prediction_log_uri).read("flights", START, START + timedelta(days=1), predictor="batch")
    written = pd.read_parquet(tmp_path / "predictions.parquet")
    assert list(logged["probability"]) == list(written["probability"]) and set(logged["release"]) == {release}


@pytest.fixture
def released() -> Callable[[Platform], str]:
    def release_into(platform: Platform) -> str:
        release = build_release(platform.bundles_uri)
        content = release_content(
            Release(
                usecase="flights",
                environment="dev",
                release=release,
                model_version="model-7",
                data_version="data-1",
                gates_record="gates-1",
                cause="first",
                promoted=START,
            )
        )
        repository = GitRepository(platform.gitops_repository)
        with repository.locked():
            repository.commit_file(release_path("flights", "dev"), content, "Promote", START)
        return release

    return release_into
