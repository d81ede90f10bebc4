"""Which store a platform's claims are in."""

from __future__ import annotations

from components.contracts.errors import CrisplineError
from components.monitoring.retrain_trigger.claims import TriggerStore


def open_store(uri: str, usecase: str = "") -> TriggerStore:
    """The store behind `Platform.claims_uri`: `sqlite:///<file>`, or `kubernetes:///<namespace>/<prefix>`, in which each use case has a store of
    its own. Raises CrisplineError for an empty or unknown one."""
    if uri.startswith("kubernetes:///"):
        from components.monitoring.retrain_trigger.kubernetes_store import open_kubernetes_store

        return open_kubernetes_store(uri, usecase)
    if not uri.startswith("sqlite:///"):
        raise CrisplineError(f"claims_uri is {uri!r}; it must name a store for claims: sqlite:///<file> or kubernetes:///<namespace>/<prefix>")
    from pathlib import Path

    from components.monitoring.retrain_trigger.sqlite_store import SqliteStore

    return SqliteStore(Path(uri.removeprefix("sqlite:///")))
