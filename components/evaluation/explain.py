"""SHAP contributions by XGBoost itself (`pred_contribs`, TreeSHAP, Lundberg et al. 2018, https://arxiv.org/abs/1802.03888): global and by slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from components.contracts.evaluation import Explanation, SliceImportance
from components.contracts.usecase import Slice
from components.evaluation.slices import parts_of
from components.model_server.scoring import ScoringModel

# TreeSHAP costs milliseconds a row; a mean over this many rows has a standard error of a few per cent of itself.
MAXIMUM_ROWS = 3_000
MINIMUM_PART = 30


def explain(model: ScoringModel, frame: pd.DataFrame, slices: Sequence[Slice], seed: int) -> Explanation:
    """Mean absolute contribution of each feature, most important first, on at most 3,000 rows drawn with `seed`; by slice where a part has 30."""
    if len(frame) > MAXIMUM_ROWS:
        frame = frame.iloc[np.sort(np.random.default_rng(seed).choice(len(frame), MAXIMUM_ROWS, replace=False))]
    contributions = model.contributions(frame)
    of_features = contributions[list(model.feature_names)]
    order = of_features.abs().mean().sort_values(ascending=False, kind="stable").index.tolist()
    sizes = of_features.abs()[order]
    by_slice = [
        SliceImportance(slice=part.name, part=name, rows=int(rows.sum()), importance=_means(sizes[rows]))
        for part in slices
        for name, rows in parts_of(frame, part)
        if rows.sum() >= MINIMUM_PART
    ]
    return Explanation(
        rows=len(frame),
        bias=float(contributions["bias"].iloc[0]),
        importance=_means(sizes),
        direction={name: None if name in model.manifest.categorical else _direction(frame[name], of_features[name]) for name in order},
        by_slice=tuple(by_slice),
    )


def _means(sizes: pd.DataFrame) -> dict[str, float]:
    return {str(name): float(value) for name, value in sizes.mean().items()}


def _direction(values: pd.Series, contribution: pd.Series) -> float | None:
    """Spearman's rank correlation over the rows where the value is present."""
    pair = (
        pd.DataFrame({"value": pd.to_numeric(values, errors="coerce").to_numpy(np.float64, na_value=np.nan), "part": contribution.to_numpy()}).dropna().rank()
    )
    if len(pair) < 2 or pair["value"].nunique() < 2 or pair["part"].nunique() < 2:
        return None
    return float(pair["value"].corr(pair["part"]))
