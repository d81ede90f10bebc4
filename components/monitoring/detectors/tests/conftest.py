"""A made-up process: three inputs that share a daily weather, independent ones, a category and a segment."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from components.contracts.loading import load_usecase
from components.contracts.usecase import Monitoring
from components.monitoring.detectors.base import PROBABILITY

NUMERIC = tuple(f"x{number}" for number in range(6))
CATEGORICAL = ("carrier", "origin")


def make_period(
    days: int, start: str, seed: int, rows_a_day: int = 120, shift: float = 0.0, correlation: float = 0.6, carriers: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = days * rows_a_day
    moments = pd.to_datetime(start) + pd.to_timedelta(np.sort(random.uniform(0, days * 86_400, rows)), unit="s")
    day = ((moments - pd.to_datetime(start)).days).to_numpy()
    weather = random.normal(size=days)[day] * 0.5
    frame = pd.DataFrame({name: random.normal(size=rows) + (weather if number < 2 else 0) for number, name in enumerate(NUMERIC)})
    frame["x0"] += shift
    frame["x4"] = correlation * frame["x5"] + np.sqrt(1 - correlation**2) * frame["x4"]
    frame["carrier"] = random.choice(["AA", "B6", "DL", "UA"], size=rows, p=carriers)
    frame["origin"] = random.choice(["EWR", "JFK", "LGA"], size=rows)
    frame["month"] = moments.month.astype(float)
    frame.loc[random.uniform(size=rows) < 0.15, "x3"] = np.nan
    frame[PROBABILITY] = 1 / (1 + np.exp(1 - 0.8 * frame["x0"] - 0.5 * frame["x2"]))
    frame["prediction_moment"] = moments
    frame["outside_training"] = False
    return frame


@pytest.fixture(scope="session")
def period() -> Callable[..., pd.DataFrame]:
    return make_period


@pytest.fixture(scope="session")
def features() -> list[str]:
    return [*NUMERIC, *CATEGORICAL, "month"]


@pytest.fixture(scope="session")
def categorical() -> list[str]:
    return list(CATEGORICAL)


@pytest.fixture(scope="session")
def monitoring() -> Monitoring:
    return load_usecase("flights").config.monitoring
