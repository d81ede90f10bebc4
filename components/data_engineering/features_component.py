"""KFP steps of the features: thin calls of `components.data_engineering.feature_steps`."""

from kfp.dsl import Artifact, Dataset, Input, Output

from components.environments.images import step


@step("pipeline")
def build_features(usecase: str, data_version: Input[Artifact], training_start: str, dataset: Output[Dataset], manifest: Output[Artifact]):  # type: ignore[no-untyped-def]
    """Join features to labelled rows as of a recorded data version and split them by time. Empty `training_start`: the declared window."""
    from pathlib import Path

    import feast  # noqa: F401  said here, a step server imports it once for all steps

    from components.data_engineering.feature_steps import build_features

    built = build_features(usecase, Path(data_version.path), training_start, Path(dataset.path), Path(manifest.path))
    dataset.metadata.update({"id": built.id, "rows": built.rows, "content_hash": built.content_hash})


@step("pipeline")
def materialise(usecase: str, data_version: Input[Artifact], start: str, end: str, releases: str = "") -> str:
    """Publish the features' ticks in [start, end) to the online store. `releases`: ids, separated by commas, that are served beside the use case's set."""
    from pathlib import Path

    import feast  # noqa: F401  said here, a step server imports it once for all steps

    from components.data_engineering.feature_steps import materialise_period

    return materialise_period(usecase, Path(data_version.path), start, end, [release for release in releases.split(",") if release])


@step("pipeline")
def entities_to_score(usecase: str, data_version: Input[Artifact], start: str, end: str, entities: Output[Dataset], release: str = "") -> int:
    """Rows to predict with a prediction moment in [start, end), with their features, for batch scoring by `release`."""
    from pathlib import Path

    from components.data_engineering.feature_steps import entities_to_score

    return entities_to_score(usecase, Path(data_version.path), start, end, Path(entities.path), release)
