"""`python -m components.monitoring.retrain_trigger.check_service --url http://... --usecase flights --id <new id>`: does a trigger do its work?

It must refuse a bad event and name the field, take a good one, know it when it comes again, and decide on it. The good one is an estimate far
above any promise, of a model that is not in service: it is decided `nothing`, and moves no later decision (an estimate brings no labels).
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime, timedelta

import httpx

from components.contracts.errors import CrisplineError
from components.contracts.events import PERFORMANCE, Performance

_WAIT_SECONDS = 60.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check-retrain-trigger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="address of the trigger, without a path")
    parser.add_argument("--usecase", required=True)
    parser.add_argument("--id", required=True, help="id of the event that is sent")
    options = parser.parse_args(arguments)
    try:
        with httpx.Client(base_url=options.url, timeout=20.0) as client:
            for line in check(client, options.usecase, options.id):
                print(line, flush=True)
    except (CrisplineError, httpx.HTTPError) as error:
        print(f"{options.url}: {error}", file=sys.stderr)
        return 1
    return 0


def check(client: httpx.Client, usecase: str, id: str, wait_seconds: float = _WAIT_SECONDS) -> list[str]:
    """What was found, a line each. Raises CrisplineError for the first thing that is not as it should be."""
    health = client.get("/healthz")
    _expect(health.status_code == 200 and health.json()["usecase"] == usecase, f"it decides for {usecase}", health)
    event = harmless(usecase, id)
    bad = event | {"value": "high"}
    refused = _post(client, bad)
    _expect(refused.status_code == 422 and "data.value" in refused.json()["error"], "it refuses a bad event and names the field", refused)
    taken = [_post(client, event) for _ in range(2)]
    _expect(all(one.status_code == 202 for one in taken), "it takes a good event", taken[0])
    _expect(taken[1].json()["duplicate"] is True, "it knows the event when it comes again", taken[1])
    found = ["decides for the right use case", "refuses a bad event", "takes an event once"]
    if health.json()["status"] == "suspended":
        return [*found, "is suspended: the event waits for its decision"]
    deadline = time.monotonic() + wait_seconds
    decision = client.get(f"/decisions/{id}")
    while decision.status_code == 404 and time.monotonic() < deadline:
        time.sleep(0.5)
        decision = client.get(f"/decisions/{id}")
    _expect(decision.status_code == 200 and decision.json()["outcome"] == "nothing", "it decides against a retraining", decision)
    return [*found, f"decides: {decision.json()['reason']}"]


def harmless(usecase: str, id: str) -> dict[str, object]:
    """An event that leads to nothing."""
    now = datetime.now(UTC)
    event = Performance(
        id=id,
        usecase=usecase,
        model_version="none-this-is-a-check",
        window_start=now - timedelta(days=1),
        window_end=now,
        as_of=now,
        kind="estimated",
        metric="none-this-is-a-check",
        value=1.0,
        low=1.0,
        high=1.0,
        threshold=0.0,
        rows=1,
        labelled_share=0.0,
        sampling_error=0.0,
        backtest_error=0.0,
    )
    return event.model_dump(mode="json")


def _post(client: httpx.Client, event: dict[str, object]) -> httpx.Response:
    headers = {"ce-id": str(event["id"]), "ce-source": "crispline/check", "ce-type": PERFORMANCE, "ce-specversion": "1.0"}
    return client.post("/events", json=event, headers=headers)


def _expect(holds: bool, what: str, answer: httpx.Response) -> None:
    if not holds:
        raise CrisplineError(f"expected that {what}; it answered {answer.status_code}: {answer.text[:500]}")


if __name__ == "__main__":
    sys.exit(main())
