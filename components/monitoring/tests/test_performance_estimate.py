"""Estimates without labels: right when the probabilities mean what they say, honest about their error, refused where they would be blind."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from components.monitoring.performance.estimate import (
    Difference,
    NotEstimable,
    backtest,
    backtest_error,
    estimate,
    expected_metric,
    require_estimable,
    sampling_error,
)
from components.monitoring.performance.metric import metric_value

pytestmark = pytest.mark.monitoring

START = datetime(2013, 3, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


def calibrated(days: int, per_day: int, seed: int, start: datetime = START) -> pd.DataFrame:
    """Rows whose label is drawn with exactly the probability that stands beside it."""
    draw = np.random.default_rng(seed)
    probability = draw.beta(1.2, 3.6, days * per_day)
    moments = [start + timedelta(days=row // per_day, minutes=row % per_day) for row in range(days * per_day)]
    return pd.DataFrame({"prediction_moment": moments, "probability": probability, "label": (draw.random(len(probability)) < probability).astype("int64")})


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
def test_the_expectation_is_the_mean_over_labels_that_the_probabilities_would_give(metric: str) -> None:
    rows = calibrated(7, 150, seed=1)
    probability = rows["probability"].to_numpy()
    draw = np.random.default_rng(2)
    drawn = [metric_value(metric, (draw.random(len(probability)) < probability).astype(np.int64), probability) for _ in range(200)]
    assert expected_metric(metric, probability) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / math.sqrt(200) + 0.003)


def test_a_metric_that_cbpe_cannot_estimate_is_refused_with_a_remedy() -> None:
    for metric in ("brier", "log_loss", "expected_cost"):
        with pytest.raises(NotEstimable, match=r"(?s)cannot be estimated.*remedy: promise one of roc_auc, average_precision"):
            require_estimable(metric)
        with pytest.raises(NotEstimable):
            expected_metric(metric, np.array([0.2, 0.8]))


def test_the_interval_covers_what_comes_true() -> None:
    """60 independent weeks; at a true coverage of 95% fewer than 52 hits happen once in 10,000 times."""
    hits = 0
    for seed in range(60):
        rows, reference = calibrated(7, 100, seed=100 + seed), calibrated(14, 100, seed=900 + seed)
        found = estimate("roc_auc", rows["probability"].to_numpy(), reference, backtest("roc_auc", reference, WEEK), 0.95)
        truth = metric_value("roc_auc", rows["label"].to_numpy(), rows["probability"].to_numpy())
        hits += found.low <= truth <= found.high
    assert hits >= 52


def test_miscalibrated_probabilities_show_in_the_backtest_error() -> None:
    good = calibrated(14, 300, seed=3)
    bad = good.assign(probability=good["probability"] ** 3)  # ranks alike, claims far more certainty than there is
    errors = [backtest_error(backtest("roc_auc", reference, WEEK)) for reference in (good, bad)]
    assert errors[0] < 0.03 < 0.1 < errors[1]


def test_backtest_blocks_are_contiguous_days_and_at_least_four() -> None:
    assert len(backtest("roc_auc", calibrated(14, 120, seed=4), WEEK)) == 4
    assert len(backtest("roc_auc", calibrated(28, 120, seed=4), WEEK)) == 4
    assert len(backtest("roc_auc", calibrated(42, 120, seed=4), WEEK)) == 6


def test_a_reference_without_both_classes_leaves_no_record_and_says_so() -> None:
    reference = calibrated(14, 50, seed=5).assign(label=0)
    with pytest.raises(Exception, match=r"(?s)no record.*lengthen model\.test_period"):
        backtest_error(backtest("roc_auc", reference, WEEK))


def test_a_short_record_and_a_bad_record_widen_the_interval() -> None:
    reference, probability = calibrated(14, 100, seed=6), calibrated(7, 100, seed=7)["probability"].to_numpy()

    def width(record: list[Difference]) -> float:
        found = estimate("roc_auc", probability, reference, record, 0.95)
        return found.high - found.low

    long_good, short_good = [Difference(0.0, 0.02)] * 12, [Difference(0.0, 0.02)] * 2
    wrong_later = [*long_good, Difference(0.2, 0.02)]
    assert width(long_good) < width(short_good)
    assert width(long_good) < width(wrong_later)


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
def test_errors_are_the_same_twice_and_nobody_elses_random_numbers_move(metric: str) -> None:
    reference = calibrated(14, 60, seed=8)
    np.random.seed(7)
    first = sampling_error(metric, reference, 500)
    after = np.random.random()
    np.random.seed(7)
    assert np.random.random() == after
    assert sampling_error(metric, reference, 500) == first
    assert sampling_error(metric, reference, 2000) == pytest.approx(first / 2, rel=1e-6)


def test_nannyml_does_the_estimating_and_is_imported_only_then() -> None:
    code = """
import sys
import components.monitoring.performance.assess, components.monitoring.performance.steps, components.monitoring.performance_component
assert not any(name.split(".")[0] in ("nannyml", "sklearn", "pandas") for name in sys.modules), sorted(sys.modules)
sys.modules["nannyml"] = None
import numpy
from components.monitoring.performance.estimate import expected_metric
try:
    expected_metric("roc_auc", numpy.array([0.2, 0.8]))
except ImportError:
    print("needs nannyml")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("needs nannyml"), done.stderr
