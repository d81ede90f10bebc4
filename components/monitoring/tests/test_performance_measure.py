"""Measurements respect days, and concept drift is what the inputs do not explain."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from components.monitoring.performance.measure import jackknife, measure
from components.monitoring.performance.metric import block_length, days_of, metric_value

pytestmark = pytest.mark.monitoring

START = datetime(2013, 4, 4, tzinfo=UTC)
WEEK = timedelta(days=7)


def week(seed: int, per_day: int = 150, day_effect: float = 0.0, meaning: float = 1.0) -> pd.DataFrame:
    """Seven days; `day_effect`: standard deviation of a common shift a day (log odds); `meaning` 0: the probability says nothing any more."""
    draw = np.random.default_rng(seed)
    day = np.repeat(np.arange(7), per_day)
    probability = draw.beta(1.2, 3.6, len(day))
    log_odds = meaning * np.log(probability / (1 - probability)) + (1 - meaning) * np.log(1 / 3) + draw.normal(0, day_effect, 7)[day]
    moments = [START + timedelta(days=int(number), minutes=index % per_day) for index, number in enumerate(day)]
    label = (draw.random(len(day)) < 1 / (1 + np.exp(-log_odds))).astype("int64")
    return pd.DataFrame({"prediction_moment": moments, "probability": probability, "label": label})


def test_the_value_is_the_metric_and_lies_in_its_interval() -> None:
    rows = week(1)
    found = measure("roc_auc", rows, WEEK, 0.0, 0.95)
    assert found is not None
    assert found.value == metric_value("roc_auc", rows["label"].to_numpy(), rows["probability"].to_numpy())
    assert found.low < found.value < found.high
    assert found.days == 7


def test_the_interval_covers_the_true_value_even_when_days_differ() -> None:
    """The truth is the mean over many weeks. Rows taken as independent would cover far less with such day effects."""
    weeks = [measure("roc_auc", week(seed, per_day=80, day_effect=1.0), WEEK, 0.0, 0.95) for seed in range(40)]
    values = [one.value for one in weeks if one is not None]
    truth = float(np.mean(values))
    covered = [one.low <= truth <= one.high for one in weeks if one is not None]
    assert len(covered) == 40
    assert sum(covered) >= 33


def test_labels_that_no_longer_follow_the_inputs_are_concept_drift() -> None:
    found = measure("roc_auc", week(2, meaning=0.0), WEEK, 0.01, 0.95)
    assert found is not None
    assert found.concept_drift
    assert found.explained - found.value > 0.1


def test_inputs_that_moved_are_no_concept_drift() -> None:
    """Probabilities crowd together (a hard week): the metric falls, and the inputs explain it. At most a few of 25 weeks may err."""
    drifts = 0
    for seed in range(25):
        rows = week(seed)
        draw = np.random.default_rng(1000 + seed)
        narrow = 0.25 + 0.2 * (rows["probability"].to_numpy() - 0.25)
        hard = rows.assign(probability=narrow, label=(draw.random(len(rows)) < narrow).astype("int64"))
        found = measure("roc_auc", hard, WEEK, 0.005, 0.95)
        assert found is not None
        assert found.value < 0.62
        drifts += found.concept_drift
    assert drifts <= 3


def test_an_estimator_known_to_err_is_not_taken_as_proof_of_concept_drift() -> None:
    rows = week(3, meaning=0.6)
    sure, unsure = (measure("roc_auc", rows, WEEK, error, 0.95) for error in (0.0, 0.2))
    assert sure is not None
    assert unsure is not None
    assert sure.concept_drift
    assert not unsure.concept_drift


def test_one_class_or_one_day_cannot_be_measured() -> None:
    assert measure("roc_auc", week(4).assign(label=0), WEEK, 0.0, 0.95) is None
    assert measure("roc_auc", week(4).head(100), WEEK, 0.0, 0.95) is None


def test_the_jackknife_is_the_textbook_standard_error_for_a_mean() -> None:
    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
    error, count = jackknife(lambda rows: float(values[rows].mean()), np.arange(5))
    assert count == 5
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(5))


def test_short_windows_are_cut_into_sevenths() -> None:
    assert block_length(timedelta(days=30)) == timedelta(days=1)
    assert block_length(timedelta(hours=7)) == timedelta(hours=1)
    moments = pd.Series([datetime(1970, 1, 2, tzinfo=UTC), datetime(1970, 1, 1, 23, 59, tzinfo=UTC)])
    assert days_of(moments, timedelta(days=1)).tolist() == [1, 0]
