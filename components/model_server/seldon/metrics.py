"""Prometheus metrics of the server, and Seldon's custom metrics kept in this process."""

from __future__ import annotations

import threading
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from seldon_core.metrics import SeldonMetrics


class InProcessMetrics(SeldonMetrics):  # type: ignore[misc]
    """Seldon keeps custom metrics in a second process, at three round trips a request; with one worker a dictionary and a lock do the same."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.data: dict[Any, Any] = {}
        self.worker_id_func = lambda: 0
        self._extra_default_labels: dict[str, str] = {}

    def __del__(self) -> None:
        """There is no second process to end."""


class ServerMetrics:
    """What /metrics shows. `reason` is OK or the reason of a refusal."""

    def __init__(self, usecase: str, model_version: str, release: str) -> None:
        self.registry = CollectorRegistry()
        self.answers = Counter("crispline_requests", "Prediction requests by outcome", ["reason"], registry=self.registry)
        self.rows = Counter("crispline_predictions", "Predicted rows", registry=self.registry)
        self.warnings = Counter("crispline_rows_with_warnings", "Predicted rows whose answer carries a warning", registry=self.registry)
        self.fallbacks = Counter(
            "crispline_feature_fallbacks", "Rows answered without looked-up features, because the feature server failed", registry=self.registry
        )
        self.stale = Counter("crispline_rows_stale", "Predicted rows of which a looked-up value was too old, or could not be asked for", registry=self.registry)
        self.sequence = Gauge("crispline_sequence", "Number of the last answer of this instance", registry=self.registry)
        self.seconds = Histogram(
            "crispline_request_seconds",
            "Time to answer a prediction request",
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )
        self.ready = Gauge("crispline_ready", "1 once the model is warm", registry=self.registry)
        info = Gauge("crispline_model_info", "The release in service", ["usecase", "model_version", "release"], registry=self.registry)
        info.labels(usecase, model_version, release).set(1)
