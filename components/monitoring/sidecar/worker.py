"""The sidecar's background work: spool to prediction log, closed windows to verdicts, alerts to the trigger. Every part may be repeated."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.contracts.serving import LoggedPrediction
from components.contracts.storage import write_atomically
from components.monitoring.alert_outbox import AlertOutbox
from components.monitoring.detectors.fitting import DetectorSet, warm_up
from components.monitoring.drift import WindowDrift, alert_record, alerts_of, check_records, judge_window, save_drift, store_once
from components.monitoring.event_intake import NotOurs, PoisonedEvent, feedback_of, predictions_of
from components.monitoring.feedback import parse_seldon_feedback, store_feedback, store_labels
from components.monitoring.metrics import SidecarMetrics
from components.monitoring.performance_gauges import PerformanceGauges
from components.monitoring.prediction_log import BATCH_PREDICTOR, PredictionLog
from components.monitoring.spool import Spool, SpooledEvent
from components.monitoring.windows import EPOCH, Closed, ClosedWindows, Window, closable, lost_events

logger = logging.getLogger("crispline.sidecar")
_LONGEST_PAUSE_SECONDS = 30.0
_LOOK_AGAIN_SECONDS = 30.0  # an idle replica looks at the log all the same: the one that filled it may be gone
_FILES_A_DAY = 64  # a day with more files than that is compacted after a move
_HELD_RELEASES = 4


@dataclass
class Worker:
    """Runs in a thread of its own. What fails is logged, counted and tried again; nothing is taken from the spool before it is in the log."""

    usecase: LoadedUseCase
    platform: Platform
    spool: Spool
    folder: Path
    metrics: SidecarMetrics
    outbox: AlertOutbox
    move_seconds: float
    origin: datetime = EPOCH
    latest: datetime | None = field(default=None, init=False)
    closed_until: datetime | None = field(default=None, init=False)
    _settled: bool = field(default=True, init=False)
    _look_again: float = field(default=0.0, init=False)
    _read_again: float = field(default=0.0, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _detectors: dict[str, DetectorSet | str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.log = PredictionLog(self.platform.prediction_log_uri)
        self.records = RecordStore(self.platform.records_uri)
        self.closed = ClosedWindows(self.platform.prediction_log_uri, self.usecase.name)
        self.performance = PerformanceGauges(self.usecase.name, self.records, self.metrics.registry)
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Move what is spooled, then end; what is cut short is repeated by the next process."""
        self._stop.set()
        self._thread.join(timeout_seconds)

    @property
    def settled(self) -> bool:
        """Whether all that was acknowledged is in the log and every window that could be closed is closed."""
        return self._settled and self.spool.pending == 0

    def move(self) -> None:
        """Segment by segment: parse, append to the log, set poisoned payloads aside, then remove the segment."""
        for segment in self.spool.seal():
            self._settled = False
            days = self._move_segment(segment)
            self.spool.remove(segment)
            for day in days:
                if len(self.log.files(self.usecase.name, day)) > _FILES_A_DAY:
                    self.log.compact(self.usecase.name, day)

    def close_windows(self) -> None:
        """Close every window that lies before the watermark: verdicts, records, alerts, and the marker last."""
        if self._settled and time.monotonic() < self._look_again:
            return
        self._look_again = time.monotonic() + _LOOK_AGAIN_SECONDS
        name, monitoring = self.usecase.name, self.usecase.config.monitoring
        self.latest = self.log.latest(name)
        if self.latest is None:
            return
        for window in closable(self.log.days(name), self.latest, monitoring.window, monitoring.lateness, self.origin):
            if self.closed.get(window) is None:
                self._close(window, self.latest)
            self.closed_until = max(self.closed_until or window.end, window.end)

    def read_performance(self) -> None:
        """Show what the monitoring pipeline has assessed meanwhile."""
        if time.monotonic() >= self._read_again:
            self._read_again = time.monotonic() + _LOOK_AGAIN_SECONDS
            self.performance.refresh()

    def _run(self) -> None:
        self._settled = False  # an earlier process may have left work
        failures, warm = 0, False
        while True:
            last = self._stop.is_set()
            works: list[tuple[str, Callable[[], object]]] = [("move", self.move)]
            works += [] if last else [("close_windows", self.close_windows), ("send_alerts", self.outbox.send), ("read_performance", self.read_performance)]
            if self.latest is not None and not warm:  # rows have come, so a window will close
                warm = self._attempt("warm_up", lambda: warm_up(detector.kind for detector in self.usecase.config.monitoring.detectors))
            failed = [work for work, function in works if not self._attempt(work, function)]
            failures = failures + 1 if failed else 0
            if last:
                return
            self._settled = not failed
            self._stop.wait(min(self.move_seconds * 2 ** min(failures, 10), _LONGEST_PAUSE_SECONDS))

    def _attempt(self, work: str, function: Callable[[], object]) -> bool:
        try:
            function()
        except Exception:
            logger.exception("%s failed and is tried again", work)
            self.metrics.failed(work)
            return False
        return True

    def _move_segment(self, segment: Path) -> set[date]:
        arrived = datetime.fromtimestamp(segment.stat().st_mtime, UTC)
        by_event: list[tuple[SpooledEvent, list[LoggedPrediction]]] = []
        for event in self.spool.read(segment):
            try:
                if event.type == "feedback":
                    self._store_feedback(event)
                else:
                    by_event.append((event, predictions_of(event, self.usecase.name, arrived)))
            except NotOurs as error:
                self.metrics.ignored(error.reason)
            except (PoisonedEvent, InvalidData) as error:
                self._set_aside(event, str(error))
        try:
            written = self.log.append_new([row for _, rows in by_event for row in rows])
        except InvalidData:
            written = []
            for event, rows in by_event:
                try:
                    written += self.log.append_new(rows)
                except InvalidData as error:
                    self._set_aside(event, str(error))
        self.metrics.logged(len(written))
        self._record_late(written)
        return {row.prediction_moment.astimezone(UTC).date() for row in written}

    def _store_feedback(self, event: SpooledEvent) -> None:
        labels, words = parse_seldon_feedback(feedback_of(event))
        if labels:
            store_labels(self.platform.labels_uri, self.usecase.config, labels)
        for word in words:
            store_feedback(self.platform.labels_uri, self.usecase.name, word)

    def _set_aside(self, event: SpooledEvent, reason: str) -> None:
        """Keep the payload for a person, under the hash of its content, and go on with the rest."""
        self.metrics.poisoned()
        logger.warning("event %s is set aside: %s", event.id, reason)
        line = event.line()
        write_atomically(self.folder / "poison" / f"{hashlib.sha256(line).hexdigest()[:32]}.json", json.dumps({"reason": reason, **json.loads(line)}).encode())

    def _record_late(self, rows: list[LoggedPrediction]) -> None:
        by_window: dict[Window, list[str]] = defaultdict(list)
        for row in rows:
            if row.predictor != BATCH_PREDICTOR:
                by_window[Window.of(row.prediction_moment, self.usecase.config.monitoring.window, self.origin)].append(row.id)
        for window, ids in by_window.items():
            if self.closed.get(window) is not None:
                self.closed.record_late(window, ids)
                self.metrics.late(len(ids))

    def _close(self, window: Window, latest: datetime) -> None:
        name, monitoring = self.usecase.name, self.usecase.config.monitoring
        rows = self.log.read(name, window.start, window.end)
        rows = rows[rows["predictor"] != BATCH_PREDICTOR]
        answers = self.log.answers(name, window.start - monitoring.window, latest)
        before = self.closed.before(window)
        lost, numbers = lost_events(answers[answers["predictor"] != BATCH_PREDICTOR], window, before.last_number if before else {})
        drifts: list[WindowDrift] = []
        for version, group in rows.groupby("model_version", sort=True):
            drifts.append(judge_window(name, monitoring, window, group, self._detectors_of(str(group["release"].iloc[-1])), lost.get(str(version))))
        for drift in drifts:
            for alert in alerts_of(drift, monitoring):
                stored = store_once(self.records, alert_record(alert))
                self.outbox.put(type(alert).model_validate(stored.details["alert"]))
                self.metrics.alert(alert.kind)
            for record in check_records(drift, monitoring):
                store_once(self.records, record)
            save_drift(drift, self.closed)
        self.closed.close(
            Closed(
                window_start=window.start,
                window_end=window.end,
                watermark=latest - monitoring.lateness,
                rows=len(rows),
                models=tuple(drift.model_version for drift in drifts),
                last_number=numbers,
            )
        )
        self.metrics.window_closed(window.end.timestamp(), drifts)
        logger.info("window %s closed: %d rows, models %s", window.start.isoformat(), len(rows), [drift.model_version for drift in drifts])

    def _detectors_of(self, release: str) -> DetectorSet | str:
        """The detectors that came with a release, or why there are none. Raises what a restart or a store that is back would mend."""
        from components.deployment.bundle import fetch_bundle

        if release not in self._detectors:
            try:
                folder = self.folder / "releases" / release
                fetch_bundle(self.platform.bundles_uri, release, folder)
                found: DetectorSet | str = DetectorSet.load(folder / "detectors")
            except CrisplineError as error:
                found = f"release {release[:12]} has no usable detectors: {error}"
            while len(self._detectors) >= _HELD_RELEASES:
                self._detectors.pop(next(iter(self._detectors)))
            self._detectors[release] = found
        return self._detectors[release]
