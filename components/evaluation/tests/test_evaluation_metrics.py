"""The metrics and their intervals against scikit-learn, brute force and known truths."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from components.contracts.errors import CrisplineError
from components.evaluation.bootstrap import DayBootstrap, expanded_tail
from components.evaluation.metrics import METRICS, Costs, Scored, calibration_bins, improvement, measure, samples_of

pytestmark = pytest.mark.pipeline
COSTS = Costs(false_alarm=120.0, miss=400.0)


def scores(rows: int, seed: int = 0, decimals: int = 2) -> Scored:
    """Rounded probabilities, so that many are tied as after isotonic calibration."""
    rng = np.random.default_rng(seed)
    probability = np.round(rng.beta(2, 5, rows), decimals)
    return Scored(probability, rng.random(rows) < probability, 120 / 520, COSTS)


def days(rows: int, count: int, samples: int = 60, seed: int = 1) -> DayBootstrap:
    moments = pd.Series(pd.Timestamp("2013-03-01", tz="UTC") + pd.to_timedelta(np.arange(rows) % count, unit="D"))
    return DayBootstrap.draw(moments, samples, 0.95, seed)


REFERENCE = {
    "roc_auc": lambda label, probability: roc_auc_score(label, probability),
    "average_precision": lambda label, probability: average_precision_score(label, probability),
    "brier": lambda label, probability: brier_score_loss(label, probability),
    "log_loss": lambda label, probability: log_loss(label, np.clip(probability, 1e-6, 1 - 1e-6)),
}


@pytest.mark.parametrize("metric", sorted(REFERENCE))
def test_every_draw_equals_scikit_learn_on_the_repeated_rows(metric: str) -> None:
    scored, bootstrap = scores(600), days(600, 6, samples=20)
    found = samples_of(metric, scored, bootstrap)
    for number, weights in enumerate(bootstrap.weights):
        rows = np.repeat(np.arange(600), weights[bootstrap.day].astype(int))
        assert found[number] == pytest.approx(REFERENCE[metric](scored.label[rows], scored.probability[rows]), abs=1e-7)


def test_cost_counts_false_alarms_and_misses_with_their_own_price() -> None:
    scored = Scored(np.array([0.9, 0.1, 0.9, 0.1]), np.array([True, True, False, False]), 0.5, COSTS)
    assert samples_of("expected_cost", scored, days(4, 2))[0] == (400 + 120) / 4


def test_the_threshold_itself_is_a_positive_decision() -> None:
    scored = Scored(np.array([0.5, 0.5]), np.array([True, False]), 0.5, COSTS)
    assert samples_of("expected_cost", scored, days(2, 2))[0] == 60


def test_calibration_error_is_small_for_a_calibrated_model_and_the_shift_for_a_shifted_one() -> None:
    scored, bootstrap = scores(20_000, decimals=6), days(20_000, 10)
    shifted = Scored(scored.probability + 0.2, scored.label, scored.threshold, COSTS)
    assert samples_of("calibration_error", scored, bootstrap)[0] < 0.02
    assert samples_of("calibration_error", shifted, bootstrap)[0] == pytest.approx(0.2, abs=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=400))
@settings(max_examples=60, deadline=None)
def test_bins_follow_the_order_of_the_probability_and_never_part_equal_ones(values: list[float]) -> None:
    probability = np.array(values)
    bins = calibration_bins(probability)
    order = np.argsort(probability, kind="stable")
    assert (np.diff(bins[order]) >= 0).all()
    assert pd.DataFrame({"p": probability, "b": bins}).groupby("p")["b"].nunique().max() == 1
    assert set(bins) == set(range(bins.max() + 1))


@given(st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    scored, bootstrap = scores(300), days(300, 5, samples=10)
    shuffled = np.random.default_rng(seed).permutation(300)
    for metric in METRICS:
        assert samples_of(metric, scored.part(shuffled), bootstrap.part(shuffled)) == pytest.approx(samples_of(metric, scored, bootstrap), nan_ok=True)


def test_one_class_leaves_rank_metrics_out_instead_of_inventing_a_value() -> None:
    scored = Scored(np.linspace(0.1, 0.9, 40), np.zeros(40, dtype=bool), 0.5, COSTS)
    assert set(measure(METRICS, scored, days(40, 4))) == {"brier", "log_loss", "expected_cost", "calibration_error"}


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    scored = scores(1000)
    first, again, other = (measure(["roc_auc"], scored, days(1000, 14, seed=seed))["roc_auc"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_intervals_cover_the_truth_although_the_rows_of_a_day_depend_on_each_other() -> None:
    """The label share moves by day, so the Brier score of a fixed forecast does too; row-wise intervals would cover far less often."""
    covered = {"days": 0, "rows": 0}
    truth = 0.09 + 0.4 * 0.3  # (0.3 - y)^2 averages to 0.09 + 0.4 y over days with mean share 0.3
    for seed in range(120):
        rng = np.random.default_rng(seed)
        share = np.clip(rng.normal(0.3, 0.1, 14), 0.01, 0.99)
        day = np.repeat(np.arange(14), 100)
        scored = Scored(np.full(1400, 0.3), rng.random(1400) < share[day], 0.5, COSTS)
        moments = pd.Series(pd.Timestamp("2013-03-01", tz="UTC") + pd.to_timedelta(day, unit="D"))
        found = measure(["brier"], scored, DayBootstrap.draw(moments, 200, 0.95, seed))["brier"]
        covered["days"] += found.low <= truth <= found.high
        error = 1.96 * np.std((scored.probability - scored.label) ** 2) / np.sqrt(1400)
        covered["rows"] += abs(found.value - truth) <= error
    assert covered["days"] >= 0.88 * 120
    assert covered["rows"] < 0.75 * 120


def test_few_days_widen_the_quantiles() -> None:
    assert expanded_tail(0.95, 5) < expanded_tail(0.95, 14) < expanded_tail(0.95, 100_000)
    assert expanded_tail(0.95, 100_000) == pytest.approx(0.025, abs=1e-3)


def test_a_paired_difference_is_known_better_than_two_values_apart() -> None:
    scored, bootstrap = scores(3000, decimals=6), days(3000, 14, samples=200)
    noisy = Scored(np.clip(scored.probability + np.random.default_rng(5).normal(0, 0.02, 3000), 0, 1), scored.label, scored.threshold, COSTS)
    ours, theirs = (samples_of("roc_auc", each, bootstrap) for each in (scored, noisy))
    paired, alone = bootstrap.interval(improvement("roc_auc", ours, theirs)), bootstrap.interval(ours)
    assert paired is not None
    assert alone is not None
    assert paired.high - paired.low < (alone.high - alone.low) / 3


def test_improvement_is_positive_when_a_loss_falls() -> None:
    assert improvement("brier", np.array([0.1]), np.array([0.2]))[0] > 0
    assert improvement("roc_auc", np.array([0.1]), np.array([0.2]))[0] < 0


def test_one_day_is_refused_with_the_remedy() -> None:
    with pytest.raises(CrisplineError, match="at least two"):
        days(10, 1)


def test_all_metrics_are_measured_on_many_rows_with_few_equal_scores() -> None:
    assert set(measure(METRICS, scores(25_000, decimals=9), days(25_000, 28, samples=200))) == set(METRICS)
