"""Batch scoring: the champion of an environment predicts for every entity of a period, into the same prediction log as serving."""

from kfp import dsl

from components.data_engineering.component import resolve_data_version
from components.data_engineering.features_component import entities_to_score
from components.deployment.component import current_champion, score_batch
from pipelines.caching import always


@dsl.pipeline(name="batch-scoring", description="Score a period's entities with the released model.")  # type: ignore[untyped-decorator]
def pipeline(usecase: str, start: str, end: str, as_of: str, environment: str) -> None:
    """Entities whose prediction moment lies in [start, end), on the data known at `as_of`; moments are RFC 3339."""
    resolved = always(resolve_data_version(usecase=usecase, as_of=as_of))
    champion = always(current_champion(usecase=usecase, environment=environment))
    entities = entities_to_score(usecase=usecase, data_version=resolved.outputs["data_version"], start=start, end=end, release=champion.output)
    always(score_batch(usecase=usecase, environment=environment, dataset=entities.outputs["entities"]))
