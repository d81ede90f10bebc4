"""Wait, in wall time, until the asynchronous parts have come to rest at one business moment; what is decided does not depend on the wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import httpx

from components.contracts.durations import parse_moment
from components.contracts.errors import CrisplineError

TIMEOUT_SECONDS = 300.0
_POLL_SECONDS = 0.05


def wait_until(done: Callable[[], bool], what: str, still_alive: Callable[[], None]) -> None:
    """Poll `done`; `still_alive` raises when a service has ended. Raises CrisplineError naming `what` after the time-out."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    checked = time.monotonic()
    while not done():
        if time.monotonic() > deadline:
            raise CrisplineError(f"{what} did not come to rest within {TIMEOUT_SECONDS:.0f} s")
        if time.monotonic() - checked > 1.0:
            still_alive()
            checked = time.monotonic()
        time.sleep(_POLL_SECONDS)


def sidecar_is_settled(client: httpx.Client, url: str, closed: datetime) -> bool:
    """All events are in the prediction log, the windows up to `closed` are judged, all alerts are accepted."""
    status = client.get(f"{url}/status", timeout=10.0).json()
    until = status["closed_until"]
    return bool(status["settled"] and status["spooled"] == 0 and status["alerts_pending"] == 0 and until is not None and parse_moment(until) >= closed)


def trigger_is_idle(client: httpx.Client, url: str) -> bool:
    """Every event has its decision, every claim its finished run."""
    status = client.get(f"{url}/healthz", timeout=10.0).json()
    return bool(status["unhandled"] == 0 and status["unfinished_claims"] == 0)
