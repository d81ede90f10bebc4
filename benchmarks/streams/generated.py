"""Streams by a stated mechanism: river's generators and two of our own, with change points that are known. A window has 400 rows in development, 250 when judged.

`PERIOD` is the length of a window; a row's moment says where in it the row was drawn. All are drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.streams.stream import Role, Stream, dated

PERIOD = pd.Timedelta(days=7)
ROWS: dict[Role, int] = {"development": 400, "judged": 250}
HISTORY, WINDOWS = 6, 48
START = pd.Timestamp("2020-01-06", tz="UTC")


def _stream(name: str, predicts: str, mechanism: str, role: Role, rows: pd.DataFrame, label: np.ndarray) -> Stream:
    moment = pd.Series(START + PERIOD / ROWS[role] * np.arange(len(rows)))
    return Stream(
        name,
        predicts,
        mechanism,
        mechanism,
        role,
        dated(rows, moment, pd.Series(label.astype(bool))),
        START + HISTORY * PERIOD,
        PERIOD,
        PERIOD,
        12 * PERIOD,
    )


def _drawn(role: Role, parts: Iterable[tuple[Any, int]], noise: float, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of river's generators one after the other: (generator, windows) each; `noise`: share of labels flipped."""
    examples = [example for generator, windows in parts for example in islice(generator, windows * ROWS[role])]
    label = np.array([int(bool(y)) for _, y in examples])
    flipped = np.random.default_rng(seed).random(len(label)) < noise
    return pd.DataFrame([x for x, _ in examples]).rename(columns=str), np.where(flipped, 1 - label, label)


def sudden(role: Role, seed: int, changes: tuple[int, ...]) -> Stream:
    """SEA concepts (Street and Kim 2001); the concept changes at the windows `changes` after the start."""
    from river.datasets import synth

    edges = [0, *(HISTORY + each for each in changes), HISTORY + WINDOWS]
    parts = [(synth.SEA(variant=number * 2 % 4, seed=seed + number), after - before) for number, (before, after) in enumerate(pairwise(edges))]
    return _stream(
        f"sudden_{role}",
        "SEA concept",
        f"river SEA, sudden change at windows {changes}, a tenth of labels flipped, seed {seed}",
        role,
        *_drawn(role, parts, 0.1, seed),
    )


def gradual(role: Role, seed: int, magnitude: float) -> Stream:
    """A rotating hyperplane (Hulten et al. 2001): it moves by `magnitude` with every row."""
    from river.datasets import synth

    generator = synth.Hyperplane(seed=seed, n_features=8, n_drift_features=4, mag_change=magnitude, noise_percentage=0.05)
    rows, label = _drawn(role, [(generator, HISTORY + WINDOWS)], 0.1, seed)
    return _stream(
        f"gradual_{role}",
        "side of a hyperplane",
        f"river Hyperplane, 4 of 8 weights move by {magnitude} a row, a tenth of labels flipped, seed {seed}",
        role,
        rows,
        label,
    )


def regimes(role: Role, seed: int, changes: tuple[int, ...]) -> Stream:
    """Agrawal et al. (1993): loan rules over nine attributes; another rule from each of the windows `changes` on."""
    from river.datasets import synth

    edges = [0, *(HISTORY + each for each in changes), HISTORY + WINDOWS]
    rules = (0, 3, 6, 1, 4)
    parts = [
        (synth.Agrawal(classification_function=rules[number % len(rules)], seed=seed + number, perturbation=0.05), after - before)
        for number, (before, after) in enumerate(pairwise(edges))
    ]
    return _stream(
        f"regimes_{role}",
        "loan granted",
        f"river Agrawal, another rule at windows {changes}, a tenth of labels flipped, seed {seed}",
        role,
        *_drawn(role, parts, 0.1, seed),
    )


def _own(
    role: Role, effect: Callable[[np.ndarray, np.ndarray], np.ndarray], shift: Callable[[np.ndarray], np.ndarray], seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    draw = np.random.default_rng(seed)
    count = ROWS[role] * (HISTORY + WINDOWS)
    time = np.arange(count) / ROWS[role]
    values = draw.normal(size=(count, 8)) + shift(time)[:, None] * np.array([1, 1, 0, 0, 0, 0, 0, 0])
    odds = effect(values, time)
    return pd.DataFrame(values, columns=[f"x{number}" for number in range(8)]), draw.random(count) < 1 / (1 + np.exp(-odds))


def stationary(role: Role, seed: int) -> Stream:
    """Nothing changes: what retraining gains is more data."""
    rows, label = _own(role, lambda x, _: 1.2 * x[:, 0] - 0.8 * x[:, 1] * (x[:, 2] > 0) + 0.6 * np.sin(2 * x[:, 3]) - 1.0, np.zeros_like, seed)
    return _stream(f"stationary_{role}", "a fixed rule", f"logistic with interaction; nothing changes, seed {seed}", role, rows, label)


def moved_inputs(role: Role, seed: int) -> Stream:
    """The inputs move to where the first model has seen little; the rule stays."""
    rows, label = _own(role, lambda x, _: np.sin(1.5 * x[:, 0]) * 1.5 + 0.8 * x[:, 1] - 0.7 * x[:, 4], lambda time: np.clip((time - 20) / 8, 0, 1) * 2.0, seed)
    return _stream(
        f"moved_inputs_{role}",
        "a fixed rule over moving inputs",
        f"two inputs move by two standard deviations over windows 14 to 22, seed {seed}",
        role,
        rows,
        label,
    )


def recurring(role: Role, seed: int) -> Stream:
    """An effect that comes and goes with a season of 16 windows, which no feature tells."""
    rows, label = _own(role, lambda x, time: 1.2 * x[:, 0] * np.cos(2 * np.pi * time / 16) + 0.9 * x[:, 1] + 0.5 * x[:, 2] - 0.5, np.zeros_like, seed)
    return _stream(f"recurring_{role}", "a seasonal rule", f"one effect follows a cosine of 16 windows that no feature tells, seed {seed}", role, rows, label)


DEVELOPMENT: tuple[Callable[[], Stream], ...] = (
    lambda: sudden("development", 11, (12, 30)),
    lambda: gradual("development", 12, 0.0005),
    lambda: stationary("development", 13),
    lambda: recurring("development", 14),
    lambda: regimes("development", 15, (9, 20, 37)),
)
JUDGED: tuple[Callable[[], Stream], ...] = (
    lambda: sudden("judged", 101, (19, 26)),
    lambda: gradual("judged", 102, 0.001),
    lambda: stationary("judged", 103),
    lambda: moved_inputs("judged", 104),
    lambda: recurring("judged", 105),
    lambda: regimes("judged", 106, (15, 24, 33)),
)
