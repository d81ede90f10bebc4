"""What one feature says about the label, against figures that are known otherwise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mutual_info_score, roc_auc_score

from components.model_engineering.rows import LabelledRows
from components.understanding.signals import auc_standard_error, roc_auc, signals

pytestmark = pytest.mark.pipeline


def rows(seed: int, count: int = 3000) -> LabelledRows:
    random = np.random.default_rng(seed)
    label = (random.random(count) < 0.3).astype(float)
    frame = pd.DataFrame({"strong": label + random.normal(size=count), "noise": random.normal(size=count)})
    frame["u_shaped"] = np.where(label > 0.5, random.choice([-2.0, 2.0], count), 0.0) + random.normal(size=count)
    frame["letter"] = np.where(random.random(count) < 0.2 + 0.4 * label, "a", "b")
    frame["absent"] = np.where(label > 0.5, np.nan, 1.0)
    frame["constant"] = 1.0
    return LabelledRows(frame, label)


@pytest.fixture(scope="module")
def found():
    names = ("strong", "noise", "u_shaped", "letter", "absent", "constant")
    return {signal.feature: signal for signal in signals(rows(1), rows(2), names, frozenset({"letter"}))}


def test_auc_is_the_usual_one_with_ties() -> None:
    random = np.random.default_rng(3)
    score, label = random.integers(0, 5, 500).astype(float), (random.random(500) < 0.4).astype(float)
    assert roc_auc(score, label) == pytest.approx(roc_auc_score(label, score))


def test_the_standard_error_is_about_the_spread_of_repeated_samples() -> None:
    values = []
    for seed in range(300):
        random = np.random.default_rng(seed)
        label = (random.random(300) < 0.3).astype(float)
        values.append(roc_auc(label + random.normal(size=300), label))
    assert auc_standard_error(float(np.mean(values)), label) == pytest.approx(np.std(values), rel=0.25)


def test_a_relation_in_any_shape_is_found_and_noise_is_not(found) -> None:
    assert found["strong"].later_auc > 0.7
    assert found["u_shaped"].later_auc > 0.7
    assert abs(found["u_shaped"].correlation) < 0.1
    assert found["letter"].later_auc > 0.65
    assert found["absent"].later_auc > 0.99, "that a value is missing can say everything"
    assert abs(found["noise"].later_auc - 0.5) < 0.03
    assert found["constant"].later_auc == 0.5


def test_luck_on_the_fitting_rows_does_not_carry_over(found) -> None:
    assert found["noise"].fitted_auc > found["noise"].later_auc


def test_mutual_information_is_in_bits(found) -> None:
    fitted = rows(1)
    assert found["letter"].information == pytest.approx(mutual_info_score(fitted.frame["letter"], fitted.label) / np.log(2))


def test_correlation_is_the_point_biserial_one(found) -> None:
    fitted = rows(1)
    assert found["strong"].correlation == pytest.approx(np.corrcoef(fitted.frame["strong"], fitted.label)[0, 1])
    assert np.isnan(found["letter"].correlation)
    assert np.isnan(found["constant"].correlation)
