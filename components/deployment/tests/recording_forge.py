"""A recording server in the place of a forge: it keeps every request and answers two calls as GitHub's REST API documents them. It is no GitHub."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class RecordingForge:
    """`requests`: (method, path, query, headers, body). `refuse`: status by which every call is refused; 0 for none."""

    url: str = ""
    refuse: int = 0
    requests: list[tuple[str, str, dict[str, list[str]], dict[str, str], Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def recording_forge() -> Iterator[RecordingForge]:
    forge = RecordingForge()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = self._record(None)
            if not self._refused():
                found = [each for each in forge.pulls if query["head"] == [f"acme:{each['head']}"] and query["base"] == [each["base"]]]
                self._answer(200, [{"html_url": f"https://forge/acme/models/pull/{each['number']}"} for each in found if each["state"] == query["state"][0]])

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._record(body)
            if not self._refused():
                forge.pulls.append({**body, "number": len(forge.pulls) + 1, "state": "open"})
                self._answer(201, {"html_url": f"https://forge/acme/models/pull/{len(forge.pulls)}"})

        def _record(self, body: Any) -> dict[str, list[str]]:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            forge.requests.append((self.command, parts.path, query, dict(self.headers), body))
            return query

        def _refused(self) -> bool:
            if forge.refuse:
                self._answer(forge.refuse, {"message": "Validation Failed", "errors": [{"message": "No commits between main and the branch"}]})
            return bool(forge.refuse)

        def _answer(self, status: int, document: Any) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    forge.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield forge
    finally:
        server.shutdown()
        server.server_close()
