"""How much one feature alone tells of the label: a feature that tells almost everything was not known at the prediction moment.

Two rules per feature, the better one counts: the order of its values (either way round; missing ones left out), and the label share that
its bins (or categories, or being missing) had in training. The second finds leaks that are no monotone function of the label, and those
that sit in a value's absence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from components.contracts.evaluation import Leakage, MetricValue
from components.evaluation.bootstrap import BoolArray, DayBootstrap, FloatArray
from components.evaluation.metrics import Scored, roc_auc

BINS = 50
# A bin's label share is pulled toward the overall one with the weight of this many rows, else rare categories would look like leaks.
SHRINK = 20.0


def measure_leakage(
    train: pd.DataFrame, test: pd.DataFrame, label: str, bootstrap: DayBootstrap, features: Iterable[str], categorical: Mapping[str, Sequence[str]]
) -> tuple[Leakage, ...]:
    """AUC of each feature alone on `test` [rows of `bootstrap`], most telling first. `label`: the column, without missing values in either frame."""
    target = test[label].to_numpy(dtype=np.bool_)
    seen = train[label].to_numpy(dtype=np.float64)
    found = []
    for name in features:
        rules: list[tuple[Literal["order", "bins"], MetricValue]] = []
        if name not in categorical:
            values = _numbers(test[name])
            present = np.isfinite(values)
            if present.any():
                rules += [("order", value) for value in [_auc(values[present], target[present], bootstrap.part(present))] if value is not None]
        shares = _bin_shares(train[name], seen, test[name], name in categorical)
        rules += [("bins", value) for value in [_auc(shares, target, bootstrap)] if value is not None]
        if rules:
            rule, auc = max(rules, key=lambda each: each[1].value)
            found.append(Leakage(feature=name, auc=auc, rule=rule))
    return tuple(sorted(found, key=lambda each: (-each.auc.value, each.feature)))


def _auc(score: FloatArray, label: BoolArray, bootstrap: DayBootstrap) -> MetricValue | None:
    samples = roc_auc(Scored.undecided(score, label), bootstrap)
    return bootstrap.interval(samples if not samples[0] < 0.5 else 1 - samples)


def _bin_shares(train: pd.Series, seen: FloatArray, test: pd.Series, category: bool) -> FloatArray:
    """The training label share of each test row's bin [test rows]; missing is a bin."""
    if category:
        known, unseen = train.astype(object).where(train.notna(), ""), test.astype(object).where(test.notna(), "")
    else:
        numbers, asked = _numbers(train), _numbers(test)
        finite = numbers[np.isfinite(numbers)]
        edges = np.unique(np.quantile(finite, np.linspace(0, 1, BINS + 1)[1:-1])) if len(finite) else np.empty(0)
        known = pd.Series(np.where(np.isfinite(numbers), np.searchsorted(edges, numbers), -1))
        unseen = pd.Series(np.where(np.isfinite(asked), np.searchsorted(edges, asked), -1))
    overall = float(seen.mean()) if len(seen) else 0.5
    grouped = pd.DataFrame({"bin": known.to_numpy(), "label": seen}).groupby("bin")["label"].agg(["sum", "count"])
    shares = (grouped["sum"] + SHRINK * overall) / (grouped["count"] + SHRINK)
    return pd.Series(unseen.to_numpy()).map(shares).fillna(overall).to_numpy(dtype=np.float64)


def _numbers(values: pd.Series) -> FloatArray:
    return np.asarray(pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))
