"""KFP definitions of monitoring: thin calls; the environment `monitoring` runs them."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.environments.images import step


@step("monitoring")
def fit_detectors(usecase: str, dataset: Input[Dataset], model: Input[Model], detectors: Output[Artifact]) -> None:
    """Fit the drift detectors on the model's reference data: a folder with reference.parquet, reference.json and detectors/*."""
    from pathlib import Path

    import pandas as pd

    from components.model_server.scoring import ScoringModel
    from components.monitoring.reference import fit_detectors

    fit_detectors(usecase, pd.read_parquet(dataset.path), ScoringModel.load(Path(model.path)), Path(detectors.path))
