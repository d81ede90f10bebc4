"""A Redis of one's own for tests of the online store; they skip visibly where redis-server is not installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NotYet


@contextmanager
def running_redis(folder: Path, password: str) -> Iterator[str]:
    """`redis://127.0.0.1:<port>` as long as the block lasts; nothing is kept on disk."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not on PATH; install Redis 7 or newer (apt install redis-server) to run this test over Redis")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--requirepass", password, "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    Redis(port=port, password=password).ping()
                    break
                except NotYet:
                    assert process.poll() is None and time.monotonic() < deadline, "redis-server did not start"
                    time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
