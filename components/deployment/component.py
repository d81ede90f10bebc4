"""The steps of deployment: claim, register, bundle, promote, roll back, read the champion, score a batch."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Model, Output

from components.environments.images import step


@step("pipeline")
def claim(usecase: str, cause: str, run: str) -> str:
    """The first step of a retraining: `effective` for the one run that holds the claim on its cause, else `duplicate`."""
    from components.deployment.steps import run_claim

    return run_claim(usecase, cause=cause, run=run)


@step("pipeline")
def current_champion(usecase: str, environment: str, expected: str = "") -> str:
    """The id of the release in force in an environment; empty before the first promotion. `expected`: the one that whoever asked for the run saw."""
    from components.deployment.steps import run_current_champion

    return run_current_champion(usecase, environment=environment, expected=expected)


@step("pipeline")
def register(usecase: str, model: Input[Model], tracked: Input[Artifact], gates: Input[Artifact], as_of: str) -> str:
    """Register the model in MLflow under the alias `challenger`; returns MLflow's version. Idempotent by tracking run."""
    from pathlib import Path

    import mlflow  # noqa: F401  said here, a step server imports it once for all steps

    from components.deployment.steps import run_register

    return run_register(usecase, model=Path(model.path), tracked=Path(tracked.path), gates=Path(gates.path), as_of=as_of)


@step("pipeline")
def bundle(
    usecase: str,
    dataset: Input[Dataset],  # noqa: ARG001
    manifest: Input[Artifact],
    model: Input[Model],
    evaluation: Input[Artifact],
    gates: Input[Artifact],
    detectors: Input[Artifact],
    model_card: Input[HTML],
    cause: str,
    as_of: str,
) -> str:
    """Make the immutable release bundle; returns its id. `dataset` is an input for lineage: its manifest stands in the bundle, its rows do not."""
    from pathlib import Path

    from components.deployment.steps import run_bundle

    return run_bundle(
        usecase,
        manifest=Path(manifest.path),
        model=Path(model.path),
        evaluation=Path(evaluation.path),
        gates=Path(gates.path),
        detectors=Path(detectors.path),
        model_card=Path(model_card.path),
        cause=cause,
        as_of=as_of,
    )


@step("pipeline")
def promote(usecase: str, environment: str, release: str, cause: str, as_of: str) -> str:
    """Change the environment's release file by one Git commit, and crown the model; returns the commit. Idempotent by cause."""
    import mlflow  # noqa: F401  said here, a step server imports it once for all steps

    from components.deployment.steps import run_promote

    return run_promote(usecase, environment=environment, release=release, cause=cause, as_of=as_of)


@step("pipeline")
def rollback(usecase: str, environment: str, to: str, reason: str, as_of: str) -> str:
    """Go back to an earlier release (its id, or `previous`) by one Git commit; returns the commit."""
    from components.deployment.steps import run_rollback

    return run_rollback(usecase, environment=environment, to=to, reason=reason, as_of=as_of)


@step("pipeline")
def list_shards(dataset: Input[Dataset], shard_rows: int) -> list[int]:
    """The first row of every shard of at most `shard_rows` rows: what one step scores at a time."""
    from pathlib import Path

    from components.deployment.steps import run_list_shards

    return run_list_shards(Path(dataset.path), shard_rows)


@step("pipeline")
def score_batch(
    usecase: str, environment: str, dataset: Input[Dataset], predictions: Output[Dataset], release: str = "", first_row: int = 0, shard_rows: int = 0
) -> None:
    """Score rows by the server's own checks and scoring code, into the prediction log.

    `release`: empty for the one in force. `shard_rows`: how many rows from `first_row` on; 0 for all.
    """
    from pathlib import Path

    from components.deployment.steps import run_score_batch

    run_score_batch(
        usecase,
        environment=environment,
        dataset=Path(dataset.path),
        predictions=Path(predictions.path),
        release=release,
        first_row=first_row,
        shard_rows=shard_rows,
    )
