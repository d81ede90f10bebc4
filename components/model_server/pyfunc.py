"""Lets `mlflow.pyfunc.load_model` load a logged model with the same scoring code as the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from components.model_server.scoring import ScoringModel


class ProbabilityModel:
    """MLflow's interface: `predict(frame)` gives a frame [rows, `probability`] of calibrated probabilities."""

    def __init__(self, model: ScoringModel) -> None:
        self.model = model

    def predict(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002
        return pd.DataFrame({"probability": self.model.predict_probability(frame)}, index=frame.index)


def _load_pyfunc(path: str) -> ProbabilityModel:
    """MLflow calls this with the folder of the model's files."""
    return ProbabilityModel(ScoringModel.load(Path(path)))
