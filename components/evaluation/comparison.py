"""The judged model against an opponent (champion, simple model, constant) on the same rows and the same bootstrap draws."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from components.contracts.errors import CrisplineError
from components.contracts.evaluation import Comparison, MetricValue, PairedDifference, PartLoss, SlicePart
from components.contracts.features import FeatureSet, FeatureView
from components.contracts.usecase import Metric, Slice
from components.evaluation.bootstrap import DayBootstrap
from components.evaluation.metrics import Scored, improvement, samples_of
from components.evaluation.simultaneous import simultaneous_bounds
from components.evaluation.slices import parts_of
from components.model_server.scoring import ScoringModel


class IncomparableChampion(CrisplineError):
    """The champion cannot be scored on this dataset, so nothing can be said about who is better."""


@dataclass(frozen=True)
class Opponent:
    kind: Literal["champion", "simple", "constant"]
    name: str
    scored: Scored


def compare(model: Scored, opponent: Opponent, bootstrap: DayBootstrap, metrics: Sequence[Metric]) -> Comparison:
    """Paired differences of every metric; both are judged with their own decision threshold."""
    differences = {}
    for metric in metrics:
        ours, theirs = samples_of(metric, model, bootstrap), samples_of(metric, opponent.scored, bootstrap)
        better = bootstrap.interval(improvement(metric, ours, theirs))
        if better is not None:
            differences[metric] = PairedDifference(model=float(ours[0]), opponent=float(theirs[0]), improvement=better)
    return Comparison(kind=opponent.kind, name=opponent.name, rows=len(model.label), differences=differences)


def compare_parts(
    frame: pd.DataFrame,
    model: Scored,
    champion: Scored,
    bootstrap: DayBootstrap,
    slices: Sequence[Slice],
    judged: Sequence[SlicePart],
    metrics: Sequence[Metric],
    confidence: float,
) -> tuple[PartLoss, ...]:
    """What each judged part of `slices` loses against the champion, in `metrics`, with bounds over all parts at once."""
    known = {(each.slice, each.part): each.rows for each in judged if each.judged}
    parts = [(part.name, name, rows) for part in slices for name, rows in parts_of(frame, part) if (part.name, name) in known]
    loss: list[dict[Metric, MetricValue]] = [{} for _ in parts]
    for metric in metrics:
        draws = []
        for _, _, rows in parts:
            inside = bootstrap.part(rows)
            draws.append(-improvement(metric, samples_of(metric, model.part(rows), inside), samples_of(metric, champion.part(rows), inside)))
        for number, value in enumerate(simultaneous_bounds(draws, bootstrap, confidence)):
            if value is not None:
                loss[number][metric] = value
    return tuple(PartLoss(slice=name, part=part, rows=known[name, part], loss=lost) for (name, part, _), lost in zip(parts, loss, strict=True))


def load_champion(bundles_uri: str, release: str, features: FeatureSet, columns: Sequence[str], destination: Path) -> ScoringModel:
    """Fetch the champion's release bundle into `destination` (every hash verified) and load its model.

    Raises IncomparableChampion when the dataset lacks one of its features, or has one of that name with another definition.
    """
    from components.deployment.bundle import fetch_bundle

    fetch_bundle(bundles_uri, release, destination)
    champion = ScoringModel.load(destination)
    theirs = FeatureSet.model_validate_json((destination / "features.json").read_text())
    require_comparable(release, champion.feature_names, theirs, features, columns)
    return champion


def require_comparable(release: str, names: Sequence[str], theirs: FeatureSet, ours: FeatureSet, columns: Sequence[str]) -> None:
    """Raises IncomparableChampion; `names`: the champion's features, `columns`: those of the dataset."""
    absent = [name for name in names if name not in columns]
    if absent:
        raise IncomparableChampion(
            f"the champion (release {release}) needs the features {', '.join(absent)}, which this dataset does not have; "
            "keep them in features.py until the champion is replaced, or roll back to a release without them"
        )
    old, new = _definitions(theirs), _definitions(ours)
    changed = [name for name in names if name in old and name in new and old[name] != new[name]]
    if changed:
        raise IncomparableChampion(
            f"the champion (release {release}) was trained on another definition of {', '.join(changed)}; give the new definition a new name, "
            "so that both are in the dataset until the champion is replaced"
        )


def score(model: ScoringModel, frame: pd.DataFrame, like: Scored) -> Scored:
    """`frame` [rows] scored by `model` with its own threshold, held against the labels and costs of `like`."""
    return Scored(model.predict_probability(frame), like.label, model.decision_threshold, like.costs)


def _definitions(features: FeatureSet) -> dict[str, str]:
    """What gives each view feature its value; what else its view holds does not matter."""
    return {feature.name: json.dumps([_origin(view), feature.model_dump(mode="json")], sort_keys=True) for view in features.views for feature in view.features}


def _origin(view: FeatureView) -> dict[str, Any]:
    return view.model_dump(mode="json", include={"table", "group", "entity", "cadence", "keyed_by_tick", "max_staleness"})
