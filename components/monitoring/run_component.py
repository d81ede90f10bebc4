"""The last step of a run on Kubeflow Pipelines. Environment: pipeline."""

from kfp.dsl import PipelineTaskFinalStatus

from components.environments.images import step


@step("pipeline")
def notify(usecase: str, pipeline: str, run: str, created: str, as_of: str, cause: str, status: PipelineTaskFinalStatus) -> str:
    """Record how the run ended and tell who is to be told. Returns the outcome."""
    from components.monitoring.run_end import notify_of_end

    return notify_of_end(usecase, pipeline=pipeline, run=run, created=created, as_of=as_of, cause=cause, state=status.state)
