"""Puts a release together from what the steps before it made: model, detectors, contract, evidence."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from components.contracts.artifacts import DatasetManifest, ModelManifest
from components.contracts.errors import CrisplineError
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.deployment.bundle import BundleFields, build_bundle
from components.deployment.request_check import request_check
from components.deployment.serving_contract import serving_contract

MODEL_FILES = ("model.ubj", "calibrator.json", "model.json")


def assemble(
    platform: Platform,
    usecase: LoadedUseCase,
    *,
    manifest: DatasetManifest,
    model: Path,
    evaluation: Path,
    gates: Path,
    detectors: Path,
    model_card: Path,
    cause: str,
    as_of: datetime,
) -> str:
    """Build the bundle, hold malformed requests against its contract, record both; return the release's id. The same inputs give the same id.

    `model` and `detectors` are folders. Raises CrisplineError when the parts are not about one model, dataset and feature set.
    """
    trained = ModelManifest.model_validate_json((model / "model.json").read_text())
    record = Record.model_validate_json(gates.read_text())
    _same_subject(usecase, manifest, trained, record)
    contract = serving_contract(usecase, trained)
    files = {name: (model / name).read_bytes() for name in MODEL_FILES}
    files |= {path.relative_to(detectors).as_posix(): path.read_bytes() for path in sorted(detectors.rglob("*")) if path.is_file()}
    files |= {
        "usecase.yaml": (usecase.folder / "usecase.yaml").read_bytes(),
        "features.json": _lines(usecase.features.model_dump_json(indent=1)),
        "serving.json": _lines(contract.model_dump_json(indent=1)),
        "evaluation.json": evaluation.read_bytes(),
        "gates.json": gates.read_bytes(),
        "model_card.html": model_card.read_bytes(),
    }
    fields = BundleFields(
        usecase=usecase.name,
        model_version=trained.version,
        data_version=manifest.data_version.id,
        dataset=manifest.id,
        feature_set=usecase.features.definition_hash,
        feature_views=tuple(view.served_name for view in usecase.features.views),
        gates_record=record.id,
        gates_passed=record.outcome == "passed",
        cause=cause,
        created=as_of,
    )
    release = build_bundle(files, fields, platform.bundles_uri)
    size = sum(len(content) for content in files.values())
    records = RecordStore(platform.records_uri)
    checked = request_check(contract, release, trained.version, as_of)
    records.append(checked)
    if checked.outcome != "passed":
        raise CrisplineError(f"release {release} is not to be served, its contract misjudges requests: {checked.reason}")
    records.append(
        Record(
            kind="release",
            id=record_id("release", release),
            usecase=usecase.name,
            event_time=as_of,
            outcome="built",
            reason=f"Model {trained.version} with its contract, detectors and evidence: {len(files)} files, {size} bytes.",
            details={"release": release, "files": len(files), "bytes": size, "gates_record": record.id, "feature_set": fields.feature_set},
            lineage=Lineage(
                data_version=fields.data_version,
                dataset=manifest.id,
                model_version=trained.version,
                champion=record.lineage.champion,
                release=release,
                run=trained.tracking_run,
                cause=cause,
                code_version=trained.code.commit or trained.code.tree_hash,
            ),
        )
    )
    return release


def _same_subject(usecase: LoadedUseCase, manifest: DatasetManifest, trained: ModelManifest, gates: Record) -> None:
    for what, one, other in (
        ("dataset", trained.dataset, manifest.id),
        ("use case", manifest.usecase, usecase.name),
        ("feature set", manifest.feature_set, usecase.features.definition_hash),
        ("model version", gates.lineage.model_version or trained.version, trained.version),
        ("feature names", trained.feature_names, usecase.features.feature_names),
    ):
        if one != other:
            raise CrisplineError(f"the release's parts differ in their {what} ({one!r}, {other!r}); bundle what one run made, with the use case as it was then")


def _lines(text: str) -> bytes:
    return (text + "\n").encode()
