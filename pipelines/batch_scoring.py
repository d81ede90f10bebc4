"""Batch scoring: the champion of an environment predicts for every entity of a period, into the same prediction log as serving."""

from kfp import dsl

from components.data_engineering.component import load_data_version, resolve_data_version
from components.data_engineering.features_component import entities_to_score
from components.deployment.component import current_champion, list_shards, score_batch
from pipelines.caching import always


@dsl.pipeline(name="batch-scoring", description="Score a period's entities with the released model, shard by shard.")  # type: ignore[untyped-decorator]
def pipeline(usecase: str, start: str, end: str, as_of: str, environment: str, shard_rows: int = 50000) -> None:
    """Entities whose prediction moment lies in [start, end), on the data known at `as_of`; moments are RFC 3339. All shards, of at most
    `shard_rows` rows each, are scored by the release that is in force when the run starts."""
    resolved = always(resolve_data_version(usecase=usecase, as_of=as_of))
    loaded = load_data_version(usecase=usecase, id=resolved.outputs["Output"])
    champion = always(current_champion(usecase=usecase, environment=environment))
    entities = entities_to_score(usecase=usecase, data_version=loaded.outputs["data_version"], start=start, end=end, release=champion.output)
    shards = list_shards(dataset=entities.outputs["entities"], shard_rows=shard_rows)
    with dsl.ParallelFor(items=shards.output, name="shards", parallelism=4) as first_row:
        always(
            score_batch(
                usecase=usecase,
                environment=environment,
                dataset=entities.outputs["entities"],
                release=champion.output,
                first_row=first_row,
                shard_rows=shard_rows,
            )
        )
