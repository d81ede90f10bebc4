"""A world of synthetic flights with a known truth, and models trained on it, so that each gate can be seen saying yes and no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.contracts.artifacts import CodeVersion, DatasetManifest, DataVersion, ModelManifest
from components.contracts.evaluation import Reproduction
from components.contracts.loading import LoadedUseCase, load_usecase

START = datetime(2013, 1, 1, tzinfo=UTC)
TRAIN_DAYS, TEST_DAYS, ROWS_A_DAY = 28, 14, 150


@dataclass(frozen=True)
class World:
    """A use case, a dataset of it and a folder to put models in."""

    usecase: LoadedUseCase
    dataset: pd.DataFrame
    manifest: DatasetManifest
    folder: Path


def flights(usecase: LoadedUseCase, seed: int = 7) -> pd.DataFrame:
    """Late with a probability that depends on weather, delays at the airport, the route, and the day; HA flies rarely."""
    rng = np.random.default_rng(seed)
    count = (TRAIN_DAYS + TEST_DAYS) * ROWS_A_DAY
    day = np.repeat(np.arange(TRAIN_DAYS + TEST_DAYS), ROWS_A_DAY)
    frame = pd.DataFrame({name: rng.normal(size=count) for name in usecase.features.feature_names})
    frame["carrier"] = rng.choice(["AA", "B6", "UA", "DL", "HA"], size=count, p=[0.3, 0.3, 0.2, 0.19, 0.01])
    frame["origin"] = rng.choice(["EWR", "JFK", "LGA"], size=count)
    frame["month"] = np.where(day < TRAIN_DAYS, 1, 2)
    frame["distance"] = rng.uniform(100, 3000, size=count)
    odds = -1.2 + 0.6 * frame["origin_delay_2h"] + 0.6 * frame["route_late_share"] + 0.6 * frame["precip"] + 0.6 * frame["carrier_delay_7d"]
    odds += rng.normal(0, 0.4, size=TRAIN_DAYS + TEST_DAYS)[day]
    frame["label"] = pd.array(rng.random(count) < 1 / (1 + np.exp(-odds)), dtype="boolean")
    frame["outcome"] = "arrived"
    cancelled = rng.random(count) < 0.02
    frame.loc[cancelled, "label"] = pd.NA
    frame.loc[cancelled, "outcome"] = "cancelled"
    frame["event_time"] = pd.to_datetime(
        [START + timedelta(days=int(each), minutes=int(minute)) for each, minute in zip(day, rng.integers(300, 1380, count), strict=True)]
    )
    frame["prediction_moment"] = frame["event_time"] - timedelta(hours=2)
    frame["label_known_at"] = frame["event_time"] + timedelta(days=14)
    frame["entity"] = [f"flight-{number:05d}" for number in range(count)]
    frame["split"] = np.where(day < TRAIN_DAYS - 7, "train", np.where(day < TRAIN_DAYS, "validation", "test"))
    return frame


def manifest_of(dataset: pd.DataFrame) -> DatasetManifest:
    as_of = START + timedelta(days=TRAIN_DAYS + TEST_DAYS + 14)
    return DatasetManifest(
        id="dataset-1",
        usecase="flights",
        data_version=DataVersion(id="data-1", usecase="flights", as_of=as_of, tables={}),
        feature_set="set-1",
        rows=len(dataset),
        rows_by_split={str(name): int(count) for name, count in dataset["split"].value_counts().items()},
        label_share_by_split={str(name): float(share) for name, share in dataset.groupby("split")["label"].mean().items()},
        outcomes={str(name): int(count) for name, count in dataset["outcome"].value_counts().items()},
        boundaries={"test_start": START + timedelta(days=TRAIN_DAYS)},
        content_hash="hash-1",
    )


def train_model(
    world: World,
    name: str,
    *,
    features: tuple[str, ...] | None = None,
    rounds: int = 60,
    label: pd.Series | None = None,
    x: tuple[float, ...] = (),
    y: tuple[float, ...] = (),
) -> Path:
    """A real XGBoost model on the training split; `x`, `y`: knots of an isotonic calibrator, else the identity."""
    import xgboost as xgb

    from components.model_server.encoding import Encoding
    from components.model_server.scoring import Calibrator, save_model

    names = features or tuple(world.usecase.features.feature_names)
    categorical = {"carrier": ("AA", "B6", "DL", "HA", "UA"), "origin": ("EWR", "JFK", "LGA")}
    encoding = Encoding(names, {key: value for key, value in categorical.items() if key in names})
    rows = world.dataset[(world.dataset["split"] == "train") & world.dataset["label"].notna()]
    target = (rows["label"] if label is None else label[rows.index]).astype(float)
    data = xgb.DMatrix(encoding.encode(rows), target, feature_names=list(names), feature_types=encoding.feature_types, enable_categorical=True)
    parameters = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.1, "nthread": 1, "seed": 1}
    booster = xgb.train(parameters, data, rounds)
    calibrator = Calibrator(kind="isotonic", x=x, y=y) if x else Calibrator(kind="identity")
    manifest = ModelManifest(
        version=name,
        algorithm="xgboost",
        parameters={"max_depth": 3},
        best_iteration=rounds - 1,
        seed=1,
        dataset=world.manifest.id,
        feature_names=names,
        categorical=dict(encoding.categorical),
        decision_threshold=120 / 520,
        code=CodeVersion(commit="", dirty=False, tree_hash="tree-1", lock_hash="lock-1"),
    )
    save_model(world.folder / name, manifest, booster, calibrator)
    return world.folder / name


def candidate_of(world: World, folder: Path, champion: Path | None = None) -> Any:
    from components.evaluation.evaluate import Candidate
    from components.model_engineering.baseline import Baseline
    from components.model_server.scoring import ScoringModel

    constant = Baseline(constant=0.3, intercept=-1.0, numeric={"precip": {"mean": 0.0, "scale": 1.0, "coefficient": 0.3}}, categorical={})
    opponent = None if champion is None else ("release-1", ScoringModel.load(champion))
    return Candidate(ScoringModel.load(folder), folder, constant, opponent)


@pytest.fixture(scope="session")
def usecase() -> LoadedUseCase:
    return load_usecase("flights")


@pytest.fixture(scope="session")
def world(usecase: LoadedUseCase, tmp_path_factory: pytest.TempPathFactory) -> World:
    dataset = flights(usecase)
    return World(usecase, dataset, manifest_of(dataset), tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def train(world: World) -> Callable[..., Path]:
    return lambda name, world=world, **options: train_model(world, name, **options)


@pytest.fixture(scope="session")
def evaluate(world: World) -> Callable[..., Any]:
    """evaluate(folder, dataset=..., champion=..., **changes of the evaluation section) -> EvaluationResult"""
    from components.evaluation.evaluate import evaluate_model

    def run(folder: Path, dataset: pd.DataFrame | None = None, champion: Path | None = None, usecase: LoadedUseCase = world.usecase) -> Any:
        result = evaluate_model(usecase, world.dataset if dataset is None else dataset, world.manifest, candidate_of(world, folder, champion))
        # These models come without the record of a training; what a reproduction measures is tested by itself.
        return result.model_copy(update={"reproduction": Reproduction(same_bytes=True, largest_difference=0.0)})

    return run


@pytest.fixture(scope="session")
def good_model(train: Callable[..., Path]) -> Path:
    return train("good")


@pytest.fixture(scope="session")
def good(evaluate: Callable[..., Any], good_model: Path) -> Any:
    return evaluate(good_model)


@pytest.fixture(scope="session")
def in_world(world: World) -> Callable[..., World]:
    return lambda dataset: replace(world, dataset=dataset)
