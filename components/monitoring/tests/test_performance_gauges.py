"""The last assessed window of each model and kind shows; a record is read once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from components.contracts.durations import parse_moment
from components.contracts.events import Performance
from components.contracts.records import Record, RecordStore
from components.monitoring.performance_gauges import PerformanceGauges

pytestmark = pytest.mark.monitoring
START = parse_moment("2013-04-04T00:00:00Z")


def assessed(store: RecordStore, week: int, value: float, kind: str = "measured", usecase: str = "flights", **more: Any) -> None:
    start = START + timedelta(days=7 * week)
    found = Performance(
        id=f"{usecase}-{kind}-{week}", usecase=usecase, model_version="m1", window_start=start, window_end=start + timedelta(days=7), as_of=start + timedelta(days=22),
        kind=kind, metric="roc_auc", value=value, low=value - 0.02, high=value + 0.02, threshold=0.67, rows=1000, labelled_share=1.0, sampling_error=0.01,
        backtest_error=0.01, **more,
    )  # fmt: skip
    store.append(
        Record(
            kind="performance", id=found.id, usecase=usecase, event_time=found.as_of, outcome=kind, reason="Assessed.", details=found.model_dump(mode="json")
        )
    )


def test_the_latest_window_shows_whatever_the_order_in_which_records_come(tmp_path: Path) -> None:
    store, registry = RecordStore(str(tmp_path)), CollectorRegistry()
    gauges = PerformanceGauges("flights", store, registry)
    assert gauges.refresh() == 0, "before the first assessment there is no folder"
    assessed(store, 2, 0.61)
    assessed(store, 1, 0.70, kind="estimated")
    assert gauges.refresh() == 2
    assessed(store, 1, 0.69)
    assessed(store, 1, 0.99, usecase="trains")
    assert gauges.refresh() == 2 and gauges.refresh() == 0

    def value(name: str, kind: str) -> float | None:
        return registry.get_sample_value(name, {"usecase": "flights", "model_version": "m1", "kind": kind, "metric": "roc_auc"})

    assert (value("crispline_performance", "measured"), value("crispline_performance", "estimated")) == (0.61, 0.70)
    assert (value("crispline_performance_low", "measured"), value("crispline_performance_high", "measured")) == (0.59, 0.63)
    assert value("crispline_performance_threshold", "measured") == 0.67
    assert value("crispline_performance_window_end_seconds", "measured") == (START + timedelta(days=21)).timestamp()
    assert registry.get_sample_value("crispline_performance", {"usecase": "trains", "model_version": "m1", "kind": "measured", "metric": "roc_auc"}) is None
