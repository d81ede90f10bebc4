"""Alerts leave by an outbox on disk or an object store: written before anything else says that they exist, sent until the trigger has accepted them.

Every replica sees the same outbox and an alert's id is the same everywhere, so the receiver may get one several times and must know its id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from upath import UPath

from components.contracts.durations import format_moment
from components.contracts.events import ALERT, Alert
from components.contracts.storage import create_atomically, read_folder, remove, storage_path, write_atomically

_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.5, 60.0


@dataclass
class AlertOutbox:
    """`<uri>/pending/<id>.json` until accepted, then `<uri>/sent/<id>.json`. `clock`: seconds of a monotonic clock, for the back-off."""

    uri: str
    trigger_url: str
    clock: Callable[[], float]
    timeout_seconds: float = 5.0
    failures: int = 0
    _not_before: float = field(default=0.0, init=False)

    def put(self, alert: Alert) -> None:
        """Idempotent by the alert's id; an alert that was sent is not sent again."""
        if not self._path("sent", alert.id).exists():
            create_atomically(self._path("pending", alert.id), alert.model_dump_json(indent=1).encode())

    def pending(self) -> list[Alert]:
        """In order of window and id."""
        found = read_folder(storage_path(self.uri) / "pending", lambda name: name.endswith(".json"))  # what another replica sends meanwhile is left out
        alerts = [Alert.model_validate_json(content) for content in found.values()]
        return sorted(alerts, key=lambda alert: (alert.window_start, alert.id))

    def send(self) -> int:
        """Send what is pending, in order; return how many were accepted. Waits longer after each failure; without a trigger nothing is sent."""
        if not self.trigger_url or self.clock() < self._not_before:
            return 0
        sent = 0
        for alert in self.pending():
            if not self._post(alert):
                self.failures += 1
                self._not_before = self.clock() + min(_FIRST_DELAY_SECONDS * 2 ** min(self.failures - 1, 10), _LONGEST_DELAY_SECONDS)
                return sent
            write_atomically(self._path("sent", alert.id), alert.model_dump_json(indent=1).encode())
            remove(self._path("pending", alert.id))
            self.failures = 0
            sent += 1
        return sent

    def _post(self, alert: Alert) -> bool:
        try:
            return httpx.post(
                self.trigger_url, content=alert.model_dump_json().encode(), headers=cloud_event_headers(alert), timeout=self.timeout_seconds
            ).is_success
        except httpx.HTTPError:
            return False

    def _path(self, state: str, id: str) -> UPath:
        return storage_path(self.uri) / state / f"{id}.json"


def cloud_event_headers(alert: Alert) -> dict[str, str]:
    """CloudEvents 1.0, binary mode. `ce-time` is business time: the end of the alert's window."""
    return {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": alert.id,
        "ce-type": ALERT,
        "ce-source": f"crispline/{alert.usecase}/sidecar",
        "ce-subject": alert.detector,
        "ce-time": format_moment(alert.window_end),
    }
