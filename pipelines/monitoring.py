"""Monitoring: join the labels that came, estimate and measure performance over a window, emit the records."""

from kfp import dsl

from components.monitoring.performance_component import assess_performance, emit
from pipelines.caching import always


@dsl.pipeline(name="monitoring", description="Performance of the served model over a window: estimated while labels are missing, measured when they are there.")  # type: ignore[untyped-decorator]
def pipeline(usecase: str, window_start: str, window_end: str, as_of: str) -> None:
    """The window is by prediction moment, labels count as known at `as_of`; moments are RFC 3339."""
    assessed = always(assess_performance(usecase=usecase, window_start=window_start, window_end=window_end, as_of=as_of))
    always(emit(usecase=usecase, performance=assessed.outputs["performance"]))
