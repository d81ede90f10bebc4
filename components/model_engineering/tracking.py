"""Everything about a training run to MLflow: parameters, metrics, data, code, environment, seed, signature and the model itself.

The logged model is MLflow's generic `python_function` around `components.model_server.pyfunc`: what `mlflow.pyfunc.load_model` returns
answers with the same calibrated probabilities as the server. Requirements are given, because inferring them takes seconds.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.contracts.artifacts import DatasetManifest, ModelManifest
from components.contracts.platform import Platform
from components.contracts.records import record_id
from components.model_engineering.baseline import BASELINE_FILE, Baseline
from components.model_engineering.train import Training, read_training
from components.model_engineering.tune import Tuned
from components.model_server.scoring import MANIFEST_FILE

KEY_TAG = "crispline.key"
MODEL_ARTIFACT = "model"


class Tracked(BaseModel):
    """Where MLflow has the run. `model_uri` is what a registration takes as its source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    run_id: str
    model_uri: str
    model_version: str


def track(platform: Platform, manifest: DatasetManifest, example: pd.DataFrame, tuned: Tuned, model_folder: Path, baseline_folder: Path, cause: str) -> Tracked:
    """Log one training run and return where it is; the same model, dataset and cause give the run that is there already.

    `example`: a few rows with every feature, for the signature. `cause`: what the training answers to (an alert's id, `schedule`, ...).
    """
    mlflow = quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    _prepare_storage(platform)
    mlflow.set_tracking_uri(platform.tracking_uri)
    client = MlflowClient()
    experiment = _experiment(client, platform, manifest.usecase)
    model = ModelManifest.model_validate_json((model_folder / MANIFEST_FILE).read_text())
    training = read_training(model_folder)
    key = record_id(model.version, manifest.content_hash, model.code.tree_hash, cause)
    found = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}' and attributes.status = 'FINISHED'", max_results=1)
    if found:
        run_id = found[0].info.run_id
        return Tracked(experiment=manifest.usecase, run_id=run_id, model_uri=found[0].data.tags["crispline.model_uri"], model_version=model.version)
    with mlflow.start_run(experiment_id=experiment, run_name=f"{manifest.usecase}-{model.version}") as run:
        now = int(time.time() * 1000)
        metrics = {**training.metrics, **{f"rows_{name}": float(count) for name, count in training.rows.items()}, "tuned_log_loss": tuned.value}
        metrics["baseline_constant"] = Baseline.load(baseline_folder).constant
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, value, now, 0) for name, value in metrics.items()]
            + [Metric("trial_log_loss", trial.value, now, trial.number) for trial in tuned.trials if trial.value is not None],
            params=[Param(name, str(value)) for name, value in _parameters(model, training, tuned).items()],
            tags=[RunTag(name, value) for name, value in _tags(manifest, model, training, cause, key).items()],
        )
        _log_dataset(client, run.info.run_id, manifest)
        mlflow.log_dict(tuned.model_dump(mode="json"), "tuning.json")
        mlflow.log_dict(manifest.model_dump(mode="json"), "dataset.json")
        mlflow.log_artifact(str(baseline_folder / BASELINE_FILE))
        logged = _log_model(mlflow, model_folder, _signature(example, model))
        client.set_tag(run.info.run_id, "crispline.model_uri", logged.model_uri)
    return Tracked(experiment=manifest.usecase, run_id=run.info.run_id, model_uri=logged.model_uri, model_version=model.version)


def quiet_mlflow() -> Any:
    """Import MLflow without telemetry, progress bars, emojis or the log of its database's migrations."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    # The lock is identified by its hash; copies of whatever project the process happens to stand in say nothing.
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")
    os.environ.setdefault("MLFLOW_LOG_UV_FILES", "false")
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import mlflow
    import mlflow.pyfunc

    # MLflow configures its own logger when it is imported.
    for name in ("alembic", "mlflow", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It misses pip in a uv environment; nothing here installs from the recorded requirements.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    return mlflow


def _log_model(mlflow: Any, model_folder: Path, signature: Any) -> Any:
    with warnings.catch_warnings():
        # The signature is given in full; an input example would add a prediction and a copy of data.
        warnings.filterwarnings("ignore", message=".*input example.*")
        return mlflow.pyfunc.log_model(
            name=MODEL_ARTIFACT,
            loader_module="components.model_server.pyfunc",
            data_path=str(model_folder),
            signature=signature,
            pip_requirements=[f"{name}=={version(name)}" for name in ("xgboost-cpu", "numpy", "pandas", "pydantic")],
        )


def _prepare_storage(platform: Platform) -> None:
    if platform.tracking_uri.startswith("sqlite:///"):
        Path(platform.tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)


def _experiment(client: Any, platform: Platform, usecase: str) -> str:
    """The experiment's id; two processes may create it at once, one of them then finds the other's."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(usecase)
    if experiment is None:
        try:
            # A tracking server says itself where artifacts go, and takes them: a step needs no access to that place.
            served = platform.tracking_uri.startswith(("http://", "https://"))
            return str(client.create_experiment(usecase, artifact_location=None if served else f"{platform.artifact_uri.rstrip('/')}/{usecase}"))
        except MlflowException:
            experiment = client.get_experiment_by_name(usecase)
            if experiment is None:
                raise
    return str(experiment.experiment_id)


def _parameters(model: ModelManifest, training: Training, tuned: Tuned) -> Mapping[str, object]:
    return {
        **model.parameters,
        "seed": model.seed,
        "rounds": model.best_iteration + 1,
        "features": len(model.feature_names),
        "decision_threshold": model.decision_threshold,
        "objective": tuned.objective,
        "trials": len(tuned.trials),
        "dataset_hash": training.dataset_hash,
    }


def _tags(manifest: DatasetManifest, model: ModelManifest, training: Training, cause: str, key: str) -> Mapping[str, str]:
    """Tags can be searched; a table's hash identifies its content, its version the Delta commit."""
    tables = {f"data.{name}": f"version {table.version}, {table.rows} rows, {table.content_hash}" for name, table in manifest.data_version.tables.items()}
    return {
        KEY_TAG: key,
        "cause": cause,
        "model_version": model.version,
        "model_hash": training.model_hash,
        "calibrator_hash": training.calibrator_hash,
        "dataset": manifest.id,
        "dataset_hash": manifest.content_hash,
        "data_version": manifest.data_version.id,
        "feature_set": manifest.feature_set,
        "code.commit": model.code.commit,
        "code.dirty": str(model.code.dirty).lower(),
        "code.tree_hash": model.code.tree_hash,
        "environment.lock_hash": model.code.lock_hash,
        **tables,
    }


def _log_dataset(client: Any, run_id: str, manifest: DatasetManifest) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = manifest.model_dump_json(include={"rows", "rows_by_split", "label_share_by_split", "outcomes"})
    dataset = Dataset(
        name=manifest.usecase,
        digest=manifest.content_hash[:36],
        source_type="crispline",
        source=manifest.data_version.model_dump_json(),
        profile=profile,
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _signature(example: pd.DataFrame, model: ModelManifest) -> Any:
    """Features in, probability out; every column may be missing, so numbers are doubles and no column is required to be whole."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    absent = set(model.feature_names) - set(example.columns)
    if absent:
        raise ValueError(f"the example lacks {', '.join(sorted(absent))}")
    columns: list[Any] = [ColSpec("string" if name in model.categorical else "double", name, required=True) for name in model.feature_names]
    return ModelSignature(inputs=Schema(columns), outputs=Schema([ColSpec("double", "probability")]))
