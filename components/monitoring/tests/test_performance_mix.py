"""Performance from the mix alone: a window with more of a hard segment is expected to be worse, by what the reference says of that segment."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from components.monitoring.performance.mix import expected_from_mix

pytestmark = pytest.mark.monitoring
DAYS, ROWS_A_DAY = 30, 200


def reference() -> tuple[pd.DataFrame, pd.Series]:
    """EWR is easy, LGA nearly a coin."""
    random = np.random.default_rng(1)
    rows = DAYS * ROWS_A_DAY
    segment = pd.Series(random.choice(["EWR", "LGA"], rows, p=[0.7, 0.3]))
    label = random.random(rows) < 0.3
    score = random.normal(size=rows) + label * np.where(segment == "EWR", 1.6, 0.1)
    moment = pd.Timestamp("2013-03-01", tz="UTC") + pd.to_timedelta(np.repeat(np.arange(DAYS), ROWS_A_DAY), unit="D")
    return pd.DataFrame({"prediction_moment": moment, "probability": 1 / (1 + np.exp(-score)), "label": label.astype(int)}), segment


def test_more_of_the_hard_segment_is_expected_to_be_worse() -> None:
    rows, segment = reference()
    parts = {name: roc_auc_score(rows.loc[segment == name, "label"], rows.loc[segment == name, "probability"]) for name in ("EWR", "LGA")}
    found = expected_from_mix("roc_auc", rows, segment, pd.Series(["EWR"] * 20 + ["LGA"] * 80), 0.95)
    assert found is not None
    assert found.value == pytest.approx(0.2 * parts["EWR"] + 0.8 * parts["LGA"])
    assert found.low < found.value < found.high and found.high < found.reference


def test_the_references_own_mix_changes_nothing() -> None:
    rows, segment = reference()
    found = expected_from_mix("roc_auc", rows, segment, segment, 0.95)
    assert found is not None and found.value == pytest.approx(found.reference)


def test_a_segment_that_the_reference_does_not_know_counts_as_the_whole() -> None:
    rows, segment = reference()
    found = expected_from_mix("roc_auc", rows, segment, pd.Series(["EWR"] * 50 + ["JFK"] * 50), 0.95)
    easy = roc_auc_score(rows.loc[segment == "EWR", "label"], rows.loc[segment == "EWR", "probability"])
    assert found is not None and found.value == pytest.approx(0.5 * easy + 0.5 * roc_auc_score(rows["label"], rows["probability"]))
    assert expected_from_mix("roc_auc", rows, segment, pd.Series(["JFK"] * 50), 0.95) is None


def test_one_day_of_reference_gives_no_interval() -> None:
    rows, segment = reference()
    day = rows["prediction_moment"] == rows["prediction_moment"].min()
    assert expected_from_mix("roc_auc", rows[day], segment[day], pd.Series(["EWR"]), 0.95) is None
