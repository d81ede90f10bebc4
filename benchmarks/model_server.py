"""Requests per second of the model server: one row and a batch, complete features and by keys, directly and through the forwarder.

Run in the serving environment: components/environments/serving/.venv/bin/python benchmarks/model_server.py [--seconds 3] [--clients 1]
It trains a small model of the flights use case and serves it; the feature server's place is taken by a process that answers at once, so
that the figures are the server's own. Prints a table: requests/s, rows/s, median and 99th percentile, and CPU seconds of the server a request.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import httpx

from components.deployment.bundle import fetch_bundle
from components.deployment.tests.example_release import build_release
from components.model_server.tests.processes import body, feast_answer, free_port, full_row, http_end, keyed_row, model_server, process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, http_end() as features:
        folder = Path(name)
        features.answer = lambda document: (200, feast_answer(document))
        fetch_bundle(str(folder / "bundles"), build_release(folder / "bundles"), folder / "release")
        with model_server(folder / "release", folder / "log", "--feature-server-url", features.url) as (server, running):
            port = free_port()
            arguments = ["--port", str(port), "--upstream", server, "--usecase", "flights"]
            with process("components.model_server.forwarder", *arguments, ready=f"http://127.0.0.1:{port}/ready", log=folder / "forwarder.log"):
                print(f"{'case':34}{'requests/s':>11}{'rows/s':>9}{'p50 ms':>8}{'p99 ms':>8}{'CPU ms':>8}")
                for rows in (1, 200):
                    for kind, row in (("features", full_row()), ("keys", keyed_row())):
                        for via, url in (("directly", server), ("forwarder", f"http://127.0.0.1:{port}")):
                            measure(f"{rows} row{'s' * (rows > 1)} by {kind}, {via}", url, rows, row, running.pid, given.seconds, given.clients)


def measure(case: str, url: str, rows: int, row: dict[str, object], pid: int, seconds: float, clients: int) -> None:
    content = json.dumps(body(*[row] * rows)).encode()
    times: list[float] = []

    def load(until: float, kept: list[float]) -> None:
        with httpx.Client(timeout=30, headers={"content-type": "application/json"}) as client:
            while (started := time.perf_counter()) < until:
                client.post(f"{url}/api/v1.0/predictions", content=content).raise_for_status()
                kept.append(time.perf_counter() - started)

    load(time.perf_counter() + 0.5, [])
    before, began = cpu_seconds(pid), time.perf_counter()
    threads = [threading.Thread(target=load, args=(began + seconds, times)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, count = time.perf_counter() - began, len(times)
    cpu = (cpu_seconds(pid) - before) / count * 1000
    ordered = sorted(times)
    p99 = ordered[min(count - 1, int(count * 0.99))] * 1000
    print(f"{case:34}{count / wall:11.0f}{count * rows / wall:9.0f}{statistics.median(ordered) * 1000:8.1f}{p99:8.1f}{cpu:8.2f}", flush=True)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children that run (Linux)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for each in (str(pid), *children):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
