"""Phase 4 as KFP components: evaluate a model, judge it by the gates, and hold what it is served with against what it learned from."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Model, Output

from components.environments.images import step


@step("pipeline")
def evaluate(
    usecase: str,
    dataset: Input[Dataset],
    manifest: Input[Artifact],
    model: Input[Model],
    baseline: Input[Model],
    champion: str,
    evaluation: Output[Artifact],
    report: Output[HTML],
    model_card: Output[HTML],
) -> None:
    """Measure the model on the test split, against baselines and, when `champion` names a release, against the champion."""
    from pathlib import Path

    from components.evaluation.steps import run_evaluation

    run_evaluation(
        usecase,
        dataset=Path(dataset.path),
        manifest=Path(manifest.path),
        model=Path(model.path),
        baseline=Path(baseline.path),
        champion=champion,
        evaluation=Path(evaluation.path),
        report=Path(report.path),
        model_card=Path(model_card.path),
    )


@step("pipeline")
def check_serving_skew(usecase: str, data_version: Input[Artifact], release: str) -> str:
    """What `release` was served with against the training join, as a check record. Returns `passed`, `failed` or `not_judged` (too few rows yet, no release)."""
    from pathlib import Path

    import feast  # noqa: F401  said here, a step server imports it once for all steps

    from components.evaluation.steps import run_serving_skew

    return run_serving_skew(usecase, data_version=Path(data_version.path), release=release)


@step("pipeline")
def judge(usecase: str, evaluation: Input[Artifact], cause: str, gates: Output[Artifact]) -> str:
    """Hold the evaluation against the gates; write the record of the decision and of each check. Returns `passed` or `failed`."""
    from pathlib import Path

    from components.evaluation.steps import run_judge

    return run_judge(usecase, evaluation=Path(evaluation.path), cause=cause, gates=Path(gates.path))
