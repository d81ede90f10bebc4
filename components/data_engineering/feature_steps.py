"""The feature steps of the pipelines, with their files: what features_component.py calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.contracts.artifacts import DatasetManifest, DataVersion, ReleaseManifest
from components.contracts.durations import parse_moment
from components.contracts.features import FeatureSet
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore
from components.contracts.storage import BlobStore
from components.data_engineering.lineage import emit_dataset_built, emit_materialised


def build_features(usecase: str, data_version: Path, training_start: str, dataset: Path, manifest: Path) -> DatasetManifest:
    """Write the training frame (parquet) and its manifest (JSON), record the dataset and its lineage.

    `training_start`: RFC 3339, or empty for the declared training window before the data version's moment.
    """
    from components.data_engineering.offline_features import training_frame

    platform, loaded = Platform.load(), load_usecase(usecase)
    version = DataVersion.model_validate_json(data_version.read_text())
    start = parse_moment(training_start) if training_start else version.as_of - loaded.config.retraining.training_window
    frame, built = training_frame(loaded, platform, version, start)
    for path in (dataset, manifest):
        path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(dataset, index=False)
    manifest.write_text(built.model_dump_json(indent=2))
    RecordStore(platform.records_uri).append(
        Record(
            kind="dataset",
            id=built.id,
            usecase=built.usecase,
            event_time=version.as_of,
            outcome="built",
            reason=f"{built.rows} rows with a known or closed label as of {version.model_dump(mode='json')['as_of']}",
            details=built.model_dump(mode="json", exclude={"data_version"}),
            lineage=Lineage(data_version=version.id, dataset=built.id),
        )
    )
    emit_dataset_built(platform.lineage_uri, built, {str(name): str(kind) for name, kind in frame.dtypes.items()})
    return built


def materialise_period(usecase: str, data_version: Path, start: str, end: str, releases: Sequence[str] = ()) -> str:
    """Publish the ticks in [start, end) for the use case's feature set and those of `releases` (ids); returns a sentence about it."""
    from components.data_engineering.materialise import materialise

    platform, loaded = Platform.load(), load_usecase(usecase)
    version = DataVersion.model_validate_json(data_version.read_text())
    sets = feature_sets_to_serve(loaded.features, platform.bundles_uri, releases)
    ticks = materialise(loaded, platform, version, parse_moment(start), parse_moment(end), sets)
    emit_materialised(platform.lineage_uri, version, ticks.end, ticks.rows)
    return f"published {sum(ticks.rows.values())} rows of {len(ticks.rows)} feature views"


def entities_to_score(usecase: str, data_version: Path, start: str, end: str, entities: Path, release: str = "") -> int:
    """Write the rows whose prediction moment lies in [start, end), with the features of `release` (default: the use case's own); returns their number."""
    from components.data_engineering.entities import read_entities
    from components.data_engineering.offline_features import request_features

    platform, loaded = Platform.load(), load_usecase(usecase)
    version = DataVersion.model_validate_json(data_version.read_text())
    features = feature_set_of_release(platform.bundles_uri, release) if release else loaded.features
    rows = read_entities(platform.lake_uri, loaded, version, parse_moment(start), parse_moment(end), features)
    entities.parent.mkdir(parents=True, exist_ok=True)
    request_features(loaded, platform, version, rows, features).to_parquet(entities, index=False)
    return len(rows)


def feature_sets_to_serve(own: FeatureSet, bundles_uri: str, releases: Sequence[str]) -> list[FeatureSet]:
    """The use case's own feature set, which the next release will need, and those of `releases` (ids; an empty one is none)."""
    return [own, *(feature_set_of_release(bundles_uri, release) for release in releases if release)]


def feature_set_of_release(bundles_uri: str, release: str) -> FeatureSet:
    """The feature definitions inside of a release bundle. Raises IntegrityError when the bundle is absent or damaged."""
    blobs = BlobStore(bundles_uri)
    manifest = ReleaseManifest.model_validate_json(blobs.get(release))
    return FeatureSet.model_validate_json(blobs.get(manifest.files["features.json"]))
