"""How much one feature alone says about the label: association on the fitting rows, and a one-feature rule judged on later rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.model_engineering.rows import LabelledRows

BINS = 10
# Weight of the average in a bin's rate, in rows: a category seen twice is not 100% positive.
SHRINK = 20.0
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Signal:
    """Of one feature. `correlation`: point-biserial, NaN for a category. `information`: mutual information of the binned feature and the label in
    bits. `fitted_auc`, `later_auc`: of the one-feature rule on the rows that made it and on later ones."""

    feature: str
    category: bool
    missing: float
    correlation: float
    information: float
    fitted_auc: float
    later_auc: float


def roc_auc(score: Vector, label: Vector) -> float:
    """Area under the ROC curve by the rank-sum identity (ties count half). NaN when a class is absent."""
    positives = float(label.sum())
    negatives = len(label) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    ranks = pd.Series(score).rank().to_numpy()
    return float((ranks[label > 0.5].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auc_standard_error(auc: float, label: Vector) -> float:
    """Hanley & McNeil 1982 (https://doi.org/10.1148/radiology.143.1.7063747)."""
    positives = float(label.sum())
    negatives = len(label) - positives
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)) / (positives * negatives)
    return float(np.sqrt(max(variance, 0.0)))


def signals(fitted: LabelledRows, later: LabelledRows, features: tuple[str, ...], categorical: frozenset[str]) -> list[Signal]:
    """One Signal a feature, strongest on `fitted` first. Rules are made on `fitted` and judged on `later`, so a lucky feature shows."""
    found = [_signal(fitted, later, name, name in categorical) for name in features]
    return sorted(found, key=lambda signal: (-signal.fitted_auc, signal.feature))


def _signal(fitted: LabelledRows, later: LabelledRows, name: str, category: bool) -> Signal:
    bins, later_bins = _bins(fitted.frame[name], later.frame[name], category)
    share = fitted.label.mean()
    size = int(max(bins.max(), later_bins.max())) + 1
    count = np.bincount(bins, minlength=size)
    rate = (np.bincount(bins, weights=fitted.label, minlength=size) + SHRINK * share) / (count + SHRINK)
    return Signal(
        feature=name,
        category=category,
        missing=float(fitted.frame[name].isna().mean()),
        correlation=float("nan") if category else _point_biserial(fitted.frame[name], fitted.label),
        information=_mutual_information(bins, fitted.label),
        fitted_auc=roc_auc(rate[bins], fitted.label),
        later_auc=roc_auc(rate[later_bins], later.label),
    )


def _bins(fitted: pd.Series, later: pd.Series, category: bool) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Bin numbers; 0 is for missing, and for a category that the fitting rows do not have."""
    if category:
        known = pd.Index(sorted(set(fitted.dropna().astype(str))))
        codes = [known.get_indexer(pd.Index(values.astype(object).where(values.notna(), None))) + 1 for values in (fitted, later)]
        return codes[0], codes[1]
    numbers = [pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan) for values in (fitted, later)]
    present = numbers[0][~np.isnan(numbers[0])]
    edges = np.unique(np.quantile(present, np.linspace(0, 1, BINS + 1)[1:-1])) if len(present) else np.empty(0)
    placed = [np.where(np.isnan(values), 0, np.searchsorted(edges, values, side="left") + 1) for values in numbers]
    return placed[0], placed[1]


def _point_biserial(values: pd.Series, label: Vector) -> float:
    numbers = pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    present = ~np.isnan(numbers)
    if present.sum() < 2 or np.ptp(numbers[present]) == 0 or np.ptp(label[present]) == 0:
        return float("nan")
    return float(np.corrcoef(numbers[present], label[present])[0, 1])


def _mutual_information(bins: npt.NDArray[np.intp], label: Vector) -> float:
    joint = np.zeros((int(bins.max()) + 1, 2))
    np.add.at(joint, (bins, label.astype(int)), 1.0)
    joint /= joint.sum()
    independent = joint.sum(axis=1, keepdims=True) @ joint.sum(axis=0, keepdims=True)
    present = joint > 0
    return float((joint[present] * np.log2(joint[present] / independent[present])).sum())
