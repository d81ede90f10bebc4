"""Runs the Seldon front end under gunicorn: one worker with threads, clean on SIGTERM."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication


@dataclass(frozen=True)
class ServerOptions:
    """`host` and `port` to bind; `skew` None for no limit; `feature_server_url` empty for none; `instance` empty for a new name."""

    release_folder: Path
    host: str
    port: int
    threads: int
    feature_server_url: str
    skew: timedelta | None
    instance: str
    graceful_seconds: int = 30


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn, configured by code. The release is loaded in the worker: a booster should not cross a fork."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "bind": f"{self._options.host}:{self._options.port}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._options.threads,
            # Longer than a client keeps an idle connection, so that it never writes into one that is being closed.
            "keepalive": 75,
            "graceful_timeout": self._options.graceful_seconds,
            "timeout": 60,
            "loglevel": "warning",
            "proc_name": "crispline-model-server",
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        from components.contracts.serving import CONTRACT_FILE
        from components.model_server.dataplane import DataPlane
        from components.model_server.feature_client import HttpFeatureClient
        from components.model_server.numbering import new_instance
        from components.model_server.seldon.seldon_app import build_app

        options = self._options
        client = HttpFeatureClient(options.feature_server_url, _timeout(options.release_folder / CONTRACT_FILE)) if options.feature_server_url else None
        plane = DataPlane.load(options.release_folder, client, options.instance or new_instance())
        ready = threading.Event()

        def warm_up() -> None:
            plane.warm_up()
            ready.set()

        app = build_app(plane, options.skew, ready)
        threading.Thread(target=warm_up, name="warm-up", daemon=True).start()
        return app


def _timeout(contract: Path) -> float:
    from components.contracts.serving import ServingContract

    return ServingContract.model_validate_json(contract.read_text()).feature_server_timeout_seconds
