"""The serving contract of a release, derived from the use case: what the data plane holds requests against."""

from __future__ import annotations

from components.contracts.artifacts import ModelManifest
from components.contracts.features import Aggregate, Feature, FeatureView
from components.contracts.loading import LoadedUseCase
from components.contracts.serving import ServingContract
from components.contracts.usecase import Column, UseCase


def serving_contract(usecase: LoadedUseCase, model: ModelManifest) -> ServingContract:
    """Contract for one trained model. Columns: request-time fields and join keys as the tables declare them, and every feature of a view.

    A view's feature is always nullable: nothing may be published for its key. An aggregate is a float; its range follows from its function.
    """
    config, features = usecase.config, usecase.features
    columns = {name: config.data.tables[config.data.prediction.table].columns[name] for name in features.request_fields}
    for view in features.views:
        for key in view.entity:
            columns.setdefault(key, _key_column(config, view, key))
        for feature in view.features:
            columns[feature.name] = _feature_column(config, view, feature)
    return ServingContract(
        usecase=config.name,
        feature_set=features,
        columns=columns,
        categorical=model.categorical,
        decision_threshold=model.decision_threshold,
        feature_server_timeout_seconds=config.features.feature_server_timeout.total_seconds(),
        fallback=config.features.fallback,
        maximum_batch_rows=config.deployment.maximum_batch_rows,
        maximum_body_bytes=config.deployment.maximum_body_bytes,
        lead_seconds=config.data.prediction.lead.total_seconds(),
        maximum_moment_skew_seconds=config.deployment.maximum_moment_skew.total_seconds(),
    )


def _key_column(config: UseCase, view: FeatureView, key: str) -> Column:
    """A key as the caller knows it: the prediction table's column, where it has one, says whether it may be unknown."""
    prediction = config.data.tables[config.data.prediction.table].columns
    return prediction[key] if key in prediction else config.data.tables[view.table].columns[key]


def _feature_column(config: UseCase, view: FeatureView, feature: Feature) -> Column:
    source = config.data.tables[view.table].columns[feature.column]
    if not isinstance(feature, Aggregate):
        return source.model_copy(update={"nullable": True})
    ranges = {"share_above": (0.0, 1.0), "share_true": (0.0, 1.0), "count": None, "std": None, "mean": source.range}
    return Column(
        type="float",
        description=f"{feature.function} of {feature.column} over {feature.window}",
        known_at=source.known_at,
        unit=source.unit if feature.function in ("mean", "std") else "",
        range=ranges[feature.function],
        nullable=True,
        classification=source.classification,
        owner=source.owner,
    )
