"""Retraining: training's building blocks behind a claim on the cause, with what the last cycle taught."""

from kfp import dsl

from components.deployment.component import claim
from components.understanding.component import summarise_feedback
from pipelines.caching import always
from pipelines.composition import build_and_release


@dsl.pipeline(name="retraining", description="Retrain for a cause; of several runs for one cause the one that holds the claim is effective.")  # type: ignore[untyped-decorator]
def pipeline(
    usecase: str, as_of: str, environment: str, cause: str, run: str, training_start: str = "", trials: int = 0, data_version: str = "", champion: str = ""
) -> None:
    """`run`: this run's own id, which the claim on `cause` must name; any other run ends as `duplicate`, without effects."""
    claimed = always(claim(usecase=usecase, cause=cause, run=run))
    with dsl.If(claimed.output == "effective", name="effective"):
        always(summarise_feedback(usecase=usecase, as_of=as_of))
        build_and_release(usecase, as_of, training_start, environment, cause, trials, data_version, champion)
