"""The model server that a forwarder sends to, exchangeable while requests are in flight."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator


class Upstreams:
    """New requests go to `current`; those in flight finish on the one they started on."""

    def __init__(self, current: str) -> None:
        self.current = current.rstrip("/")
        self._in_flight: Counter[str] = Counter()
        self._changed = asyncio.Event()

    @contextlib.contextmanager
    def take(self) -> Iterator[str]:
        """The URL to send one request to; counted as in flight until the block ends."""
        url = self.current
        self._in_flight[url] += 1
        try:
            yield url
        finally:
            self._in_flight[url] -= 1
            self._changed.set()

    def in_flight(self, url: str) -> int:
        return self._in_flight[url]

    async def switch(self, url: str, seconds: float) -> bool:
        """Send new requests to `url` from now on; wait at most `seconds` for the old one to have none in flight. Returns whether it has none."""
        old, self.current = self.current, url.rstrip("/")
        if old == self.current:
            return True
        try:
            async with asyncio.timeout(seconds):
                while self._in_flight[old]:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
