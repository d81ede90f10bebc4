"""Runs in a pod: asks a served model for predictions with some clients at a time, and prints what came as one JSON line.

python load_in_pod.py --url URL --body FILE --seconds N [--clients 4] [--requests N] [--pause 0] [--prefix ID] [--header NAME=VALUE]

Every client keeps its connection, as clients of a Service do. A request counts as failed when the connection broke or the status is not 200. Ends
early, in order, on SIGTERM. Needs httpx only.
"""

from __future__ import annotations

import argparse
import collections
import json
import signal
import threading
import time
from pathlib import Path

import httpx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--prefix", default="load")
    parser.add_argument("--header", action="append", default=[], help="NAME=VALUE for every request")
    given = parser.parse_args()
    content = Path(given.body).read_bytes()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ends, tickets, lock = time.monotonic() + given.seconds, iter(range(given.requests)), threading.Lock()
    statuses: collections.Counter[str] = collections.Counter()
    predictors: collections.Counter[str] = collections.Counter()
    releases: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    seconds: list[float] = []
    longest_gap, last = [0.0], [time.monotonic()]

    def client() -> None:
        headers = {"content-type": "application/json"} | dict(each.split("=", 1) for each in given.header)
        with httpx.Client(timeout=120, headers=headers, trust_env=False) as session:
            while time.monotonic() < ends and not stop.is_set():
                with lock:
                    ticket = next(tickets, None)
                if ticket is None:
                    return
                began = time.monotonic()
                try:
                    answer = session.post(given.url, content=content, headers={"Seldon-Puid": f"{given.prefix}-{ticket}"})
                    outcome = str(answer.status_code)
                    failure = "" if outcome == "200" else f"{time.time():.2f} {outcome} {answer.text[:200]}"
                except httpx.HTTPError as error:
                    outcome, failure, answer = type(error).__name__, f"{time.time():.2f} {error!r}", None
                ended = time.monotonic()
                with lock:
                    statuses[outcome] += 1
                    seconds.append(ended - began)
                    if failure:
                        failures.append(failure)
                    else:
                        longest_gap[0], last[0] = max(longest_gap[0], ended - last[0]), ended
                        predictors[answer.headers.get("x-crispline-predictor", "")] += 1
                        releases[answer.json()["jsonData"]["model"]["release"]] += 1
                time.sleep(given.pause)

    began = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(given.clients)]
    for thread in threads:
        thread.start()
    print("started", flush=True)
    for thread in threads:
        thread.join()
    wall, ordered = time.monotonic() - began, sorted(seconds) or [0.0]
    result = {
        "requests": len(seconds),
        "failed": len(failures),
        "failures": failures[:10],
        "statuses": statuses,
        "predictors": predictors,
        "releases": releases,
        "requests_per_second": round(len(seconds) / wall, 1),
        "p50_ms": round(1000 * ordered[len(ordered) // 2], 2),
        "p99_ms": round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
        "longest_gap_ms": round(1000 * longest_gap[0]),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
