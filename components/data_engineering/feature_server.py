"""Feast's own feature server as a process: `python -m components.data_engineering.feature_server --port 6566`.

Reads the platform from CRISPLINE_PLATFORM and answers `POST /get-online-features` and `GET /health` on the loopback interface. It writes
nothing; a view that was registered after the start is found within `REGISTRY_TTL` seconds.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from typing import TYPE_CHECKING

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform

if TYPE_CHECKING:
    from fastapi import FastAPI

REGISTRY_TTL = 2
DEFAULT_PORT = 6566


def feature_server_app(platform: Platform) -> FastAPI:
    """Feast's FastAPI application over the online store of `platform`.

    Raises CrisplineError when nothing was registered yet: an empty registry cannot answer anything.
    """
    from feast.feature_server import get_app

    from components.data_engineering.feature_repository import online_store

    store = online_store(platform, cache_ttl_seconds=REGISTRY_TTL)
    if not store.list_feature_views():
        raise CrisplineError(
            f"the feature registry under {platform.feature_store_uri} is empty; materialise features first: crispline step data_engineering.materialise"
        )
    app: FastAPI = get_app(store, registry_ttl_sec=REGISTRY_TTL)
    return app


def serve(platform: Platform, port: int, host: str = "127.0.0.1") -> None:
    """Answer until SIGTERM or SIGINT; requests under way are finished first."""
    import uvicorn

    # uvicorn raises the signal again after its orderly stop; without a handler the process would end as if it had been killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    uvicorn.run(feature_server_app(platform), host=host, port=port, access_log=False, log_level="warning", timeout_graceful_shutdown=10)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="feature_server", description="Serve online features over HTTP from Feast.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: loopback only)")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    try:
        serve(Platform.load(), chosen.port, chosen.host)
    except CrisplineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
