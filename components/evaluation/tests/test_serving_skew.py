"""Served features against the training join: the comparison sees every difference, and the whole check runs on what the flights' server logged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.evaluation.serving_skew import compare_served

pytestmark = [pytest.mark.pipeline, pytest.mark.ml_test("monitoring-3")]
ROWS = 300
FEATURES = ("delay", "wind", "carrier")


def rows() -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    random = np.random.default_rng(1)
    offline = pd.DataFrame({"delay": random.normal(size=ROWS), "wind": random.normal(size=ROWS), "carrier": random.choice(["AA", "UA"], ROWS)})
    offline.loc[::7, "wind"] = np.nan
    probability = random.random(ROWS)
    logged = offline.rename(columns=lambda name: f"feature.{name}").assign(probability=probability)
    return logged, offline, probability


def test_equal_rows_hold_also_where_both_are_missing() -> None:
    found = compare_served(*rows(), FEATURES)
    assert (found.rows, found.differing_rows, found.differing, found.probability, found.holds) == (ROWS, 0, {}, 0.0, True)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_value_of_another_tick_is_seen(feature: str) -> None:
    logged, offline, probability = rows()
    logged.loc[:9, f"feature.{feature}"] = "XX" if feature == "carrier" else 0.123
    found = compare_served(logged, offline, probability, FEATURES)
    assert found.differing[feature] >= 9 and not found.holds


def test_a_view_that_is_never_served_is_seen() -> None:
    logged, offline, probability = rows()
    found = compare_served(logged.drop(columns="feature.wind"), offline, probability, FEATURES)
    assert found.differing == {"wind": int(offline["wind"].notna().sum())} and not found.holds


def test_a_tick_published_seconds_late_is_tolerated_and_counted() -> None:
    logged, offline, probability = rows()
    logged.loc[:2, "feature.delay"] = 9.0
    found = compare_served(logged, offline, probability, FEATURES)
    assert (found.differing_rows, found.holds) == (3, True)


def test_another_model_than_the_releases_is_seen_by_its_probabilities() -> None:
    logged, offline, probability = rows()
    found = compare_served(logged, offline, np.clip(probability + 0.001, 0, 1), FEATURES)
    assert found.differing_rows == 0 and not found.holds
