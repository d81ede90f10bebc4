"""Train the judged model again from its record, and compare: what cannot be built again cannot be answered for."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from components.contracts.artifacts import DatasetManifest
from components.contracts.evaluation import Reproduction
from components.contracts.loading import LoadedUseCase
from components.evaluation.bootstrap import FloatArray
from components.model_server.scoring import ScoringModel


def measure_reproduction(
    usecase: LoadedUseCase, dataset: pd.DataFrame, manifest: DatasetManifest, model: Path, test: pd.DataFrame, probability: FloatArray
) -> Reproduction | None:
    """Fit once more with the recorded parameters and seed, the rows in reverse order. `probability`: the judged model's on `test` [rows].

    None when the model's folder holds no record of its training. Raises IntegrityError when that is of another dataset or seed.
    """
    from components.model_engineering.train import TRAINING_FILE, prepare, read_training, reproduce

    if not (model / TRAINING_FILE).is_file():
        return None
    recorded = read_training(model)
    with tempfile.TemporaryDirectory(prefix="reproduction-") as scratch:
        again = reproduce(usecase, prepare(usecase, dataset.iloc[::-1]), manifest, recorded, Path(scratch))
        difference = float(np.abs(ScoringModel.load(Path(scratch)).predict_probability(test) - probability).max())
    same = (again.model_hash, again.calibrator_hash) == (recorded.model_hash, recorded.calibrator_hash)
    return Reproduction(same_bytes=same, largest_difference=difference)
