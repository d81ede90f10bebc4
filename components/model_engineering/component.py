"""The steps of model engineering: tune, train, track."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output

from components.environments.images import step


@step("pipeline")
def tune(usecase: str, dataset: Input[Dataset], manifest: Input[Artifact], trials: int, best: Output[Artifact]) -> None:
    """Search for parameters within the budget in trials (0: the use case's); resumes a search that was killed."""
    import optuna  # noqa: F401  said here, a step server imports it once for all steps

    from components.model_engineering.steps import run_tune

    run_tune(usecase, dataset.path, manifest.path, int(trials), best.path)


@step("pipeline")
def train(usecase: str, dataset: Input[Dataset], manifest: Input[Artifact], best: Input[Artifact], model: Output[Model], baseline: Output[Model]) -> None:
    """Train, calibrate and fit the baselines."""
    from components.model_engineering.steps import run_train

    run_train(usecase, dataset.path, manifest.path, best.path, model.path, baseline.path)


@step("pipeline")
def track(
    usecase: str,
    dataset: Input[Dataset],
    manifest: Input[Artifact],
    best: Input[Artifact],
    model: Input[Model],
    baseline: Input[Model],
    cause: str,
    tracked: Output[Artifact],
) -> None:
    """Log everything to MLflow and check that the recorded model can be built again."""
    import mlflow  # noqa: F401  said here, a step server imports it once for all steps

    from components.model_engineering.steps import run_track

    run_track(usecase, dataset.path, manifest.path, best.path, model.path, baseline.path, cause, tracked.path)
