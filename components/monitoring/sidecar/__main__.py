"""`python -m components.monitoring.sidecar --port N --spool DIR --usecase NAME`; the platform's places come from CRISPLINE_PLATFORM."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
import time
from pathlib import Path

import uvicorn

from components.contracts.durations import parse_moment
from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.monitoring.alert_outbox import AlertOutbox
from components.monitoring.metrics import SidecarMetrics
from components.monitoring.sidecar.app import build_app
from components.monitoring.sidecar.worker import Worker
from components.monitoring.spool import Spool


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m components.monitoring.sidecar", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1", help="the executor shares the pod, so the loopback address is enough (default %(default)s)")
    parser.add_argument("--spool", type=Path, required=True, help="folder of this replica's own: events not yet in the prediction log, poisoned payloads")
    parser.add_argument("--usecase", required=True)
    parser.add_argument("--deployment", default="", help="ignore events of any other SeldonDeployment than this one")
    parser.add_argument("--trigger-url", default=None, help="where alerts go (default: the platform's trigger_url; empty: they stay in the outbox)")
    parser.add_argument("--origin", default="1970-01-01T00:00:00Z", help="windows start at whole multiples of their length from here (default %(default)s)")
    parser.add_argument("--move-seconds", type=float, default=1.0, help="pause between moves from the spool to the prediction log (default %(default)s)")
    parser.add_argument("--maximum-body-bytes", type=int, default=64 * 1024 * 1024)
    parser.add_argument("--listen-descriptor", type=int, default=None, help="a bound socket that is inherited, in the place of --host and --port")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        usecase, platform = load_usecase(arguments.usecase), Platform.load()
        trigger_url = platform.trigger_url if arguments.trigger_url is None else arguments.trigger_url
        worker = Worker(
            usecase=usecase,
            platform=platform,
            spool=Spool(arguments.spool / "segments"),
            folder=arguments.spool,
            metrics=SidecarMetrics(usecase.name),
            outbox=AlertOutbox(f"{platform.prediction_log_uri}/{usecase.name}/outbox", trigger_url, time.monotonic),
            move_seconds=arguments.move_seconds,
            origin=parse_moment(arguments.origin),
        )
    except CrisplineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)  # uvicorn shuts down, then raises the signal again for the handler that it found
    app = build_app(worker, arguments.deployment, arguments.maximum_body_bytes)
    config = uvicorn.Config(app, host=arguments.host, port=arguments.port, access_log=False, log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    server.run(sockets=None if arguments.listen_descriptor is None else [socket.socket(fileno=arguments.listen_descriptor)])
    return 0 if server.started else 1


def _end(number: int, _: object) -> None:
    raise SystemExit(0 if number == signal.SIGTERM else 130)


if __name__ == "__main__":
    sys.exit(main())
