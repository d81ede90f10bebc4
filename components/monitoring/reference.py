"""The step `fit_detectors`: a model's reference data, scored by the model itself, and the detectors fitted on it, as files of the release."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from components.contracts.durations import format_moment
from components.contracts.errors import InvalidData
from components.contracts.loading import LoadedUseCase, load_usecase
from components.model_server.scoring import ScoringModel
from components.monitoring.detectors.base import PROBABILITY
from components.monitoring.detectors.fitting import DetectorSet, fit

REFERENCE_SPLITS = ("train", "validation", "test")
REFERENCE_FILE, STATISTICS_FILE, DETECTORS_FOLDER = "reference.parquet", "reference.json", "detectors"
_KEPT = ("entity", "prediction_moment", "event_time", "label", "split")


def fit_detectors(usecase: str | LoadedUseCase, dataset_frame: pd.DataFrame, model: ScoringModel, folder: Path) -> DetectorSet:
    """Write `reference.parquet`, `reference.json` and `detectors/*` into `folder` (created when absent).

    `reference.parquet`: the rows of train, validation and test in time order: entity, prediction_moment, event_time, every feature,
    probability (calibrated), label, split. `reference.json`: what a person asks first of them, and each detector's promise and limits.
    Raises InvalidData when a column is absent or the history is too short for the thresholds.
    """
    loaded = usecase if isinstance(usecase, LoadedUseCase) else load_usecase(usecase)
    names = list(model.feature_names)
    absent = [name for name in (*names, "prediction_moment", "split") if name not in dataset_frame.columns]
    if absent:
        raise InvalidData(f"the dataset lacks {', '.join(absent)}\n    remedy: build the features again for this model")
    rows = dataset_frame[dataset_frame["split"].isin(REFERENCE_SPLITS)].sort_values("prediction_moment", kind="stable", ignore_index=True)
    probability = model.predict_probability(rows)
    folder.mkdir(parents=True, exist_ok=True)
    kept = [name for name in _KEPT if name in rows.columns and name not in names]
    reference = rows[[*kept, *names]].assign(probability=probability)
    reference.to_parquet(folder / REFERENCE_FILE, index=False, compression="zstd")
    frame = rows[[*names, "prediction_moment"]].copy()
    frame[PROBABILITY] = probability
    frame["outside_training"] = (rows["split"] != "train").to_numpy()
    fitted = fit(loaded.name, model.manifest.version, loaded.config.monitoring, frame, names, list(model.manifest.categorical))
    fitted.save(folder / DETECTORS_FOLDER)
    (folder / STATISTICS_FILE).write_text(json.dumps(_statistics(rows, probability, fitted), indent=1) + "\n")
    return fitted


def _statistics(rows: pd.DataFrame, probability: np.ndarray, fitted: DetectorSet) -> dict[str, object]:  # type: ignore[type-arg]
    label = rows["label"].dropna() if "label" in rows.columns else pd.Series(dtype=float)
    return {
        "usecase": fitted.file.usecase,
        "model_version": fitted.file.model_version,
        "rows": len(rows),
        "rows_by_split": {str(split): int(count) for split, count in rows["split"].value_counts().items()},
        "start": format_moment(rows["prediction_moment"].min().to_pydatetime()),
        "end": format_moment(rows["prediction_moment"].max().to_pydatetime()),
        "label_share": float(label.astype(float).mean()) if len(label) else None,
        "mean_probability": float(probability.mean()),
        "missing_share": {name: float(rows[name].isna().mean()) for name in fitted.file.feature_names},
        "sample_rows": len(fitted.sample),
        "excluded_from_drift": fitted.file.excluded,
        "promised_windows_per_false_alarm": fitted.file.false_alarms,
        "detectors": {
            detector.name: {
                "kind": detector.kind,
                "library": detector.library,
                "false_alarm_share": detector.calibration.alpha,
                "method": detector.calibration.method,
                "blocks": detector.calibration.blocks,
                "block_length_seconds": detector.calibration.block_length_seconds,
                "scheme": detector.calibration.scheme,
                "limit": detector.calibration.limit,
                "rests_on_extrapolation": detector.calibration.method == "prediction_limit",
                "thresholds": {part: detector.calibration.limit * scale for part, scale in detector.calibration.scale.items()},
            }
            for detector in fitted.file.detectors
        },
    }
