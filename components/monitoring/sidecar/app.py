"""The sidecar's HTTP side: CloudEvents in, fsynced before the answer; metrics and health out. Decisions are made elsewhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from components.contracts.durations import format_moment
from components.monitoring.event_intake import NotOurs, PoisonedEvent, read_envelope
from components.monitoring.sidecar.worker import Worker

logger = logging.getLogger("crispline.sidecar")


class TooLarge(Exception):
    pass


def build_app(worker: Worker, deployment: str, maximum_body_bytes: int) -> Starlette:
    """Routes: POST / (an event), GET /metrics, /health (the port is open), /ready (events can be stored), /status (JSON for people and scripts)."""

    async def receive(request: Request) -> Response:
        try:
            envelope = read_envelope(request.headers, deployment)
        except NotOurs as error:
            worker.metrics.ignored(error.reason)
            return JSONResponse({"ignored": error.reason})
        except PoisonedEvent as error:
            worker.metrics.refused("no_cloud_event")
            return JSONResponse({"error": str(error)}, 400)
        try:
            body = await _body(request, maximum_body_bytes)
        except TooLarge:
            worker.metrics.refused("too_large")
            return JSONResponse({"error": f"the body is larger than {maximum_body_bytes} bytes"}, 413)
        except ClientDisconnect:
            worker.metrics.refused("disconnected")
            return JSONResponse({"error": "the sender went away"}, 400)
        if envelope.kind != "request":  # a request says nothing that its answer does not; it is counted
            try:
                await asyncio.wrap_future(worker.spool.append(envelope.spooled(body)))
            except OSError as error:
                logger.error("an event could not be stored: %s", error)
                worker.metrics.refused("not_stored")
                return JSONResponse({"error": "the event could not be stored; send it again"}, 503)
        worker.metrics.event(envelope.kind)
        return JSONResponse({"accepted": envelope.id})

    async def metrics(_: Request) -> Response:
        pending = await asyncio.to_thread(lambda: len(worker.outbox.pending()))
        return Response(worker.metrics.exposition(worker.spool.pending, pending), media_type="text/plain; version=0.0.4")

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "up"})

    async def status(_: Request) -> Response:
        return JSONResponse(
            {
                "usecase": worker.usecase.name,
                "settled": worker.settled,
                "spooled": worker.spool.pending,
                "latest": format_moment(worker.latest) if worker.latest else None,
                "closed_until": format_moment(worker.closed_until) if worker.closed_until else None,
                "alerts_pending": await asyncio.to_thread(lambda: len(worker.outbox.pending())),
            }
        )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.stop)
        worker.spool.close()

    routes = [
        Route("/", receive, methods=["POST"]),
        Route("/metrics", metrics),
        Route("/health", health),
        Route("/ready", health),
        Route("/status", status),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


async def _body(request: Request, maximum: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > maximum:
            raise TooLarge
        parts.append(part)
    return b"".join(parts)
