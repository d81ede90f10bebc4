"""Contradictions between the sections of a use case and its features: what one field alone cannot show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from components.contracts.features import DAILY, Aggregate, FeatureSet, FeatureView
from components.contracts.usecase import QUALITY_CHECKS, Quality, Table, UseCase

Contradiction = tuple[tuple[str | int, ...], str, str]


def contradictions(config: UseCase, features: FeatureSet) -> Iterator[Contradiction]:
    """Yield (path of the key, what is wrong, remedy). A path that starts with `features.py` means that file."""
    yield from _quality(config)
    yield from _data(config)
    yield from _features(config, features)
    yield from _evaluation(config)
    yield from _deployment(config)
    yield from _monitoring(config, features)


def _quality(config: UseCase) -> Iterator[Contradiction]:
    for phase in ("business", "data", "features", "model", "evaluation", "deployment", "monitoring", "retraining"):
        quality: Quality = getattr(config, phase).quality
        for number, risk in enumerate(quality.risks):
            if risk.check not in QUALITY_CHECKS:
                yield (
                    (phase, "quality", "risks", number, "check"),
                    f"no check is named {risk.check!r}, so the risk is uncovered",
                    f"name one of: {', '.join(QUALITY_CHECKS)}",
                )


def _data(config: UseCase) -> Iterator[Contradiction]:
    data = config.data
    for name, table in data.tables.items():
        path: tuple[str | int, ...] = ("data", "tables", name)
        for column in [*table.key, table.event_time]:
            if column not in table.columns:
                yield (*path, "columns"), f"column {column!r} is a key or the event time and has no contract", f"declare `{column}:` under columns"
        for column, contract in table.columns.items():
            if contract.known_at not in table.known_at:
                yield (*path, "columns", column, "known_at"), f"no group {contract.known_at!r} in known_at", f"use one of: {', '.join(table.known_at)}"
            if contract.type == "category" and not contract.categories:
                yield (*path, "columns", column), "a category needs its categories", "list them under `categories:`, or use type string"
            if contract.range is not None and contract.range[0] > contract.range[1]:
                yield (*path, "columns", column, "range"), "the lower end is above the upper end", "write [lowest, highest]"
    label = data.label
    if label.table not in data.tables:
        yield ("data", "label", "table"), f"no table {label.table!r}", f"use one of: {', '.join(data.tables)}"
        return
    table = data.tables[label.table]
    for key, column in (("column", label.column), ("outcome_column", label.outcome_column)):
        if column not in table.columns:
            yield ("data", "label", key), f"table {label.table!r} has no column {column!r}", "declare it under columns"
        elif table.columns[column].known_at != label.group:
            yield (
                ("data", "label", key),
                f"column {column!r} becomes known with group {table.columns[column].known_at!r}, the label with {label.group!r}",
                "use one group for the label and its outcome",
            )
    if label.group not in table.known_at:
        yield ("data", "label", "group"), f"no group {label.group!r} in known_at", f"use one of: {', '.join(table.known_at)}"
    elif label.delay > table.known_at[label.group].latest:
        yield (
            ("data", "label", "delay"),
            f"is longer than the {table.known_at[label.group].latest} after which group {label.group!r} is known at the latest",
            f"make it shorter, or `latest` of {label.group!r} longer",
        )
    if label.never_after <= label.delay:
        yield (
            ("data", "label", "never_after"),
            "is not after the label's delay, so labels would be closed before they can arrive",
            "make it longer than `delay`",
        )
    if data.prediction.table not in data.tables:
        yield ("data", "prediction", "table"), f"no table {data.prediction.table!r}", f"use one of: {', '.join(data.tables)}"
    elif data.prediction.entity not in data.tables[data.prediction.table].columns:
        yield ("data", "prediction", "entity"), f"table {data.prediction.table!r} has no column {data.prediction.entity!r}", "declare it under columns"


def _features(config: UseCase, features: FeatureSet) -> Iterator[Contradiction]:
    data = config.data
    prediction = data.tables.get(data.prediction.table)
    if prediction is None:
        return
    for name in features.request_fields:
        contract = prediction.columns.get(name)
        if contract is None:
            yield ("features.py", "request_fields", name), f"table {data.prediction.table!r} has no column {name!r}", "declare it in usecase.yaml, or remove it"
        elif contract.protected:
            yield ("features.py", "request_fields", name), "is a protected attribute", "a protected attribute is evaluated, never used; remove it"
        elif not _known_before(prediction, contract.known_at):
            yield (
                ("features.py", "request_fields", name),
                f"becomes known with group {contract.known_at!r}, after the prediction moment ({data.prediction.lead} before the event)",
                "use a column that is known by then, or a view over its history",
            )
    seen: set[str] = set(features.request_fields)
    names = [view.name for view in features.views]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield ("features.py", name), "two views have this name", "rename one of them"
    for view in features.views:
        yield from _view(config, view, prediction)
        for name in view.feature_names:
            if name in seen:
                yield ("features.py", view.name, name), "two features have this name", "rename one of them"
            seen.add(name)


def _known_before(table: Table, group: str) -> bool:
    """Only a group that is declared known before the prediction moment (`latest: 0s`) may be sent with a request."""
    return group in table.known_at and table.known_at[group].latest == timedelta(0)


def _view(config: UseCase, view: FeatureView, prediction: Table) -> Iterator[Contradiction]:
    table = config.data.tables.get(view.table)
    if table is None:
        yield ("features.py", view.name), f"no table {view.table!r}", f"use one of: {', '.join(config.data.tables)}"
        return
    if view.group not in table.known_at:
        yield ("features.py", view.name), f"table {view.table!r} has no group {view.group!r}", f"use one of: {', '.join(table.known_at)}"
    for key in view.entity:
        if key not in table.columns or key not in prediction.columns:
            yield ("features.py", view.name, key), f"join key {key!r} must be a column of {view.table!r} and of the prediction table", "declare it in both"
    if view.cadence < DAILY and not view.keyed_by_tick:
        yield (
            ("features.py", view.name),
            "is published faster than daily and not keyed by tick, so a later value would overwrite the one a request needs",
            "set keyed_by_tick=True, or send it as request-time fields",
        )
    if DAILY % view.cadence and view.cadence % DAILY:
        yield ("features.py", view.name), f"cadence {view.cadence} neither divides a day nor is a multiple of one", "use e.g. 1h, 6h, 1d, 7d"
    for feature in view.features:
        column = table.columns.get(feature.column)
        if column is None:
            yield ("features.py", view.name, feature.name), f"table {view.table!r} has no column {feature.column!r}", "declare it in usecase.yaml"
        elif column.known_at != view.group and table.known_at.get(column.known_at, table.known_at[view.group]).latest != timedelta(0):
            yield (
                ("features.py", view.name, feature.name),
                f"column {feature.column!r} becomes known with group {column.known_at!r}, not with the view's group {view.group!r}",
                f"move the feature to a view of group {column.known_at!r}",
            )
        elif column.protected:
            yield ("features.py", view.name, feature.name), f"column {feature.column!r} is a protected attribute", "remove the feature"
        if isinstance(feature, Aggregate) and feature.function == "share_above" and feature.threshold is None:
            yield ("features.py", view.name, feature.name), "share_above needs a threshold", "add threshold=..."


def _evaluation(config: UseCase) -> Iterator[Contradiction]:
    evaluation = config.evaluation
    slices = {part.name for part in evaluation.slices}
    columns = {column: contract for table in config.data.tables.values() for column, contract in table.columns.items()}
    for number, part in enumerate(evaluation.slices):
        if part.column not in columns:
            yield ("evaluation", "slices", number, "column"), f"no table has a column {part.column!r}", "declare it, or remove the slice"
        elif columns[part.column].type == "float" and part.bands is None:
            yield ("evaluation", "slices", number), f"column {part.column!r} is a float and the slice has no bands", "add `bands: [..]` with increasing edges"
    for number, gate in enumerate(evaluation.gates):
        path: tuple[str | int, ...] = ("evaluation", "gates", number)
        if (gate.kind == "slice" or gate.slice is not None) and gate.slice not in slices:
            yield (*path, "slice"), f"no slice is named {gate.slice!r}", f"use one of: {', '.join(sorted(slices)) or 'declare one under slices'}"
        if gate.kind == "fairness":
            if gate.rate is None:
                yield path, "a gate of kind fairness needs a rate", "add `rate: positive_share`, `true_positive_rate` or `false_positive_rate`"
            if not any(column.protected for column in columns.values()):
                yield path, "no column is declared as a protected attribute", "add `protected: true` to the column's contract, or remove the gate"
        elif gate.rate is not None:
            yield (*path, "rate"), f"a gate of kind {gate.kind} has no rate", "remove it"
        if gate.kind in ("threshold", "baseline", "champion", "slice", "slice_champion", "robustness"):
            if gate.metric is None:
                yield path, f"a gate of kind {gate.kind} needs a metric", "add `metric:`"
            elif gate.metric not in evaluation.metrics:
                yield (*path, "metric"), f"metric {gate.metric!r} is not evaluated", "add it to evaluation.metrics"


def _deployment(config: UseCase) -> Iterator[Contradiction]:
    deployment = config.deployment
    for environment in deployment.promotion:
        if environment not in deployment.environments:
            yield ("deployment", "promotion", environment), "is not one of the environments", f"use one of: {', '.join(deployment.environments)}"
    steps = deployment.canary_steps
    if steps != sorted(set(steps)) or (steps and (steps[0] < 1 or steps[-1] != 100)):
        yield ("deployment", "canary_steps"), "are not increasing percentages that end at 100", "write e.g. [5, 25, 50, 100]"


def _monitoring(config: UseCase, features: FeatureSet) -> Iterator[Contradiction]:
    columns = set(config.data.tables[config.data.prediction.table].columns) if config.data.prediction.table in config.data.tables else set()
    for number, detector in enumerate(config.monitoring.detectors):
        if detector.subject == "segment_mix" and detector.column not in columns & set(features.request_fields):
            yield (
                ("monitoring", "detectors", number, "column"),
                f"segment {detector.column!r} is not a request-time field, so it is not in the prediction log",
                f"use one of: {', '.join(features.request_fields)}",
            )
    retraining = config.retraining
    if retraining.metric not in config.evaluation.metrics:
        yield (
            ("retraining", "metric"),
            f"metric {retraining.metric!r} is not evaluated, so the promise cannot be checked before promotion",
            "add it to evaluation.metrics",
        )
    needed = config.model.test_period + config.data.label.delay
    if retraining.training_window <= needed:
        yield ("retraining", "training_window"), f"is not longer than the test period and the label's delay together ({needed})", "make it longer"
