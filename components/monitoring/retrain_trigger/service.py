"""The trigger over HTTP: events in, decisions out. An event is on disk before it is acknowledged; a thread works on what is on disk."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError
from components.monitoring.retrain_trigger.cloudevents import NotAnEvent, parse_event
from components.monitoring.retrain_trigger.trigger import Trigger

_log = logging.getLogger("crispline.retrain_trigger")
MAXIMUM_BODY_BYTES = 1 << 20  # an alert over a thousand features is a tenth of it
POLL_SECONDS = 1.0  # how soon a run's end or an expired lease is noticed


def create_app(trigger: Trigger, poll_seconds: float = POLL_SECONDS) -> Starlette:
    """POST /events, GET /decisions/{cause}, GET /healthz, GET /metrics."""
    woken = threading.Event()

    async def events(request: Request) -> Response:
        body = await _body(request)
        try:
            event = parse_event(request.headers, body)
        except NotAnEvent as error:
            return _refusal(error.status, str(error))
        try:
            new = await run_in_threadpool(trigger.receive, event)
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
        return JSONResponse({"status": "ok", "usecase": trigger.config.name, **await run_in_threadpool(trigger.store.count)})

    async def metrics(_: Request) -> Response:
        counts = await run_in_threadpool(trigger.store.count)
        return PlainTextResponse(
            "".join(f"# TYPE crispline_trigger_{name} gauge\ncrispline_trigger_{name} {number}\n" for name, number in counts.items()),
            media_type="text/plain; version=0.0.4",
        )

    async def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _refusal(error.status_code, error.detail)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with _working(trigger, woken, poll_seconds):
            yield

    routes = [
        Route("/events", events, methods=["POST"]),
        Route("/decisions/{cause}", decision),
        Route("/healthz", healthz),
        Route("/metrics", metrics),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refuse})


async def _body(request: Request) -> bytes:
    """The body, read no further than its limit."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAXIMUM_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAXIMUM_BODY_BYTES} bytes")
    return body


@contextmanager
def _working(trigger: Trigger, woken: threading.Event, poll_seconds: float) -> Iterator[None]:
    stopped = threading.Event()

    def loop() -> None:
        while not stopped.is_set():
            try:
                trigger.work()
            except Exception:
                _log.exception("the trigger could not work and tries again in %g s", poll_seconds)
            woken.wait(poll_seconds)
            woken.clear()

    thread = threading.Thread(target=loop, name="retrain-trigger", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        woken.set()
        thread.join(timeout=30)


def _refusal(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
