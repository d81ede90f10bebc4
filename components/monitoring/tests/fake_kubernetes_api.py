"""A fake of the few calls of the Kubernetes API that the trigger's store makes, over HTTP, so that the real client and real processes meet it.

It keeps custom resources in memory, with names that are unique, resourceVersions that a replace and a delete are held against, label
selectors, pages and metadata-only lists. It knows no schema and no rules of a custom resource: tests/cluster has the real API.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
_PATH = re.compile(r"/apis/crispline\.io/v1alpha1/namespaces/(?P<namespace>[^/]+)/(?P<plural>retraincauses|retrainledgers)(/(?P<name>[^/]+))?")
_REQUIREMENT = re.compile(r"(?P<absent>!?)(?P<key>[\w./-]+)(?:(?P<equals>==?)(?P<value>[\w.-]*)|\s+(?P<operator>in|notin)\s+\((?P<values>[^)]*)\))?")


class FakeKubernetesApi:
    """A context manager. `failures`: HTTP statuses that the next requests get instead of an answer. `before`: called with each request's method,
    plural and body before it is answered."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.failures: list[int] = []
        self.before: Callable[[str, str, Any], None] | None = None
        self.lock = threading.Lock()
        self._version = 0
        fake = self

        class Handler(_Handler):
            api = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> FakeKubernetesApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, folder: Path) -> Path:
        """A file for KUBECONFIG that leads here."""
        file = folder / "kubeconfig"
        named = {"cluster": {"server": f"http://127.0.0.1:{self._server.server_address[1]}"}, "name": "fake"}
        context = {"context": {"cluster": "fake", "user": "fake"}, "name": "fake"}
        users = [{"name": "fake", "user": {"token": "none"}}]
        config = {"apiVersion": "v1", "kind": "Config", "clusters": [named], "contexts": [context], "current-context": "fake", "users": users}
        file.write_text(yaml.safe_dump(config))
        return file

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, accept: str) -> tuple[int, Any]:
        found = _PATH.fullmatch(path)
        if found is None:
            return 404, "404 page not found"
        key = (found["namespace"], found["plural"], found["name"] or (body or {}).get("metadata", {}).get("name", ""))
        with self.lock:
            if method == "GET" and not found["name"]:
                return 200, self._list(key, query, accept)
            held = self.objects.get(key)
            if method == "POST":
                return (409, _status(409, key)) if held is not None else (201, self._store(key, body))
            if held is None:
                return 404, _status(404, key)
            if method == "GET":
                return 200, held
            if method == "PUT":
                fresh = body["metadata"].get("resourceVersion") == held["metadata"]["resourceVersion"]
                return (200, self._store(key, body)) if fresh else (409, _status(409, key))
            conditions = (body or {}).get("preconditions", {})
            if any(held["metadata"][name] != value for name, value in conditions.items()):
                return 409, _status(409, key)
            return 200, self.objects.pop(key)

    def _store(self, key: tuple[str, str, str], body: Object) -> Object:
        self._version += 1
        metadata = {"uid": str(uuid.uuid4()), **body["metadata"], "namespace": key[0], "resourceVersion": str(self._version)}
        stored: Object = json.loads(json.dumps(body | {"metadata": metadata}))
        self.objects[key] = stored
        return stored

    def _list(self, key: tuple[str, str, str], query: dict[str, str], accept: str) -> Object:
        selector = query.get("labelSelector", "")
        items = [one for (namespace, plural, _), one in sorted(self.objects.items()) if (namespace, plural) == key[:2]]
        items = [one for one in items if _matches(one["metadata"].get("labels", {}), selector)]
        if "as=PartialObjectMetadataList" in accept:
            items = [{"metadata": one["metadata"]} for one in items]
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or 0) or len(items)
        following = str(start + limit) if start + limit < len(items) else ""
        return {"items": items[start : start + limit] or None, "metadata": {"continue": following}}


def _matches(labels: dict[str, str], selector: str) -> bool:
    for one in re.split(r",(?![^(]*\))", selector) if selector else ():
        parts = _REQUIREMENT.fullmatch(one.strip())
        assert parts is not None, f"this fake cannot read the selector {one!r}"
        value = labels.get(parts["key"])
        if parts["equals"]:
            holds = value == parts["value"]
        elif parts["operator"]:
            named = value in [each.strip() for each in parts["values"].split(",")]
            holds = named if parts["operator"] == "in" else not named
        else:
            holds = (value is None) == bool(parts["absent"])
        if not holds:
            return False
    return True


def _status(code: int, key: tuple[str, str, str]) -> Object:
    reason = {404: "NotFound", 409: "Conflict"}[code]
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": f"{key[1]} {key[2]}: {reason}", "details": {"name": key[2]}}


class _Handler(BaseHTTPRequestHandler):
    api: FakeKubernetesApi
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.loads(raw) if raw else None
        if self.api.before is not None:
            self.api.before(self.command, parts.path.rsplit("/namespaces/", 1)[-1], body)
        if self.api.failures:
            status, answer = self.api.failures.pop(0), "made to fail by the test"
        else:
            status, answer = self.api.answer(self.command, parts.path, dict(urllib.parse.parse_qsl(parts.query)), body, self.headers.get("accept", ""))
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass
