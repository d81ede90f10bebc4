"""What a model must beat: a constant, and logistic regression on what the caller sends anyway (the request-time fields).

Stored as JSON coefficients and scored with numpy, so nothing pickled is ever loaded.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.contracts.loading import LoadedUseCase
from components.model_engineering.rows import LabelledRows, encoding_of
from components.model_server.encoding import Encoding

BASELINE_FILE = "baseline.json"
Vector = npt.NDArray[np.float64]


class NumericTerm(BaseModel):
    """coefficient * (value - mean) / scale; a missing value counts as the mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    scale: float
    coefficient: float


class Baseline(BaseModel):
    """`constant`: share of positive training labels. The logistic regression: `intercept`, one term a number, one coefficient a category."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    constant: float
    intercept: float
    numeric: dict[str, NumericTerm]
    categorical: dict[str, dict[str, float]]

    @classmethod
    def load(cls, folder: Path) -> Baseline:
        return cls.model_validate_json((Path(folder) / BASELINE_FILE).read_text())

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BASELINE_FILE).write_text(self.model_dump_json(indent=1) + "\n")

    def predict_probability(self, frame: pd.DataFrame) -> Vector:
        """The logistic regression's probability [rows]; a category without a coefficient, or missing, adds nothing."""
        odds = np.full(len(frame), self.intercept)
        for name, term in self.numeric.items():
            values = Encoding((name,), {}).encode(frame)[:, 0].astype(np.float64)
            odds += term.coefficient * np.nan_to_num((values - term.mean) / term.scale, nan=0.0)
        for name, coefficients in self.categorical.items():
            odds += frame[name].astype(object).map(coefficients).astype(np.float64).fillna(0.0).to_numpy()
        return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)

    def predict_constant(self, frame: pd.DataFrame) -> Vector:
        return np.full(len(frame), self.constant)


def fit_baseline(usecase: LoadedUseCase, rows: LabelledRows) -> Baseline:
    """Fit on training rows. Without request-time fields all features are used. Ridge penalty at scikit-learn's default (C = 1)."""
    from sklearn.linear_model import LogisticRegression

    encoding = encoding_of(usecase)
    names = usecase.features.request_fields or usecase.features.feature_names
    numeric = [name for name in names if name not in encoding.categorical]
    categorical = [name for name in names if name in encoding.categorical]
    values = Encoding(tuple(numeric), {}).encode(rows.frame).astype(np.float64)
    present = ~np.isnan(values)
    count = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, values, 0.0).sum(axis=0) / count
    scale = np.sqrt((np.where(present, values - mean, 0.0) ** 2).sum(axis=0) / count)
    scale[scale == 0] = 1.0
    blocks = [np.where(present, (values - mean) / scale, 0.0)]
    blocks += [
        (rows.frame[name].astype(object).to_numpy()[:, None] == np.array(encoding.categorical[name], dtype=object)).astype(np.float64) for name in categorical
    ]
    fitted = LogisticRegression(max_iter=500).fit(np.hstack(blocks), rows.label)
    coefficients = [float(value) for value in fitted.coef_[0]]
    terms = {name: NumericTerm(mean=float(mean[i]), scale=float(scale[i]), coefficient=coefficients[i]) for i, name in enumerate(numeric)}
    levels, position = {}, len(numeric)
    for name in categorical:
        size = len(encoding.categorical[name])
        levels[name] = dict(zip(encoding.categorical[name], coefficients[position : position + size], strict=True))
        position += size
    return Baseline(constant=float(rows.label.mean()), intercept=float(fitted.intercept_[0]), numeric=terms, categorical=levels)
