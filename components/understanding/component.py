"""The steps of business and data understanding: profile, feasibility, feedback."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Output

from components.environments.images import step


@step("pipeline")
def profile(usecase: str, dataset: Input[Dataset], manifest: Input[Artifact], report: Output[HTML]) -> None:
    """Describe the dataset in one HTML page with plots."""
    from components.understanding.steps import run_profile

    run_profile(usecase, dataset.path, manifest.path, report.path)


@step("pipeline")
def assess_feasibility(usecase: str, dataset: Input[Dataset], manifest: Input[Artifact], feasibility: Output[Artifact]) -> str:
    """Decide `go` or `no_go` against the success criteria and record it."""
    from components.understanding.steps import run_feasibility

    return run_feasibility(usecase, dataset.path, manifest.path, feasibility.path)


@step("pipeline")
def summarise_feedback(usecase: str, as_of: str, report: Output[HTML]) -> None:
    """Summarise end users' feedback and the decisions since the last training."""
    from components.understanding.steps import run_feedback_summary

    run_feedback_summary(usecase, as_of, report.path)
