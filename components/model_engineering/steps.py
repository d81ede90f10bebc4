"""The edges of this phase's pipeline steps: files and platform in, files and records out."""

from __future__ import annotations

from pathlib import Path

from components.contracts.artifacts import DatasetManifest, ModelManifest
from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.contracts.storage import storage_path
from components.model_engineering.rows import labelled_rows, read_dataset
from components.model_engineering.train import prepare, read_training, train
from components.model_server.scoring import MANIFEST_FILE


def run_tune(usecase: str, dataset: str, manifest: str, trials: int, best: str) -> None:
    """Write the frozen Tuned record to `best`. `trials` 0 means the use case's budget."""
    from components.model_engineering.tune import tune

    loaded = load_usecase(usecase)
    journals = storage_path(Platform.load().artifact_uri) / "tuning" / loaded.name
    prepared = prepare(loaded, read_dataset(dataset))
    tuned = tune(loaded, prepared.data, _manifest(manifest), int(trials) or loaded.config.model.budget_trials, journals)
    Path(best).write_text(tuned.model_dump_json(indent=1) + "\n")


def run_train(usecase: str, dataset: str, manifest: str, best: str, model: str, baseline: str) -> None:
    """Write the model's folder and the baseline's folder."""
    from components.model_engineering.baseline import fit_baseline
    from components.model_engineering.code_version import code_version
    from components.model_engineering.tune import Tuned

    loaded = load_usecase(usecase)
    prepared = prepare(loaded, read_dataset(dataset))
    tuned = Tuned.model_validate_json(Path(best).read_text())
    train(loaded, prepared, _manifest(manifest), tuned.parameters, code_version(loaded.folder), Path(model))
    fit_baseline(loaded, prepared.data.train).save(Path(baseline))


def run_track(usecase: str, dataset: str, manifest: str, best: str, model: str, baseline: str, cause: str, tracked: str) -> None:
    """Log to MLflow and write the record `training`."""
    from components.model_engineering.tracking import track
    from components.model_engineering.tune import Tuned

    platform, description = Platform.load(), _manifest(manifest)
    if description.usecase != usecase:
        raise CrisplineError(f"{manifest} is a dataset of {description.usecase!r}, not of {usecase!r}; give the manifest that build_features wrote")
    frame = read_dataset(dataset)
    tuned = Tuned.model_validate_json(Path(best).read_text())
    result = track(platform, description, labelled_rows(frame, "train").frame.head(5), tuned, Path(model), Path(baseline), cause)
    record_training(RecordStore(platform.records_uri), description, Path(model), result.run_id, cause)
    Path(tracked).write_text(result.model_dump_json(indent=1) + "\n")


def record_training(store: RecordStore, manifest: DatasetManifest, model_folder: Path, run_id: str, cause: str) -> Record:
    """What was trained, from what, by which code; its business time is the data's as-of moment."""
    model = ModelManifest.model_validate_json((model_folder / MANIFEST_FILE).read_text())
    training = read_training(model_folder)
    return store.append(
        Record(
            kind="training",
            id=record_id("training", manifest.usecase, model.version, manifest.content_hash, model.code.tree_hash, cause),
            usecase=manifest.usecase,
            event_time=manifest.data_version.as_of,
            outcome="trained",
            reason=f"Model {model.version}: {model.best_iteration + 1} rounds on {training.rows['train']} labelled rows.",
            inputs=dict(training.metrics),
            details={**training.model_dump(mode="json", exclude={"metrics"}), "code": model.code.model_dump(mode="json")},
            lineage=Lineage(
                data_version=manifest.data_version.id,
                dataset=manifest.id,
                model_version=model.version,
                run=run_id,
                cause=cause,
                code_version=model.code.commit or model.code.tree_hash,
            ),
        )
    )


def _manifest(path: str) -> DatasetManifest:
    return DatasetManifest.model_validate_json(Path(path).read_text())
