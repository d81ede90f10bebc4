"""Calibration repairs probabilities that are too sure of themselves, keeps the ranking, and never says 0 or 1."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from components.contracts.errors import InvalidData
from components.model_engineering.calibration import fit_calibrator, log_loss, split_validation
from components.model_engineering.rows import labelled_rows
from components.model_engineering.tests.flight_rows import flight_rows

pytestmark = pytest.mark.pipeline


def overconfident(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log odds three times as large as the truth."""
    random = np.random.default_rng(seed)
    odds = random.normal(-1, 1, rows)
    label = (random.random(rows) < 1 / (1 + np.exp(-odds))).astype(float)
    return 1 / (1 + np.exp(-3 * odds)), label


@pytest.mark.parametrize("kind", ["isotonic", "sigmoid"])
def test_it_improves_the_log_loss_on_new_rows_and_keeps_the_ranking(kind) -> None:
    calibrator = fit_calibrator(kind, *overconfident(4000, 1))
    raw, label = overconfident(4000, 2)
    calibrated = calibrator.apply(raw)
    assert log_loss(calibrated, label) < log_loss(raw, label) - 0.1
    assert abs(calibrated.mean() - label.mean()) < 0.02
    assert roc_auc_score(label, calibrated) == pytest.approx(roc_auc_score(label, raw), abs=1e-12)
    order = np.argsort(raw)
    assert (np.diff(calibrated[order]) >= 0).all()


def test_sigmoid_finds_the_distortion_itself() -> None:
    calibrator = fit_calibrator("sigmoid", *overconfident(20_000, 3))
    assert calibrator.a == pytest.approx(1 / 3, abs=0.02)
    assert calibrator.b == pytest.approx(0, abs=0.05)


def test_well_calibrated_probabilities_are_left_nearly_alone() -> None:
    random = np.random.default_rng(4)
    raw = random.uniform(0.05, 0.6, 8000)
    label = (random.random(8000) < raw).astype(float)
    for kind in ("isotonic", "sigmoid"):
        assert np.abs(fit_calibrator(kind, raw, label).apply(raw) - raw).mean() < 0.025


@pytest.mark.ml_test("monitoring-5")
def test_separable_rows_do_not_become_certainties() -> None:
    raw = np.linspace(0.01, 0.99, 200)
    label = (raw > 0.5).astype(float)
    calibrated = fit_calibrator("isotonic", raw, label).apply(raw)
    assert calibrated.min() > 0
    assert calibrated.max() < 1


def test_scores_that_rank_backwards_are_refused() -> None:
    raw, label = overconfident(2000, 5)
    with pytest.raises(InvalidData, match="higher scores"):
        fit_calibrator("sigmoid", 1 - raw, label)


def test_calibration_rows_come_after_the_rows_that_stopped_the_training(flights) -> None:
    rows = labelled_rows(flight_rows(flights, 2000), "validation")
    stopping, calibration = split_validation(rows)
    assert stopping.frame["prediction_moment"].max() < calibration.frame["prediction_moment"].min()
    assert len(stopping) + len(calibration) == len(rows)
    assert abs(len(stopping) - len(calibration)) <= 1
