"""A trained model, ready to score: the same code trains, judges, serves, monitors and scores batches.

A model's folder holds `model.ubj` (XGBoost), `calibrator.json` and `model.json` (ModelManifest). Needs numpy, pandas and xgboost; no scikit-learn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost as xgb
from pydantic import BaseModel, ConfigDict

from components.contracts.artifacts import ModelManifest
from components.contracts.errors import IntegrityError
from components.model_server.encoding import Encoding, Matrix, Vector

MODEL_FILE, CALIBRATOR_FILE, MANIFEST_FILE = "model.ubj", "calibrator.json", "model.json"


class Calibrator(BaseModel):
    """Maps the booster's probability to a calibrated one.

    `isotonic`: linear interpolation between the knots (`x` increasing, `y` non-decreasing), constant outside. `sigmoid`: Platt's
    1 / (1 + exp(-(a * logit(p) + b))). `identity`: unchanged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["isotonic", "sigmoid", "identity"]
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    a: float = 1.0
    b: float = 0.0

    def apply(self, probability: npt.ArrayLike) -> Vector:
        """Calibrated probabilities, float64, of the same shape."""
        raw = np.asarray(probability, dtype=np.float64)
        if self.kind == "isotonic":
            return np.interp(raw, self.x, self.y)
        if self.kind == "sigmoid":
            return np.asarray(np.exp(-np.logaddexp(0.0, -(self.a * logit(raw) + self.b))), dtype=np.float64)
        return raw


def logit(probability: Vector) -> Vector:
    """Log odds; probabilities are kept 1e-7 away from 0 and 1 (float32 cannot tell them from these)."""
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float64)


@dataclass(frozen=True)
class ScoringModel:
    """A booster with its column contract and calibrator. Scoring is thread-safe; `load` decides the threads of one call."""

    manifest: ModelManifest
    booster: xgb.Booster
    calibrator: Calibrator
    encoding: Encoding

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> ScoringModel:
        """Read a model's folder. Raises IntegrityError when a file is absent or the files do not belong together."""
        folder = Path(folder)
        for name in (MODEL_FILE, CALIBRATOR_FILE, MANIFEST_FILE):
            if not (folder / name).is_file():
                raise IntegrityError(f"{folder / name} does not exist; a model's folder holds {MODEL_FILE}, {CALIBRATOR_FILE} and {MANIFEST_FILE}")
        manifest = ModelManifest.model_validate_json((folder / MANIFEST_FILE).read_text())
        booster = xgb.Booster(model_file=folder / MODEL_FILE)
        booster.set_param({"nthread": threads})
        calibrator = Calibrator.model_validate_json((folder / CALIBRATOR_FILE).read_text())
        if tuple(booster.feature_names or ()) != manifest.feature_names:
            raise IntegrityError(f"{folder}: {MODEL_FILE} and {MANIFEST_FILE} name different columns; they come from two models")
        return cls(manifest, booster, calibrator, Encoding(manifest.feature_names, manifest.categorical))

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.manifest.feature_names

    @property
    def decision_threshold(self) -> float:
        """Calibrated probability from which the decision is positive."""
        return self.manifest.decision_threshold

    def raw_probability(self, frame: pd.DataFrame) -> Vector:
        """The booster's own probability [rows], before calibration. `frame` has every feature by name; null is missing."""
        return self._raw(self.encoding.encode(frame))

    def predict_probability(self, frame: pd.DataFrame) -> Vector:
        """The calibrated probability [rows]. Raises InvalidModelInput for an absent or non-numeric column."""
        return self.calibrator.apply(self.raw_probability(frame))

    def predict_rows(self, rows: Sequence[Mapping[str, Any]]) -> Vector:
        """The calibrated probability of a few rows as mappings: the same numbers as `predict_probability`, several times faster for one row."""
        return self.calibrator.apply(self._raw(self.encoding.encode_rows(rows)))

    def decide(self, probability: Vector) -> npt.NDArray[np.bool_]:
        """The positive decision is the cheaper one from the threshold on, the threshold included."""
        return np.asarray(probability >= self.decision_threshold)

    def contributions(self, frame: pd.DataFrame) -> pd.DataFrame:
        """SHAP values [rows, features + `bias`] in log odds before calibration; a row's sum is its log odds (TreeSHAP, Lundberg et al. 2018)."""
        return self._contributions(self.encoding.encode(frame))

    def contributions_of_rows(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        return self._contributions(self.encoding.encode_rows(rows))

    def unknown_categories(self, frame: pd.DataFrame) -> dict[str, npt.NDArray[np.bool_]]:
        """Columns with categories that the model was not trained with, each with a mask [rows]."""
        return self.encoding.unknown_categories(frame)

    def warnings_of_row(self, row: Mapping[str, Any]) -> list[str]:
        """What a caller should know of how this row was read (unknown categories)."""
        return self.encoding.unknown_in_row(row)

    def _raw(self, matrix: Matrix) -> Vector:
        if len(matrix) == 0:
            return np.empty(0, dtype=np.float64)
        return np.asarray(self.booster.inplace_predict(matrix), dtype=np.float64)

    def _contributions(self, matrix: Matrix) -> pd.DataFrame:
        data = xgb.DMatrix(matrix, feature_names=list(self.feature_names), feature_types=self.encoding.feature_types, enable_categorical=True)
        return pd.DataFrame(self.booster.predict(data, pred_contribs=True), columns=[*self.feature_names, "bias"])


def save_model(folder: Path, manifest: ModelManifest, booster: xgb.Booster, calibrator: Calibrator) -> None:
    """Write the three files of a model's folder (created when absent)."""
    folder.mkdir(parents=True, exist_ok=True)
    booster.save_model(folder / MODEL_FILE)
    (folder / CALIBRATOR_FILE).write_text(json.dumps(calibrator.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=1) + "\n")
