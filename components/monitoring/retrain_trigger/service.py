"""The trigger over HTTP: events in, decisions out. An event is stored durably before it is acknowledged; a thread works on what is stored."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import get_args

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError
from components.monitoring.retrain_trigger.claims import StoreUnavailable
from components.monitoring.retrain_trigger.cloudevents import NotAnEvent, parse_event
from components.monitoring.retrain_trigger.policy import Outcome
from components.monitoring.retrain_trigger.trigger import POLL_SECONDS, Trigger

_log = logging.getLogger("crispline.retrain_trigger")
MAXIMUM_BODY_BYTES = 1 << 20  # an alert over a thousand features is a tenth of it
# A round of work waits for other services, each call with a time-out of its own, a Git fetch with the longest: minutes are not yet a hang.
STALLED_SECONDS = 900.0
RETRY_AFTER_SECONDS = 5


def create_app(trigger: Trigger, poll_seconds: float = POLL_SECONDS) -> Starlette:
    """POST /events, GET /decisions/{cause}, GET /healthz (with the store), GET /livez (this process alone), GET /metrics."""
    woken = threading.Event()
    worker = Worker(trigger, woken, poll_seconds)

    async def events(request: Request) -> Response:
        body = await _body(request)
        try:
            event = parse_event(request.headers, body)
        except NotAnEvent as error:
            return _refusal(error.status, str(error))
        try:
            new = await run_in_threadpool(trigger.receive, event)
        except StoreUnavailable:
            raise
        except CrisplineError as error:
            return _refusal(422, str(error))
        woken.set()
        return JSONResponse({"id": event.id, "duplicate": not new}, status_code=202)

    async def decision(request: Request) -> Response:
        found = await run_in_threadpool(trigger.store.decision, request.path_params["cause"])
        if found is None:
            return _refusal(404, f"cause {request.path_params['cause']} is not decided (yet)")
        return JSONResponse(asdict(found) | {"event_time": format_moment(found.event_time)})

    async def healthz(_: Request) -> Response:
        counts = await run_in_threadpool(trigger.store.count)
        state = "suspended" if trigger.suspended else "ok"
        return JSONResponse({"status": state, "usecase": trigger.config.name, "run_mode": trigger.config.retraining.run_mode, **counts})

    async def livez(_: Request) -> Response:
        idle = worker.seconds_since_round()
        return _refusal(503, f"no round of work has ended for {idle:.0f} s") if idle > STALLED_SECONDS else JSONResponse({"status": "ok"})

    async def metrics(_: Request) -> Response:
        # Every outcome from the start: an increase from nothing would not be seen.
        counts = {f"decision_{outcome}": 0 for outcome in get_args(Outcome)} | dict(await run_in_threadpool(trigger.store.count))
        counts["suspended"] = int(trigger.suspended)
        return PlainTextResponse(
            "".join(f"# TYPE crispline_trigger_{name} gauge\ncrispline_trigger_{name} {number}\n" for name, number in counts.items()),
            media_type="text/plain; version=0.0.4",
        )

    async def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _refusal(error.status_code, error.detail)

    async def unavailable(_: Request, error: Exception) -> Response:
        _log.error("%s", error)
        answer = _refusal(503, str(error))
        answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return answer

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with worker.working():
            yield

    routes = [
        Route("/events", events, methods=["POST"]),
        Route("/decisions/{cause}", decision),
        Route("/healthz", healthz),
        Route("/livez", livez),
        Route("/metrics", metrics),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refuse, StoreUnavailable: unavailable})


async def _body(request: Request) -> bytes:
    """The body, read no further than its limit."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAXIMUM_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAXIMUM_BODY_BYTES} bytes")
    return body


class Worker:
    """The thread that works on what is stored: when woken, and every `poll_seconds`."""

    def __init__(self, trigger: Trigger, woken: threading.Event, poll_seconds: float) -> None:
        self._trigger, self._woken, self._poll_seconds = trigger, woken, poll_seconds
        self._stopped = threading.Event()
        self._round_ended = time.monotonic()

    def seconds_since_round(self) -> float:
        return time.monotonic() - self._round_ended

    @contextmanager
    def working(self) -> Iterator[None]:
        thread = threading.Thread(target=self._work, name="retrain-trigger", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._woken.set()
            thread.join(timeout=30)

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                self._trigger.work()
            except Exception:
                _log.exception("the trigger could not work and tries again in %g s", self._poll_seconds)
            self._round_ended = time.monotonic()
            self._woken.wait(self._poll_seconds)
            self._woken.clear()


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
