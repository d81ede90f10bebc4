"""How long scoring takes and how big the model is: wall clock on this machine, so a figure for the gate's order of magnitude."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.contracts.evaluation import Latency
from components.model_server.scoring import ScoringModel

ROUNDS = 5
ONE_ROW_REPEATS = 100
BATCH_ROWS = 1_000
BATCH_REPEATS = 10
WARM_UP = 20


def measure_latency(model: ScoringModel, frame: pd.DataFrame) -> Latency:
    """Median and 95th percentile of one row (through `predict_rows`, as the server scores it), median of a batch of at most 1,000 rows.

    One row is measured in five rounds and the quietest counts: on a shared machine the others measure its other processes.
    """
    rows = frame[list(model.feature_names)].head(BATCH_ROWS)
    records: list[dict[str, Any]] = rows.astype(object).where(rows.notna(), None).to_dict("records")  # type: ignore[assignment]
    for number in range(WARM_UP):
        model.predict_rows([records[number % len(records)]])
    rounds = [
        np.array([_milliseconds(partial(model.predict_rows, [records[number % len(records)]])) for number in range(ONE_ROW_REPEATS)]) for _ in range(ROUNDS)
    ]
    one = min(rounds, key=lambda each: float(np.quantile(each, 0.95)))
    batch = np.array([_milliseconds(lambda: model.predict_probability(rows)) for _ in range(BATCH_REPEATS)])
    return Latency(
        one_row_median_ms=float(np.median(one)),
        one_row_p95_ms=float(np.quantile(one, 0.95)),
        repeats=ONE_ROW_REPEATS,
        batch_rows=len(rows),
        batch_median_ms=float(np.median(batch)),
    )


def size_in_megabytes(folder: Path) -> float:
    """All files of the model's folder, in units of 10^6 bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)
