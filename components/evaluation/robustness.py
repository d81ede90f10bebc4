"""What the model loses when inputs are missing or noisy: each feed, each feature, and measurement noise.

A feature view is one feed: it goes missing as a whole when its source is silent. All views at once is what a caller meets when the feature
server is down; it is reported, not judged: the gate asks whether one silent feed breaks the model, and the server's answer then carries a
warning (or is refused, as the use case's `features.fallback` says).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from components.contracts.evaluation import Disturbance, Robustness
from components.contracts.features import FeatureSet
from components.contracts.usecase import Metric
from components.evaluation.bootstrap import DayBootstrap
from components.evaluation.metrics import Scored, improvement, samples_of
from components.model_server.scoring import ScoringModel

# A tenth of a standard deviation is about the rounding and calibration error of a feed, not another world (that is drift's subject).
PERTURBATION = 0.1
# Each disturbance scores all rows again; the loss is paired, so this many rows give it to about a thousandth of AUC.
MAXIMUM_ROWS = 20_000

Kind = Literal["view_missing", "feature_missing", "perturbed", "all_views_missing"]


@dataclass(frozen=True)
class _Change:
    name: str
    kind: Kind
    inputs: tuple[str, ...]
    judged: bool = True


def measure_robustness(
    model: ScoringModel, frame: pd.DataFrame, scored: Scored, bootstrap: DayBootstrap, features: FeatureSet, metrics: Sequence[Metric], seed: int
) -> Robustness:
    """The loss of each metric under each disturbance, on the same rows (at most 20,000, drawn with `seed`) and the same draws."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(frame), MAXIMUM_ROWS, replace=False)) if len(frame) > MAXIMUM_ROWS else np.arange(len(frame))
    frame, scored, bootstrap = frame.iloc[rows], scored.part(rows), bootstrap.part(rows)
    whole = {metric: samples_of(metric, scored, bootstrap) for metric in metrics}
    found = []
    for change in _changes(model, features):
        disturbed = Scored(model.predict_probability(_apply(change, frame, rng)), scored.label, scored.threshold, scored.costs)
        loss = {metric: bootstrap.interval(improvement(metric, whole[metric], samples_of(metric, disturbed, bootstrap))) for metric in metrics}
        found.append(
            Disturbance(
                name=change.name,
                kind=change.kind,
                inputs=change.inputs,
                judged=change.judged,
                loss={metric: value for metric, value in loss.items() if value is not None},
            )
        )
    return Robustness(rows=len(frame), perturbation=PERTURBATION, disturbances=tuple(found))


def _changes(model: ScoringModel, features: FeatureSet) -> Iterator[_Change]:
    views = features.used_by_view(model.feature_names)
    for name, inputs in views.items():
        yield _Change(f"{name} missing", "view_missing", inputs)
    everything = tuple(name for inputs in views.values() for name in inputs)
    if len(views) > 1:
        yield _Change("all feature views missing", "all_views_missing", everything, judged=False)
    for name in model.feature_names:
        yield _Change(f"{name} missing", "feature_missing", (name,))
    numeric = tuple(name for name in model.feature_names if name not in model.manifest.categorical)
    if numeric:
        yield _Change(f"noise of {PERTURBATION:g} standard deviations on all numbers", "perturbed", numeric)


def _apply(change: _Change, frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    if change.kind != "perturbed":
        return frame.assign(**dict.fromkeys(change.inputs, np.nan))
    values = {name: frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in change.inputs}
    spread = {name: float(np.nanstd(column)) if np.isfinite(column).any() else 0.0 for name, column in values.items()}
    return frame.assign(**{name: column + rng.normal(0, PERTURBATION * spread[name], len(column)) for name, column in values.items()})
