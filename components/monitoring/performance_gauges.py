"""The last assessed performance of each model, for the sidecar's metrics: the records of the monitoring pipeline, read as they come."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Gauge

from components.contracts.events import Performance
from components.contracts.records import RecordStore
from components.contracts.storage import names_in


@dataclass
class PerformanceGauges:
    """Gauges by model version, kind (estimated, measured) and metric. A record is read once; of several windows the latest one shows."""

    usecase: str
    records: RecordStore
    registry: CollectorRegistry
    _read: set[str] = field(default_factory=set, init=False)
    _latest: dict[tuple[str, str], Performance] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"crispline_performance{name}", text, ("usecase", "model_version", "kind", "metric"), registry=self.registry)

        self._value = gauge("", "Performance in the last assessed window.")
        self._low = gauge("_low", "Lower end of its interval.")
        self._high = gauge("_high", "Upper end of its interval.")
        self._threshold = gauge("_threshold", "What was promised: retraining.threshold.")
        self._window_end = gauge("_window_end_seconds", "End of that window, business time, seconds since the epoch.")

    def refresh(self) -> int:
        """Read the records that are new; return how many there were."""
        new = self._unread()
        for id in new:
            record = self.records.get("performance", id)
            self._read.add(id)
            if record.usecase == self.usecase:
                self._show(Performance.model_validate(record.details))
        return len(new)

    def _unread(self) -> list[str]:
        ids = {name.removesuffix(".json") for name in names_in(self.records.root / "performance") if name.endswith(".json")}
        return sorted(ids - self._read)

    def _show(self, found: Performance) -> None:
        before = self._latest.get((found.model_version, found.kind))
        if before is not None and before.window_end >= found.window_end:
            return
        self._latest[(found.model_version, found.kind)] = found
        labels = (self.usecase, found.model_version, found.kind, found.metric)
        self._value.labels(*labels).set(found.value)
        self._low.labels(*labels).set(found.low)
        self._high.labels(*labels).set(found.high)
        self._threshold.labels(*labels).set(found.threshold)
        self._window_end.labels(*labels).set(found.window_end.timestamp())
