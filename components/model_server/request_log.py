"""The request logger of Seldon's executor 1.19, rebuilt: one POST per payload, CloudEvents 1.0 in binary mode, lossy by design.

A queue of 10,000 and ten workers, no batching, no retry, no time-out: a sink that is down loses events, one that hangs pins the workers.
The losses are counted here; that they are noticed at all is the numbering's work (see components.model_server.numbering).
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from prometheus_client import CollectorRegistry, Counter, Gauge

from components.contracts.durations import format_moment

QUEUE_SIZE = 10_000
WORKERS = 10


@dataclass(frozen=True)
class EventSource:
    """What every event says of its origin. `predictor` becomes ce-endpoint, which separates champion, canary and shadow."""

    model: str
    deployment: str
    namespace: str
    predictor: str
    source: str


@dataclass(frozen=True)
class Event:
    headers: dict[str, str]
    body: bytes


def cloud_event(origin: EventSource, kind: str, request_id: str, body: bytes, content_type: str) -> Event:
    """An event as the executor sends it: `kind` is one of components.contracts.events.INFERENCE_*; the body is the raw payload."""
    headers = {
        "content-type": content_type or "application/json",
        "ce-specversion": "1.0",
        "ce-id": str(uuid.uuid4()),
        "ce-time": format_moment(datetime.now(UTC)),
        "ce-type": kind,
        "ce-source": origin.source,
        "ce-requestid": request_id,
        "ce-modelid": origin.model,
        "ce-inferenceservicename": origin.deployment,
        "ce-namespace": origin.namespace,
        "ce-endpoint": origin.predictor,
    }
    return Event(headers, body)


class RequestLog:
    """Sends events to `sink` in the background. An empty sink sends nothing (no logger configured)."""

    def __init__(self, sink: str, registry: CollectorRegistry) -> None:
        self._sink = sink
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_SIZE)
        self._tasks: list[asyncio.Task[None]] = []
        self._client = httpx.AsyncClient(timeout=None, trust_env=False, limits=httpx.Limits(max_connections=WORKERS))  # noqa: S113
        self._sent = Counter("crispline_forwarder_events_sent", "Events that the sink accepted", registry=registry)
        self._lost = Counter("crispline_forwarder_events_lost", "Events that reached no sink", ["reason"], registry=registry)
        waiting = Gauge("crispline_forwarder_events_waiting", "Events in the queue", registry=registry)
        waiting.set_function(self._queue.qsize)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name=f"request-log-{number}") for number in range(WORKERS)] if self._sink else []

    def offer(self, event: Event) -> None:
        """Queue an event; a full queue loses it. Never waits: logging must not hold up a prediction."""
        if not self._sink:
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._lost.labels("queue_full").inc()

    async def close(self, seconds: float) -> None:
        """Wait at most `seconds` for the queue to empty, then give up what is left."""
        if self._tasks:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._queue.join(), seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _work(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                answer = await self._client.post(self._sink, content=event.body, headers=event.headers)
                if answer.is_success:
                    self._sent.inc()
                else:
                    self._lost.labels(f"status_{answer.status_code}").inc()
            except httpx.HTTPError:
                self._lost.labels("unreachable").inc()
            finally:
                self._queue.task_done()
