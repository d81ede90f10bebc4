"""Go or no-go before a model is trained: volume, label share, what the best one-feature rule reaches, and the age of the labels."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd

from components.contracts.artifacts import DatasetManifest
from components.contracts.durations import format_duration
from components.contracts.errors import InvalidData
from components.contracts.loading import LoadedUseCase
from components.contracts.records import Lineage, Record, record_id
from components.model_engineering.rows import encoding_of, labelled_rows
from components.understanding.signals import auc_standard_error, signals


def assess_feasibility(usecase: LoadedUseCase, dataset: pd.DataFrame, manifest: DatasetManifest) -> Record:
    """The record `feasibility` with outcome go or no_go; every criterion is judged, also after one has failed.

    The values of labels are read from the training and validation periods alone. The rule is the feature that looks best on the training
    period, with its rates from there, judged on the validation period: choosing it costs nothing in honesty.
    """
    criteria = usecase.config.business.success
    usable = dataset[dataset["split"].isin(["train", "validation", "test"]) & dataset["label"].notna()]
    fitting = usable[usable["split"] != "test"]
    share = float(fitting["label"].astype(float).mean()) if len(fitting) else float("nan")
    low, high = criteria.label_share
    auc, error, rule, obstacle = _simple_rule(usecase, dataset)
    age = _label_age(usecase, usable, manifest)
    failures = []
    if len(usable) < criteria.minimum_rows:
        failures.append(f"{len(usable)} labelled rows, fewer than {criteria.minimum_rows}")
    if not low <= share <= high:
        failures.append(f"a share of {share:.3f} positive labels, outside of {low:g} to {high:g}")
    if obstacle:
        failures.append(f"no rule could be judged ({obstacle})")
    elif not auc >= criteria.minimum_simple_rule_auc:
        failures.append(f"the best one-feature rule ({rule}) ranks with an AUC of {auc:.3f}, below {criteria.minimum_simple_rule_auc:g}")
    if age is None or age > criteria.maximum_data_age:
        told = "no label at all" if age is None else f"labels {format_duration(age)} older than their declared delay explains"
        failures.append(f"{told}, more than {format_duration(criteria.maximum_data_age)}")
    outcome = "no_go" if failures else "go"
    thresholds = criteria.model_dump(mode="json", include={"minimum_rows", "label_share", "minimum_simple_rule_auc", "maximum_data_age"})
    return Record(
        kind="feasibility",
        id=record_id("feasibility", usecase.name, manifest.content_hash, manifest.data_version.as_of, str(sorted(thresholds.items()))),
        usecase=usecase.name,
        event_time=manifest.data_version.as_of,
        outcome=outcome,
        reason=f"No go: {'; '.join(failures)}."
        if failures
        else f"Go: {len(usable)} labelled rows, {share:.1%} positive; {rule} alone reaches an AUC of {auc:.3f}.",
        inputs={
            "labelled_rows": len(usable),
            "label_share": None if share != share else round(share, 6),
            "simple_rule_auc": None if auc != auc else round(auc, 6),
            "simple_rule_standard_error": None if error != error else round(error, 6),
            "simple_rule": rule,
            "label_age_seconds": None if age is None else age.total_seconds(),
        },
        thresholds=thresholds,
        details={"failures": list(failures), "success_criteria": [criteria.business, criteria.machine_learning, criteria.economic]},
        lineage=Lineage(data_version=manifest.data_version.id, dataset=manifest.id),
    )


def feasibility_check(record: Record) -> Record:
    """The quality check that goes with the decision."""
    return record.model_copy(
        update={
            "kind": "check",
            "outcome": "passed" if record.outcome == "go" else "failed",
            "details": {"check": "feasibility", "record": record.id, **record.details},
        }
    )


def _simple_rule(usecase: LoadedUseCase, dataset: pd.DataFrame) -> tuple[float, float, str, str]:
    """(AUC on the validation period, its standard error, feature, what stood in the way)."""
    encoding = encoding_of(usecase)
    try:
        fitted, later = labelled_rows(dataset, "train"), labelled_rows(dataset, "validation")
    except InvalidData as error:
        return float("nan"), float("nan"), "", str(error)
    best = signals(fitted, later, encoding.feature_names, frozenset(encoding.categorical))[0]
    return best.later_auc, auc_standard_error(best.later_auc, later.label), best.feature, ""


def _label_age(usecase: LoadedUseCase, labelled: pd.DataFrame, manifest: DatasetManifest) -> timedelta | None:
    """How much longer ago the newest labelled event is than the label's declared delay explains, by business time; at least zero."""
    if len(labelled) == 0:
        return None
    newest = pd.Timestamp(labelled["event_time"].max()).to_pydatetime()
    age: timedelta = manifest.data_version.as_of - newest - usecase.config.data.label.delay
    return max(timedelta(0), timedelta(seconds=int(age.total_seconds())))
