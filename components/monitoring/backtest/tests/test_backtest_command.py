"""`crispline backtest`: the page tells the outcome, and what cannot be read is refused with a remedy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.loading import load_usecase
from components.contracts.usecase import UseCase
from components.monitoring.backtest.grid import build_grid
from components.monitoring.backtest.page import backtest_page
from components.monitoring.backtest.tabular import history_of_table
from components.monitoring.backtest.usecase_history import default_start, history_of_usecase, training_windows
from pipelines.commands.backtest import compare, run_backtest

pytestmark = pytest.mark.pipeline

START, WEEK = datetime(2020, 1, 6, tzinfo=UTC), timedelta(days=7)


def config() -> UseCase:
    flights = load_usecase("flights").config
    return flights.model_copy(
        update={
            "model": flights.model.model_copy(update={"test_period": WEEK}),
            "retraining": flights.retraining.model_copy(update={"cooldown": WEEK, "budget_runs": 20, "training_window": 4 * WEEK}),
        }
    )


def request(state: Path, **changes: Any) -> dict[str, Any]:
    plain = {"usecase": "flights", "state": str(state), "out": str(state / "page.html"), "cache": "", "start": "", "end": "", "live_from": "", "source": False}
    return plain | {"rows": 5000} | changes


def test_the_page_tells_runs_reasons_settings_and_margin() -> None:
    draw = np.random.default_rng(5)
    count = 120 * 12
    position = np.arange(count) / 120 - 4
    x = draw.normal(size=(count, 2))
    label = draw.random(count) < 1 / (1 + np.exp(-2.5 * x[:, 0] * np.where(position < 3, 1, -1)))
    rows = pd.DataFrame(
        {"moment": pd.Timestamp(START) + pd.to_timedelta(position * WEEK.total_seconds(), unit="s"), "label": label.astype(int), "a": x[:, 0], "b": x[:, 1]}
    )
    history = history_of_table("made", rows, ["a", "b"], START, WEEK, timedelta(days=1), 4 * WEEK)
    told: list[int] = []
    grid = build_grid(history, 0.3, (120.0, 400.0), lambda done, of: told.append(done * 100 + of))
    found = compare(config(), history, grid, 100_000)
    page = backtest_page(found)
    assert told[-1] == history.windows * 101
    for words in ("crispline", "oracle", "no longer mean what they say", "budget_runs", "one run a window is worth", "half weight"):
        assert words in page, words
    assert page.count("<svg") == 3
    current = [one for one in found.settings if one.current]
    assert {one.key for one in current} == {"threshold", "cooldown", "budget_runs", "cost_of_run"}
    assert len({one.summary.auc for one in current}) == 1  # the current value of every setting is the same policy


def test_an_empty_lake_and_a_source_without_a_period_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CrisplineError, match="holds nothing of 'flights'"):
        run_backtest(request(tmp_path))
    with pytest.raises(CrisplineError, match="--start and --end"):
        run_backtest(request(tmp_path, source=True))


def frame() -> pd.DataFrame:
    usecase = load_usecase("flights")
    count = 2000
    moment = pd.Timestamp(START) + pd.to_timedelta(np.arange(count) * 2.5, unit="h")
    rows = pd.DataFrame(dict.fromkeys(usecase.features.feature_names, 1.0), index=range(count))
    rows["carrier"], rows["origin"] = "AA", "JFK"
    return rows.assign(
        entity=[f"e{number:05d}" for number in range(count)],
        prediction_moment=moment,
        label_known_at=moment + 15 * timedelta(days=1),
        label=np.arange(count) % 3 == 0,
    )


def test_a_use_cases_history_keeps_rows_of_every_time_and_knows_when_labels_came() -> None:
    usecase = load_usecase("flights")
    start = default_start(frame(), usecase)
    assert start == START + usecase.config.retraining.training_window
    history = history_of_usecase(usecase, frame(), start, 1000)
    assert len(history.label) == 1000
    assert ((history.known_at - history.moment) == pd.Timedelta(days=15)).all()
    assert min(np.diff(history.edges)) > 10
    assert "short" not in training_windows(usecase)


def test_a_first_model_without_labels_is_refused() -> None:
    with pytest.raises(InvalidData, match="no label was known"):
        history_of_usecase(load_usecase("flights"), frame(), START, 1000)


def test_a_history_no_longer_than_the_training_window_is_refused() -> None:
    short = frame()
    with pytest.raises(CrisplineError, match="no more than one training window"):
        default_start(short[short["prediction_moment"] < pd.Timestamp(START + 10 * WEEK)], load_usecase("flights"))
