"""The sidecar's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from components.monitoring.drift import WindowDrift


class SidecarMetrics:
    """Counters of this process; gauges of the last closed window. Label `usecase` is on every one."""

    def __init__(self, usecase: str) -> None:
        self.registry = CollectorRegistry()
        self.usecase = usecase

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"crispline_sidecar_{name}", text, ("usecase", *labels), registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"crispline_{name}", text, ("usecase", *labels), registry=self.registry)

        self._events = counter("events", "CloudEvents acknowledged, by type.", "type")
        self._ignored = counter("events_ignored", "CloudEvents that are not this sidecar's, by what told so.", "reason")
        self._refused = counter("events_refused", "Requests that are no CloudEvent, too large, or could not be stored.", "reason")
        self._poisoned = counter("events_poisoned", "Payloads set aside because they can never be logged.")
        self._logged = counter("predictions_logged", "Rows written to the prediction log.")
        self._late = counter("predictions_late", "Rows logged after their window had been closed.")
        self._lost = counter("answers_lost", "Answers whose number is missing in the log, of closed windows.")
        self._windows = counter("windows_closed", "Windows closed by this process.")
        self._alerts = counter("alerts", "Alerts issued, by kind.", "kind")
        self._failures = counter("failures", "Background work that failed and is tried again, by work.", "work")
        self._spooled = gauge("sidecar_spool_events", "Acknowledged events not yet in the prediction log.")
        self._pending = gauge("sidecar_alerts_pending", "Alerts not yet accepted by the trigger.")
        self._statistic = gauge("drift_statistic", "Test statistic of the last window.", "detector", "part")
        self._threshold = gauge("drift_threshold", "Alarm threshold of the statistic.", "detector", "part")
        self._closed_until = gauge("sidecar_closed_until_seconds", "End of the last closed window, business time, seconds since the epoch.")
        for counted in (self._poisoned, self._logged, self._late, self._lost, self._windows):
            counted.labels(usecase)  # a series that starts at 0 lets the first increase be seen

    def event(self, type_: str) -> None:
        self._events.labels(self.usecase, type_).inc()

    def ignored(self, reason: str) -> None:
        self._ignored.labels(self.usecase, reason).inc()

    def refused(self, reason: str) -> None:
        self._refused.labels(self.usecase, reason).inc()

    def poisoned(self) -> None:
        self._poisoned.labels(self.usecase).inc()

    def logged(self, rows: int) -> None:
        self._logged.labels(self.usecase).inc(rows)

    def late(self, rows: int) -> None:
        self._late.labels(self.usecase).inc(rows)

    def failed(self, work: str) -> None:
        self._failures.labels(self.usecase, work).inc()

    def alert(self, kind: str) -> None:
        self._alerts.labels(self.usecase, kind).inc()

    def window_closed(self, end_seconds: float, drifts: list[WindowDrift]) -> None:
        self._windows.labels(self.usecase).inc()
        self._closed_until.labels(self.usecase).set(end_seconds)
        for drift in drifts:
            self._lost.labels(self.usecase).inc(drift.answers_lost)
            for result in drift.results:
                for part in result.parts:
                    self._statistic.labels(self.usecase, result.detector, part.part).set(part.statistic)
                    self._threshold.labels(self.usecase, result.detector, part.part).set(part.threshold)

    def exposition(self, spooled: int, pending: int) -> bytes:
        """The text format, with the gauges of this moment."""
        self._spooled.labels(self.usecase).set(spooled)
        self._pending.labels(self.usecase).set(pending)
        return generate_latest(self.registry)
