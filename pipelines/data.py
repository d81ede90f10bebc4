"""Data: a period enters the lake, is validated, becomes features, and what serving needs of it goes online."""

from kfp import dsl

from components.data_engineering.component import ingest, validate
from components.data_engineering.features_component import build_features, materialise
from components.deployment.component import current_champion
from components.evaluation.component import check_serving_skew
from pipelines.caching import always


@dsl.pipeline(name="data", description="Ingest a period, validate it, build features on the new version, materialise the online store, check what was served.")  # type: ignore[untyped-decorator]
def pipeline(usecase: str, start: str, end: str, training_start: str = "", environment: str = "dev") -> None:
    """The period is [start, end) by the moment at which a row became known; moments are RFC 3339. Without `training_start`
    features go back as far as the use case says. What the champion of `environment` looks up is published beside the use case's own
    features, so that a changed features.py does not starve the served release. Invalid data end the run as failed."""
    champion = always(current_champion(usecase=usecase, environment=environment))
    ingested = always(ingest(usecase=usecase, start=start, end=end))
    version = ingested.outputs["data_version"]
    validated = always(validate(usecase=usecase, start=start, end=end, data_version=version))
    build_features(usecase=usecase, data_version=version, training_start=training_start).after(validated)
    published = always(materialise(usecase=usecase, data_version=version, start=start, end=end, releases=champion.output).after(validated))
    always(check_serving_skew(usecase=usecase, data_version=version, release=champion.output).after(published))
