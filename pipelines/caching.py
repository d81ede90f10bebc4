"""Which steps never come from a cache."""

from kfp.dsl import pipeline_task


def always(task: pipeline_task.PipelineTask) -> pipeline_task.PipelineTask:
    """Never from a cache: the step acts on the world outside or reads its present state. Such steps are idempotent by keys of their own."""
    return task.set_caching_options(False)
