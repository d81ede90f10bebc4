"""The controller as a process that answers probes: GET /livez, GET /metrics. A thread does the rounds."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from components.contracts.durations import format_moment
from components.deployment.canary.controller import Controller

_log = logging.getLogger("crispline.canary")
_SILENT_SECONDS = 600.0  # a round reads Git and the log over the network, each with a time-out of its own


def create_app(controller: Controller) -> Starlette:
    """The application; its lifespan runs the rounds, and lets one that has begun end."""
    started = datetime.now(UTC)

    async def live(_: Request) -> Response:
        last = controller.finished_round or started
        silent = (datetime.now(UTC) - last).total_seconds()
        body = {
            "last_round": format_moment(last),
            "usecases": {name: {"said": seen.said, "weight": seen.weight} for name, seen in controller.seen.items()},
        }
        return JSONResponse(body, 200 if silent < _SILENT_SECONDS + controller.options.interval_seconds else 503)

    async def metrics(_: Request) -> Response:
        lines = ["# TYPE crispline_canary_last_round_seconds gauge"]
        lines.append(f"crispline_canary_last_round_seconds {(controller.finished_round or started).timestamp():.3f}")
        for name in ("weight", "stage", "look", "rollbacks", "judged"):
            lines.append(f"# TYPE crispline_canary_{name} gauge")
            lines += [f'crispline_canary_{name}{{usecase="{usecase}"}} {int(getattr(seen, name))}' for usecase, seen in controller.seen.items()]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        stopped = threading.Event()
        thread = threading.Thread(target=_rounds, args=(controller, stopped), name="canary", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join(timeout=60)

    return Starlette(routes=[Route("/livez", live), Route("/metrics", metrics)], lifespan=lifespan)


def _rounds(controller: Controller, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            controller.round()
        except Exception:
            _log.exception("the round failed; the next one begins in %g s", controller.options.interval_seconds)
        stopped.wait(controller.options.interval_seconds)
