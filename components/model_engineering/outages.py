"""Feed outages rehearsed in training: in a share of the rows a whole feature view is missing.

A view almost never fails in the history, so XGBoost learns no sensible default branch for it, and the first real outage takes the model
below a coin (flights, test period of March: AUC 0.71 with all views, 0.46 without any). Masking whole views is dropout at the inputs
(Srivastava et al. 2014) in the unit in which inputs really fail. What it costs with all views present, and how the share is chosen on
data before the test period: benchmarks/outage_share.py.
"""

from __future__ import annotations

import numpy as np

from components.contracts.features import FeatureSet
from components.model_engineering.rows import LabelledRows


def rehearse_outages(rows: LabelledRows, features: FeatureSet, share: float, seed: int) -> LabelledRows:
    """Set all features of a view to missing in `share` of the rows, each view independently.

    The same rows in the same order and the same seed give the same mask; `share` 0 changes nothing.
    """
    if share == 0:
        return rows
    frame, generator = rows.frame.copy(), np.random.default_rng(seed)
    for view in features.views:
        frame.loc[generator.random(len(frame)) < share, list(view.feature_names)] = np.nan
    return LabelledRows(frame, rows.label)
