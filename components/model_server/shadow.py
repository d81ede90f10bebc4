"""Copies of requests for a shadow: another predictor that gets what the champion gets, and whose answers nobody waits for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
from prometheus_client import CollectorRegistry, Counter

QUEUE_SIZE = 1_000
WORKERS = 4


@dataclass(frozen=True)
class Copy:
    headers: dict[str, str]
    body: bytes


class Shadow:
    """Posts copies to `url` in the background, once each. An empty url copies nothing. What finds no place is lost and counted."""

    def __init__(self, url: str, registry: CollectorRegistry, timeout_seconds: float = 10.0) -> None:
        self._url = url.rstrip("/") + "/api/v1.0/predictions" if url else ""
        self._queue: asyncio.Queue[Copy] = asyncio.Queue(QUEUE_SIZE)
        self._tasks: list[asyncio.Task[None]] = []
        self._client = httpx.AsyncClient(timeout=timeout_seconds, trust_env=False, limits=httpx.Limits(max_connections=WORKERS, keepalive_expiry=5))
        self._copies = Counter("crispline_forwarder_shadow_copies", "Requests copied to the shadow", ["outcome"], registry=registry)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name=f"shadow-{number}") for number in range(WORKERS)] if self._url else []

    def offer(self, headers: dict[str, str], body: bytes) -> None:
        """Queue a copy; never waits, since a shadow must not hold up a prediction."""
        if not self._url:
            return
        try:
            self._queue.put_nowait(Copy(headers, body))
        except asyncio.QueueFull:
            self._copies.labels("queue_full").inc()

    async def close(self) -> None:
        """Give up what is left: a copy is worth nothing to anybody who waits."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _work(self) -> None:
        while True:
            copy = await self._queue.get()
            try:
                answer = await self._client.post(self._url, content=copy.body, headers=copy.headers)
                self._copies.labels("answered" if answer.is_success else f"status_{answer.status_code}").inc()
            except httpx.HTTPError:
                self._copies.labels("unreachable").inc()
