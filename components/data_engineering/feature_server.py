"""Feast's own feature server as a process: `python -m components.data_engineering.feature_server --port 6566`.

Reads the platform from CRISPLINE_PLATFORM and answers `POST /get-online-features` and `GET /health` on the loopback interface. It writes
nothing: Feast's own routes that do are left out. A view that was registered after the start is found within a few times `REGISTRY_SECONDS`.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform

if TYPE_CHECKING:
    from fastapi import FastAPI
    from feast import FeatureStore
    from feast import FeatureView as FeastView
    from starlette.requests import Request
    from starlette.responses import Response

REGISTRY_SECONDS = 2.0
DEFAULT_PORT = 6566
_ROUTES = ("/get-online-features", "/health")

logger = logging.getLogger(__name__)


def feature_server_app(platform: Platform, allow_empty: bool = False) -> FastAPI:
    """Feast's FastAPI application over the online store of `platform`.

    Raises CrisplineError when nothing was registered yet, unless `allow_empty`: then every lookup is answered 404 until something was.
    """
    from feast.errors import FeastError
    from feast.feature_server import get_app

    from components.data_engineering.feature_repository import online_store

    store = online_store(platform, cache_ttl_seconds=0)
    if not allow_empty and not store.list_feature_views():
        raise CrisplineError(
            f"the feature registry under {platform.feature_store_uri} is empty; materialise features first: crispline step data_engineering.materialise"
        )
    app: FastAPI = get_app(store, registry_ttl_sec=0)
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") in _ROUTES]
    for error in (FeastError, KeyError, TypeError, ValueError):
        app.add_exception_handler(error, _refused)
    warm = _look_up_nobody(store)
    threading.Thread(target=_follow_registry, args=(store, platform, warm), name="registry", daemon=True).start()
    return app


async def _refused(_: Request, error: Exception) -> Response:
    """What is wrong with a request, as its client's fault. Feast answers a missing key or text for a number 500, and closes the connection after every
    refusal, on which its client may already have sent the next request."""
    from feast.errors import FeastError
    from starlette.responses import JSONResponse

    status = error.http_status_code() if isinstance(error, FeastError) else 422
    logger.warning("a lookup is refused: %s: %s", type(error).__name__, error)
    return JSONResponse({"detail": str(error)}, status_code=status)


def lookup_of_nobody(view: FeastView) -> tuple[str, dict[str, object]]:
    """A feature of a view, as `<view>:<feature>`, and values of its join keys that no row has."""
    keys: dict[str, object] = {column.name: 0 if "int" in str(column.dtype).lower() else "nobody" for column in view.entity_columns}
    return f"{view.name}:{view.features[0].name}", keys


def _look_up_nobody(store: FeatureStore) -> bool:
    """One lookup, if there is a view: Feast imports its online stores in the first one, which takes longer than a model server waits."""
    views = store.list_feature_views(allow_cache=True)
    if not views:
        return False
    feature, keys = lookup_of_nobody(views[0])
    try:
        store.get_online_features(features=[feature], entity_rows=[keys])
    except Exception as error:
        logger.warning("the online store does not answer: %s: %s", type(error).__name__, error)
    return True


def _follow_registry(store: FeatureStore, platform: Platform, warm: bool) -> None:
    """Read the registry again and again, beside the requests: Feast would do so in one of them, under a lock, and an object store that is slow or
    away would hold up every answer. While it is away, the registry that was read last is served on."""
    from feast.repo_config import RegistryConfig

    from components.data_engineering.feature_repository import registry_uri
    from components.data_engineering.registry_store import WholeRegistryStore

    source = WholeRegistryStore(RegistryConfig(path=registry_uri(platform)))
    while True:
        time.sleep(REGISTRY_SECONDS)
        try:
            store.registry.cached_registry_proto = source.get_registry_proto()  # type: ignore[attr-defined]
            warm = warm or _look_up_nobody(store)
        except Exception as error:
            logger.warning("the feature registry cannot be read and is tried again: %s: %s", type(error).__name__, error)


def serve(platform: Platform, port: int, host: str = "127.0.0.1", allow_empty: bool = False) -> None:
    """Answer until SIGTERM or SIGINT; requests under way are finished first."""
    import uvicorn

    # uvicorn raises the signal again after its orderly stop; without a handler the process would end as if it had been killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    uvicorn.run(feature_server_app(platform, allow_empty), host=host, port=port, access_log=False, log_level="warning", timeout_graceful_shutdown=10)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="feature_server", description="Serve online features over HTTP from Feast.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: loopback only)")
    parser.add_argument("--allow-empty", action="store_true", help="start although nothing was materialised yet; lookups are answered 404 until then")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    try:
        serve(Platform.load(), chosen.port, chosen.host, chosen.allow_empty)
    except CrisplineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
