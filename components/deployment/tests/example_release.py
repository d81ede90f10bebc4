"""A small real release of the flights use case: a model trained on made-up rows, with every file that a bundle needs."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import xgboost as xgb

from components.contracts.artifacts import CodeVersion, ModelManifest
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore
from components.contracts.storage import BlobStore
from components.deployment.bundle import BundleFields, build_bundle, canonical, read_manifest
from components.deployment.serving_contract import serving_contract
from components.model_server.scoring import Calibrator, ScoringModel, save_model

CREATED = datetime(2013, 4, 1, tzinfo=UTC)


def train(usecase: LoadedUseCase, folder: Path, seed: int = 7, version: str = "") -> ModelManifest:
    features = usecase.features
    columns = usecase.config.data.tables["flights"].columns
    categorical = {name: tuple(columns[name].categories or ()) for name in features.request_fields if columns[name].type == "category"}
    manifest = ModelManifest(
        version=version or f"model-{seed}",
        algorithm="xgboost",
        parameters={},
        best_iteration=0,
        seed=seed,
        dataset="dataset-1",
        feature_names=features.feature_names,
        categorical=categorical,
        decision_threshold=0.3,
        code=CodeVersion(commit="", dirty=False, tree_hash="t", lock_hash="l"),
    )
    random = np.random.default_rng(seed)
    rows = random.normal(size=(400, len(manifest.feature_names))).astype(np.float32)
    for position, name in enumerate(manifest.feature_names):
        if name in categorical:
            rows[:, position] = random.integers(0, len(categorical[name]), 400)
    label = (rows[:, -1] + rows[:, 4] + random.normal(size=400) > 0).astype(int)
    types = ["c" if name in categorical else "float" for name in manifest.feature_names]
    matrix = xgb.DMatrix(rows, label, feature_names=list(manifest.feature_names), feature_types=types, enable_categorical=True)
    booster = xgb.train({"max_depth": 4, "objective": "binary:logistic", "nthread": 1}, matrix, num_boost_round=20)
    save_model(folder, manifest, booster, Calibrator(kind="isotonic", x=(0.0, 0.5, 1.0), y=(0.01, 0.4, 0.99)))
    ScoringModel.load(folder)
    return manifest


def release_files(usecase: LoadedUseCase, seed: int = 7, version: str = "", **contract_changes: object) -> tuple[dict[str, bytes], ModelManifest]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = train(usecase, folder, seed, version)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    contract = serving_contract(usecase, manifest).model_copy(update=contract_changes)
    return {
        **files,
        "usecase.yaml": (usecase.folder / "usecase.yaml").read_bytes(),
        "features.json": usecase.features.model_dump_json().encode(),
        "serving.json": contract.model_dump_json().encode(),
        "detectors/detectors.json": b"{}",
        "reference.parquet": b"PAR1",
        "reference.json": b"{}",
        "gates.json": json.dumps({"passed": True}).encode(),
        "evaluation.json": b"{}",
        "model_card.html": b"<html></html>",
    }, manifest


def build_release(bundles: Path | str, seed: int = 7, version: str = "", gates_passed: bool = True, **contract_changes: object) -> str:
    usecase = load_usecase("flights")
    files, manifest = release_files(usecase, seed, version, **contract_changes)
    fields = BundleFields(
        usecase="flights",
        model_version=manifest.version,
        data_version="data-1",
        dataset="dataset-1",
        feature_set=usecase.features.definition_hash,
        feature_views=tuple(view.served_name for view in usecase.features.views),
        gates_record="gates-1",
        gates_passed=gates_passed,
        cause="first",
        created=CREATED,
    )
    return build_bundle(files, fields, str(bundles))


def judged_release(platform: Platform, seed: int = 7) -> str:
    """A release as `build_release` makes it that carries the gates record it was judged by, which is stored among the platform's records."""
    built = build_release(platform.bundles_uri, seed)
    manifest, store = read_manifest(platform.bundles_uri, built), BlobStore(platform.bundles_uri)
    lineage = Lineage(model_version=manifest.model_version)
    reason = "All gates passed."
    record = Record(kind="gates", id=f"gates-{seed}", usecase="flights", event_time=CREATED, outcome="passed", reason=reason, lineage=lineage)
    RecordStore(platform.records_uri).append(record)
    files = {**manifest.files, "gates.json": store.put(record.model_dump_json().encode())}
    return store.put(canonical(manifest.model_copy(update={"files": files, "gates_record": record.id})))
