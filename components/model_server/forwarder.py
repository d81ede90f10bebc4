"""Stands where Seldon's executor stands in a pod: takes the client's call, logs it as the executor does, hands it to the model server.

Routes: /api/v1.0/predictions, /api/v1.0/feedback, /ready, /live, /metrics, and, from the same machine only, POST /admin/upstream, which
exchanges the model server without dropping a request: new requests go to the new one at once, the call returns when the old one is idle.

Asked to end, it is a lame duck for a while: it answers as before, is not ready any more, and closes each connection with its answer, so that
clients with a kept-alive connection go elsewhere before the port closes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from types import FrameType

import httpx
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.contracts.events import INFERENCE_FEEDBACK, INFERENCE_REQUEST, INFERENCE_RESPONSE
from components.model_server import errors
from components.model_server.request_log import EventSource, RequestLog, cloud_event
from components.model_server.shadow import Shadow
from components.model_server.statuses import refusal_of, status_of
from components.model_server.upstreams import Upstreams

PUID, SKIP_LOGGING = "Seldon-Puid", "Seldon-Skip-Logging"
_PASSED = ("content-type", "accept")
# Those of Seldon's executor 1.19 (executor/api/metric/constants.go), so that one rule reads both.
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


@dataclass(frozen=True)
class ForwarderOptions:
    """`sink` empty: nothing is logged. `source`: ce-source. `shadow`: URL of the predictor that gets a copy of every request; empty for none.

    Seconds: to wait for an answer, for an old server to be idle, for the log at the end, to be a lame duck.
    """

    host: str
    port: int
    upstream: str
    sink: str
    origin: EventSource
    maximum_body_bytes: int = 16 * 1024 * 1024
    answer_seconds: float = 60.0
    drain_seconds: float = 30.0
    closing_seconds: float = 10.0
    shadow: str = ""
    lame_duck_seconds: float = 0.0


class Forwarder:
    """The application and its state: one event loop, no locks."""

    def __init__(self, options: ForwarderOptions) -> None:
        self._options = options
        self._registry = CollectorRegistry()
        self._answers = Counter("crispline_forwarder_requests", "Calls by route and status", ["route", "status"], registry=self._registry)
        self._seconds = Histogram(
            "crispline_forwarder_seconds",
            "Time to the answer by predictor, route and status",
            ["predictor", "route", "status"],
            buckets=LATENCY_BUCKETS,
            registry=self._registry,
        )
        self._upstreams = Upstreams(options.upstream)
        # Idle connections are given up sooner than the model server closes them (75 s), so none is closed while a request is being written.
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=20)
        self._client = httpx.AsyncClient(timeout=options.answer_seconds, limits=limits, trust_env=False)
        self._log = RequestLog(options.sink, self._registry)
        self._shadow = Shadow(options.shadow, self._registry)
        self.ending = False  # a lame duck

    def app(self) -> ASGIApp:
        return self._closing(self._routed())

    def _closing(self, app: ASGIApp) -> ASGIApp:
        """While ending, every answer closes its connection."""

        async def closing(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_and_close(message: Message) -> None:
                if message["type"] == "http.response.start" and self.ending:
                    message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
                await send(message)

            await app(scope, receive, send_and_close)

        return closing

    def _routed(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/v1.0/predictions", self._predict, methods=["POST"]),
                Route("/api/v1.0/feedback", self._feedback, methods=["POST"]),
                Route("/ready", self._ready),
                Route("/live", self._live),
                Route("/metrics", self._metrics),
                Route("/admin/upstream", self._upstream, methods=["GET", "POST"]),
            ],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _unrouted, errors.RequestRefused: _refused},
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._log.start()
        self._shadow.start()
        yield
        await self._shadow.close()
        await self._log.close(self._options.closing_seconds)
        await self._client.aclose()

    async def _predict(self, request: Request) -> Response:
        logged = SKIP_LOGGING not in request.headers
        puid, body = request.headers.get(PUID) or str(uuid.uuid4()), await self._body(request)
        if logged:
            self._offer(INFERENCE_REQUEST, puid, body, request.headers.get("content-type", ""))
            self._shadow.offer(_passed(request, puid), body)
        answer = await self._pass(request, "/api/v1.0/predictions", puid, body)
        if logged and answer.status_code == 200:
            self._offer(INFERENCE_RESPONSE, puid, bytes(answer.body), answer.headers.get("content-type", ""))
        return answer

    async def _feedback(self, request: Request) -> Response:
        puid, body = request.headers.get(PUID) or str(uuid.uuid4()), await self._body(request)
        if SKIP_LOGGING not in request.headers:
            self._offer(INFERENCE_FEEDBACK, puid, body, request.headers.get("content-type", ""))
        return await self._pass(request, "/send-feedback", puid, body)

    async def _pass(self, request: Request, path: str, puid: str, body: bytes) -> Response:
        began = time.perf_counter()
        with self._upstreams.take() as upstream:
            try:
                answer = await self._client.post(upstream + path, content=body, headers=_passed(request, puid))
            except httpx.HTTPError as error:
                self._count(path, 502, began)
                refusal = errors.UpstreamUnavailable("server", "the model server does not answer", "try again", type(error).__name__)
                return _json(refusal, puid)
        self._count(path, answer.status_code, began)
        return Response(answer.content, answer.status_code, {"content-type": answer.headers.get("content-type", "application/json"), PUID: puid})

    def _count(self, path: str, status: int, began: float) -> None:
        self._answers.labels(path, status).inc()
        self._seconds.labels(self._options.origin.predictor, path, status).observe(time.perf_counter() - began)

    async def _body(self, request: Request) -> bytes:
        """Read on, up to eight times the limit, before refusing: a client that is still writing would see no answer."""
        parts, size, most = [], 0, self._options.maximum_body_bytes
        async for part in request.stream():
            size += len(part)
            if size <= most:
                parts.append(part)
            elif size > 8 * most:
                break
        if size > most:
            raise errors.BodyTooLarge("body", f"is larger than {most} bytes", "send fewer rows at a time")
        return b"".join(parts)

    def _offer(self, kind: str, puid: str, body: bytes, content_type: str) -> None:
        self._log.offer(cloud_event(self._options.origin, kind, puid, body, content_type))

    async def _ready(self, _: Request) -> Response:
        if not self.ending and await self._is_ready(self._upstreams.current):
            return JSONResponse({"ready": True, "upstream": self._upstreams.current})
        return _json(errors.NotReady("server", "the model server is not ready", "wait for /ready"), str(uuid.uuid4()))

    async def _is_ready(self, upstream: str) -> bool:
        try:
            return (await self._client.get(upstream + "/health/ready", timeout=2)).status_code == 200
        except (httpx.HTTPError, httpx.InvalidURL):
            return False

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _upstream(self, request: Request) -> Response:
        """GET: the current one. POST {"upstream"}: exchange it, if the new one is ready (409 otherwise); returns once the old one is idle."""
        if request.client is None or not ip_address(request.client.host).is_loopback:
            raise HTTPException(404)
        if request.method == "GET":
            return JSONResponse({"upstream": self._upstreams.current, "in_flight": self._upstreams.in_flight(self._upstreams.current)})
        try:
            url = (await request.json())["upstream"]
        except (ValueError, KeyError, TypeError) as error:
            raise errors.MissingField("upstream", "is absent", 'send {"upstream": "http://127.0.0.1:9000"}') from error
        if not isinstance(url, str) or not await self._is_ready(url.rstrip("/")):
            return JSONResponse({"upstream": self._upstreams.current, "switched": False, "reason": "the new server is not ready"}, 409)
        drained = await self._upstreams.switch(url, self._options.drain_seconds)
        return JSONResponse({"upstream": self._upstreams.current, "switched": True, "drained": drained})


def _passed(request: Request, puid: str) -> dict[str, str]:
    """Headers that go on with the request."""
    return {name: request.headers[name] for name in _PASSED if name in request.headers} | {PUID: puid}


async def _unrouted(request: Request, error: Exception) -> Response:
    if getattr(error, "status_code", 404) == 405:
        refused: errors.RequestRefused = errors.WrongMethod("method", "is not allowed on this route", "use POST for predictions and feedback", request.method)
    else:
        refused = errors.UnknownRoute("path", "is not served here", "use /api/v1.0/predictions", request.url.path)
    return _json(refused, request.headers.get(PUID) or str(uuid.uuid4()))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.RequestRefused)
    return _json(error, request.headers.get(PUID) or str(uuid.uuid4()))


def _json(error: errors.RequestRefused, puid: str) -> Response:
    return JSONResponse(refusal_of(error, puid).model_dump(), status_of(error), {PUID: puid})


class _Server(uvicorn.Server):
    """uvicorn raises the signal again once it has shut down in order; an orderly end is exit code 0 here, after the time as a lame duck."""

    def __init__(self, config: uvicorn.Config, forwarder: Forwarder, lame_duck_seconds: float) -> None:
        super().__init__(config)
        self._forwarder, self._lame_duck_seconds = forwarder, lame_duck_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, the second one hurries it."""
        if self._lame_duck_seconds <= 0 or self._forwarder.ending:
            super().handle_exit(sig, frame)
            return
        self._forwarder.ending = True
        asyncio.get_running_loop().call_later(self._lame_duck_seconds, super().handle_exit, sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def parse(arguments: Sequence[str]) -> ForwarderOptions:
    parser = argparse.ArgumentParser(prog="components.model_server.forwarder", description="Forward and log predictions as Seldon's executor does.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="URL of the model server")
    parser.add_argument("--sink", default="", help="URL that the events are posted to; without it nothing is logged")
    parser.add_argument("--usecase", required=True, help="ce-inferenceservicename")
    parser.add_argument("--predictor", default="default", help="ce-endpoint")
    parser.add_argument("--model", default="model", help="ce-modelid: name of the graph's node")
    parser.add_argument("--namespace", default=os.environ.get("POD_NAMESPACE", "default"), help="ce-namespace")
    parser.add_argument("--shadow", default="", help="URL of a predictor that gets a copy of every request")
    parser.add_argument(
        "--lame-duck-seconds", type=float, default=0.0, help="how long to go on answering after SIGTERM, closing connections (default %(default)s)"
    )
    given = parser.parse_args(arguments)
    origin = EventSource(given.model, given.usecase, given.namespace, given.predictor, f"http://localhost:{given.port}/")
    return ForwarderOptions(given.host, given.port, given.upstream, given.sink, origin, shadow=given.shadow, lame_duck_seconds=given.lame_duck_seconds)


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    forwarder = Forwarder(options)
    config = uvicorn.Config(
        forwarder.app(),
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(options.drain_seconds),
        access_log=False,
    )
    server = _Server(config, forwarder, options.lame_duck_seconds)
    asyncio.run(server.serve())
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
