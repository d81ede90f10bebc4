"""Log loss and its price, trials and their training windows, and the trial of a live window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.monitoring.performance import live_trial as live
from components.monitoring.performance.loss import loss_price, losses, mean_error, window_loss
from components.monitoring.performance.trial import fit_trial, row_weights

pytestmark = pytest.mark.monitoring

DAY = timedelta(days=1)
START = datetime(2013, 6, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def usecase() -> LoadedUseCase:
    return load_usecase("flights")


def test_a_calibrated_model_loses_what_it_promises_and_a_wrong_one_more() -> None:
    draw = np.random.default_rng(1)
    p = draw.beta(1, 3, 4000)
    label, days = (draw.random(4000) < p).astype(int), np.arange(4000) * 7 // 4000
    right, wrong = window_loss(label, p, days), window_loss(1 - label, p, days)
    assert abs(right.value - right.expected) < 3 * right.error
    assert wrong.value - wrong.expected > 10 * wrong.error
    assert losses([1, 0], [1.0, 1.0]) == pytest.approx([1e-6, 13.8155], rel=1e-3)


def test_rows_that_hang_together_widen_the_error() -> None:
    draw = np.random.default_rng(2)
    days = np.repeat(np.arange(7), 100)
    shared = draw.normal(size=7)[days] + 0.1 * draw.normal(size=700)
    assert mean_error(shared, days) > 5 * mean_error(shared, np.arange(700) % 7)
    assert mean_error(shared, np.zeros(700, dtype=int)) == pytest.approx(np.std(shared, ddof=1) / np.sqrt(700))


def test_the_price_of_log_loss_is_what_a_small_error_costs(usecase: LoadedUseCase) -> None:
    """Against a simulation: shift the log odds of a calibrated model and count money and log loss."""
    business = usecase.config.business
    draw = np.random.default_rng(3)
    true = draw.beta(1.5, 4, 400_000)
    odds = np.log(true / (1 - true)) + draw.choice([-0.3, 0.3], len(true))
    shifted = 1 / (1 + np.exp(-odds))

    def cost(p: Any) -> float:
        decided = p >= business.cost_false_alarm / (business.cost_false_alarm + business.cost_miss)
        return float(np.where(decided, (1 - true) * business.cost_false_alarm, true * business.cost_miss).mean())

    def loss(p: Any) -> float:
        return float(-(true * np.log(p) + (1 - true) * np.log(1 - p)).mean())

    counted = (cost(shifted) - cost(true)) / (loss(shifted) - loss(true))
    assert loss_price(true, business) == pytest.approx(counted, rel=0.25)


def test_training_windows_weigh_rows_by_age() -> None:
    age = np.array([0.0, 0.5, 0.9, 3.0])
    assert row_weights("sliding", age, 1.0).tolist() == [1, 1, 1, 0]
    assert row_weights("short", age, 1.0).tolist() == [1, 1, 0, 0]
    assert row_weights("growing", age, 1.0).tolist() == [1, 1, 1, 1]
    assert row_weights("weighted", age, 1.0)[:2].tolist() == [1, 0.5]
    with pytest.raises(ValueError, match="no training window"):
        row_weights("wide", age, 1.0)


def test_a_trial_needs_both_classes() -> None:
    rows = np.ones((50, 1), dtype=np.float32)
    assert fit_trial(rows, np.zeros(50), np.ones(50), ["float"]) is None
    assert fit_trial(rows, np.arange(50) % 2, np.zeros(50), ["float"]) is None


def test_the_pipeline_can_train_on_short_only_where_it_leaves_rows(usecase: LoadedUseCase) -> None:
    assert live.trainable_windows(usecase) == ("sliding", "growing")  # half of 90 days, two weeks each for test, delay and embargo
    longer = usecase.config.model_copy(update={"retraining": usecase.config.retraining.model_copy(update={"training_window": timedelta(days=365)})})
    assert "short" in live.trainable_windows(SimpleNamespace(config=longer))  # type: ignore[arg-type]


def rows(usecase: LoadedUseCase, turned: datetime | None) -> pd.DataFrame:
    """A hundred days of rows before the judged window's end; from `turned` on the effect of `distance` is turned over."""
    draw = np.random.default_rng(4)
    count = 4000
    moment = pd.Timestamp(START + 7 * DAY) - pd.to_timedelta(np.sort(draw.random(count) * 100)[::-1], unit="D")
    frame = pd.DataFrame(dict.fromkeys(usecase.features.feature_names, np.nan), index=range(count))
    frame["distance"] = draw.normal(size=count)
    sign = np.where((turned is not None) & (moment >= pd.Timestamp(turned or START)), -1, 1)
    frame["label"] = (draw.random(count) < 1 / (1 + np.exp(-2 * sign * frame["distance"]))).astype(int)
    return frame.assign(entity=[str(number) for number in range(count)], moment=moment, known_at=moment + pd.Timedelta(days=5))


def trial(usecase: LoadedUseCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, turned: datetime | None) -> Any:
    monkeypatch.setattr(live, "labelled_history", lambda *_: rows(usecase, turned))
    monkeypatch.setattr(live, "read_manifest", lambda *_: SimpleNamespace(created=START - 40 * DAY))
    return live.live_trial(usecase, Platform.embedded(tmp_path), "r", START, START + 7 * DAY, START + 30 * DAY, [], DAY)


def test_newer_labels_gain_when_the_world_has_turned_since_the_champion(usecase: LoadedUseCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    found = trial(usecase, monkeypatch, tmp_path, START - 40 * DAY)
    assert found.gain > 3 * found.error
    assert set(found.windows) == {"sliding", "growing"}


def test_newer_labels_gain_next_to_nothing_when_nothing_has_changed(usecase: LoadedUseCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    found = trial(usecase, monkeypatch, tmp_path, None)
    assert abs(found.gain) < 0.02


def test_a_trial_learns_from_no_label_that_came_after_the_window_began(usecase: LoadedUseCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The world turns five days before the window: no label of the new world was known when it began."""
    assert trial(usecase, monkeypatch, tmp_path, START - 5 * DAY).gain < 0.02


def test_without_features_in_the_release_there_is_no_trial(usecase: LoadedUseCase, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(live, "labelled_history", lambda *_: None)
    assert live.live_trial(usecase, Platform.embedded(tmp_path), "r", START, START + 7 * DAY, START + 30 * DAY, [], DAY) is None
