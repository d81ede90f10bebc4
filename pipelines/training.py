"""Training: from a recorded data version to a promoted release, gated."""

from kfp import dsl

from pipelines.composition import build_and_release


@dsl.pipeline(name="training", description="Train on the data known at a moment, judge by the gates, promote what passes.")  # type: ignore[untyped-decorator]
def pipeline(
    usecase: str, as_of: str, environment: str, cause: str, training_start: str = "", trials: int = 0, data_version: str = "", champion: str = ""
) -> None:
    """Moments are RFC 3339. Without `training_start` and `trials` the use case's window and budget count. Promotion is idempotent by `cause`."""
    build_and_release(usecase, as_of, training_start, environment, cause, trials, data_version, champion)
