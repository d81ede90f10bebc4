"""Train the model, calibrate it and set its decision threshold; and build a recorded model again, byte for byte.

The model learns from the training period alone and is not refitted on the validation period afterwards: its calibration and its number
of rounds hold for exactly this booster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.contracts.artifacts import CodeVersion, DatasetManifest, ModelManifest
from components.contracts.errors import IntegrityError
from components.contracts.loading import LoadedUseCase
from components.contracts.usecase import Business
from components.model_engineering.boosting import FitData, fit_booster, predict_raw
from components.model_engineering.calibration import fit_calibrator, log_loss, split_validation
from components.model_engineering.outages import rehearse_outages
from components.model_engineering.rows import LabelledRows, encoding_of, labelled_rows
from components.model_server.scoring import CALIBRATOR_FILE, MODEL_FILE, Calibrator, save_model

TRAINING_FILE = "training.json"


class Training(BaseModel):
    """How the fit went; `training.json` beside the model. `metrics` by name; `model_hash` and `calibrator_hash`: SHA-256 of the files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_hash: str
    calibrator_hash: str
    dataset: str
    dataset_hash: str
    parameters: dict[str, float | int | str]
    seed: int
    outage_share: float
    rows: dict[str, int]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Prepared:
    """The rows of one dataset by their use in fitting."""

    data: FitData
    calibration: LabelledRows


def prepare(usecase: LoadedUseCase, dataset: pd.DataFrame) -> Prepared:
    """Training rows, and the validation rows cut into stopping and calibration rows. Test and embargo rows are never looked at."""
    stopping, calibration = split_validation(labelled_rows(dataset, "validation"))
    model = usecase.config.model
    train_rows = rehearse_outages(labelled_rows(dataset, "train"), usecase.features, model.outage_share, model.seed)
    return Prepared(FitData(encoding_of(usecase), train_rows, stopping), calibration)


def decision_threshold(business: Business) -> float:
    """The calibrated probability from which acting is the cheaper decision: false alarm / (false alarm + miss) (Elkan 2001)."""
    return business.cost_false_alarm / (business.cost_false_alarm + business.cost_miss)


def train(
    usecase: LoadedUseCase,
    prepared: Prepared,
    manifest: DatasetManifest,
    parameters: Mapping[str, float | int | str],
    code: CodeVersion,
    folder: Path,
    threads: int | None = None,
) -> ModelManifest:
    """Fit, calibrate and write the model's folder: model.ubj, calibrator.json, model.json, training.json.

    The same rows in any order, parameters and seed give the same bytes. The version derives from booster and calibrator.
    """
    settings, encoding = usecase.config.model, prepared.data.encoding
    fit = fit_booster(
        prepared.data,
        parameters,
        seed=settings.seed,
        maximum_rounds=settings.maximum_rounds,
        early_stopping_rounds=settings.early_stopping_rounds,
        threads=threads,
    )
    raw = predict_raw(fit.booster, encoding, prepared.calibration)
    calibrator = fit_calibrator(settings.calibration, raw, prepared.calibration.label)
    unversioned = ModelManifest(
        version="",
        algorithm=settings.algorithm,
        parameters=dict(parameters),
        best_iteration=fit.best_iteration,
        seed=settings.seed,
        dataset=manifest.id,
        feature_names=encoding.feature_names,
        categorical=dict(encoding.categorical),
        decision_threshold=decision_threshold(usecase.config.business),
        code=code,
    )
    save_model(folder, unversioned, fit.booster, calibrator)
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (MODEL_FILE, CALIBRATOR_FILE)}
    version = "m" + hashlib.sha256("".join(hashes.values()).encode()).hexdigest()[:12]
    model = unversioned.model_copy(update={"version": version})
    save_model(folder, model, fit.booster, calibrator)
    training = Training(
        model_hash=hashes[MODEL_FILE],
        calibrator_hash=hashes[CALIBRATOR_FILE],
        dataset=manifest.id,
        dataset_hash=manifest.content_hash,
        parameters=dict(parameters),
        seed=settings.seed,
        outage_share=settings.outage_share,
        rows={"train": len(prepared.data.train), "stopping": len(prepared.data.stopping), "calibration": len(prepared.calibration)},
        metrics=_metrics(raw, calibrator, prepared.calibration.label, fit.loss, fit.best_iteration),
    )
    (folder / TRAINING_FILE).write_text(training.model_dump_json(indent=1) + "\n")
    return model


def read_training(folder: Path) -> Training:
    return Training.model_validate_json((folder / TRAINING_FILE).read_text())


def reproduce(usecase: LoadedUseCase, prepared: Prepared, manifest: DatasetManifest, recorded: Training, folder: Path) -> Training:
    """Build the recorded model again into `folder` from its dataset, parameters and seed.

    Whether it is the same one, its hashes tell. Raises IntegrityError when the dataset, the seed or the outage share is another one.
    """
    if manifest.content_hash != recorded.dataset_hash:
        raise IntegrityError(
            f"the record names dataset {recorded.dataset} ({recorded.dataset_hash[:12]}), given is {manifest.id} ({manifest.content_hash[:12]})"
        )
    for name in ("seed", "outage_share"):
        now, then = getattr(usecase.config.model, name), getattr(recorded, name)
        if now != then:
            raise IntegrityError(f"the record names {name} {then}, the use case now has {now}; check out the recorded commit")
    train(usecase, prepared, manifest, recorded.parameters, CodeVersion(commit="", dirty=False, tree_hash="", lock_hash=""), folder)
    return read_training(folder)


def _metrics(raw: np.ndarray, calibrator: Calibrator, label: np.ndarray, stopping_loss: float, best_iteration: int) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    calibrated = calibrator.apply(raw)
    # The calibrated loss is on the rows that fitted the calibrator: a check that it fitted, not an estimate; the test period gives that.
    return {
        "stopping_log_loss": stopping_loss,
        "calibration_roc_auc": float(roc_auc_score(label, raw)),
        "calibration_log_loss_raw": log_loss(raw, label),
        "calibration_log_loss_fitted": log_loss(calibrated, label),
        "best_iteration": float(best_iteration),
    }
