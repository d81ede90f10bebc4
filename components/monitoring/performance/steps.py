"""The steps of live performance at their edges: platform, files and the trigger's endpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pydantic import TypeAdapter

from components.contracts.durations import parse_moment
from components.contracts.errors import CrisplineError
from components.contracts.events import PERFORMANCE, Performance
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.monitoring.performance.assess import Window, assess_window, due_windows

FOUND = TypeAdapter(list[Performance])
_ATTEMPTS, _TIMEOUT_SECONDS, _FIRST_PAUSE_SECONDS = 6, 10.0, 0.25


def assess(usecase: str, window_start: str, window_end: str, as_of: str, path: str) -> str:
    """Write what was found to `path`; return below, held or no_data. Raises CrisplineError for half a window."""
    loaded, platform, moment = load_usecase(usecase), Platform.load(), parse_moment(as_of)
    if bool(window_start) != bool(window_end):
        raise CrisplineError("give both window_start and window_end, or neither for all windows that are due")
    windows = [Window(parse_moment(window_start), parse_moment(window_end), "asked")] if window_start else due_windows(loaded, platform, moment)
    found = [one for window in windows for one in assess_window(loaded, platform, window.start, window.end, moment)]
    Path(path).write_bytes(FOUND.dump_json(found, indent=1))
    if not found:
        return "no_data"
    return "below" if any(one.high < one.threshold for one in found) else "held"


def emit(usecase: str, path: str) -> str:
    """Post what `assess` found. Raises CrisplineError when the trigger did not take an event; the step can then be run again: it knows duplicates."""
    found = FOUND.validate_json(Path(path).read_bytes())
    trigger = Platform.load().trigger_url
    if not trigger:
        return "0"
    for one in found:
        post_event(trigger, PERFORMANCE, one.id, f"crispline/monitoring/{usecase}", one.model_dump_json())
    return str(len(found))


def post_event(url: str, kind: str, id: str, source: str, body: str, sleep: Callable[[float], None] = time.sleep) -> None:
    """POST one CloudEvent (binary mode) to the trigger's endpoint for events, again after a growing pause when the trigger is away or overloaded.

    Raises CrisplineError when it refuses the event or stays away.
    """
    import httpx

    headers = {"ce-id": id, "ce-source": source, "ce-type": kind, "ce-specversion": "1.0", "content-type": "application/json"}
    last = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
        try:
            answer = httpx.post(url, content=body, headers=headers, timeout=_TIMEOUT_SECONDS)
        except httpx.TransportError as error:
            last = f"{type(error).__name__}: {error}"
            continue
        if answer.status_code == 202:
            return
        last = f"{answer.status_code} {answer.text[:300]}"
        if answer.status_code < 500 and answer.status_code != 429:
            break
    raise CrisplineError(f"the trigger at {url} did not take event {id}: {last}\n    remedy: see its log; emitting again is harmless")
