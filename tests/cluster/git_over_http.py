"""Runs in a pod: a Git repository over HTTP, `git http-backend` behind uvicorn. Everybody may fetch; a push needs the header of GIT_PUSH_AUTHORIZATION.

python git_over_http.py --folder DIR --port N      serves DIR/<name>.git, makes DIR/models.git with an empty first commit
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import uvicorn

IDENTITY = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "nobody"), ("EMAIL", "nobody@localhost"))}


def make(repository: Path) -> None:
    def git(*arguments: str) -> str:
        environment = {**os.environ, **IDENTITY}
        return subprocess.run(
            ["git", f"--git-dir={repository}", *arguments], check=True, capture_output=True, text=True, input="", env=environment
        ).stdout.strip()

    git("init", "--quiet", "--bare", "--initial-branch=main")
    git("config", "http.receivepack", "true")
    git("update-ref", "refs/heads/main", git("commit-tree", git("mktree"), "-m", "Empty"))


def application(folder: Path, authorization: str) -> Any:
    def answer(scope: dict[str, Any], headers: dict[str, str], body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        path, query = scope["path"], scope["query_string"].decode()
        if "git-receive-pack" in path + query and headers.get("authorization") != authorization:
            return 401, [(b"www-authenticate", b'Basic realm="git"')], b"a push needs credentials"
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": scope["method"],
            "CONTENT_TYPE": headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "GIT_PROTOCOL": headers.get("git-protocol", ""),
            "REMOTE_USER": "somebody",
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        found = [tuple(line.split(b": ", 1)) for line in head.split(b"\r\n") if b": " in line]
        status = next((int(value.split()[0]) for name, value in found if name.lower() == b"status"), 200)
        return status, [(name.lower(), value) for name, value in found if name.lower() != b"status"], content

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        status, answered, content = await asyncio.to_thread(answer, scope, headers, body)
        await send({"type": "http.response.start", "status": status, "headers": answered})
        await send({"type": "http.response.body", "body": content})

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    repository = given.folder / "models.git"
    if not repository.exists():
        make(repository)
    uvicorn.run(application(given.folder, os.environ["GIT_PUSH_AUTHORIZATION"]), host="0.0.0.0", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
