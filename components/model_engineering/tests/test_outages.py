"""Rehearsed outages: whole views go missing, reproducibly, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.contracts.loading import load_usecase
from components.model_engineering.outages import rehearse_outages
from components.model_engineering.rows import LabelledRows

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def rows() -> LabelledRows:
    features = load_usecase("flights").features
    values = np.random.default_rng(1).random((4000, len(features.feature_names)))
    return LabelledRows(pd.DataFrame(values, columns=list(features.feature_names)), np.zeros(4000))


def test_a_view_is_missing_as_a_whole_in_the_declared_share_of_rows(rows: LabelledRows) -> None:
    features = load_usecase("flights").features
    masked = rehearse_outages(rows, features, 0.1, seed=3)
    for view in features.views:
        missing = masked.frame[list(view.feature_names)].isna()
        assert (missing.all(axis=1) == missing.any(axis=1)).all()
        assert missing.iloc[:, 0].mean() == pytest.approx(0.1, abs=0.02)


def test_request_fields_are_never_masked_and_the_rows_given_are_left_alone(rows: LabelledRows) -> None:
    features = load_usecase("flights").features
    masked = rehearse_outages(rows, features, 0.5, seed=3)
    assert not masked.frame[list(features.request_fields)].isna().any().any()
    assert not rows.frame.isna().any().any()


def test_the_same_seed_masks_the_same_rows_and_another_one_does_not(rows: LabelledRows) -> None:
    features = load_usecase("flights").features
    first, again, other = (rehearse_outages(rows, features, 0.1, seed).frame for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_a_share_of_zero_changes_nothing(rows: LabelledRows) -> None:
    assert rehearse_outages(rows, load_usecase("flights").features, 0.0, seed=3) is rows
