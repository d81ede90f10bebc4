"""Share of the test rows that found no fresh value in a feature view: a value older than the view's `max_staleness` is missing in the dataset."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from components.contracts.evaluation import FeedFreshness
from components.contracts.features import FeatureSet


def measure_freshness(test: pd.DataFrame, features: FeatureSet, used: Iterable[str]) -> tuple[FeedFreshness, ...]:
    """One entry for each view of which the model uses a feature (`used`), the worst first. A row counts as stale when all those are missing."""
    found = [
        FeedFreshness(view=view, stale_share=float(test[list(columns)].isna().all(axis=1).mean())) for view, columns in features.used_by_view(used).items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.stale_share, each.view)))
