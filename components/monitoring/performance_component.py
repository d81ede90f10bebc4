"""KFP steps of live performance: assess windows, emit what was found to the retrain trigger."""

from kfp.dsl import Artifact, Input, Output

from components.environments.images import step


@step("monitoring")
def assess_performance(usecase: str, window_start: str, window_end: str, as_of: str, performance: Output[Artifact]) -> str:
    """Judge the window [window_start, window_end), or with both empty every window that is due as of `as_of`.

    `performance`: JSON list of Performance. Returns below (a whole interval is), held or no_data.
    """
    import nannyml  # noqa: F401  said here, a step server imports it once for all steps

    from components.monitoring.performance.steps import assess

    return assess(usecase, window_start, window_end, as_of, performance.path)


@step("monitoring")
def emit(usecase: str, performance: Input[Artifact]) -> str:
    """Send each Performance to the trigger as a CloudEvent, where a trigger is configured. Returns how many it accepted, as text."""
    from components.monitoring.performance.steps import emit

    return emit(usecase, performance.path)
