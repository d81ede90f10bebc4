"""`python -m components.model_server.check_service`: ask a served model for a real prediction, and for one that it must refuse; 0 when both are right.

The requests are made from the serving contract of the release, so the check knows no use case. It is what `helm test` runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pydantic import ValidationError

from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.serving import CONTRACT_FILE, PredictResponse, ServingContract
from components.deployment.bundle import read_file
from components.model_server.request_probes import probes

ROUTE = "/api/v1.0/predictions"


class CheckFailed(CrisplineError):
    """The service does not do what its release promises."""


def check_service(url: str, contract: ServingContract, releases: Sequence[str], client: httpx.Client, now: datetime) -> list[str]:
    """What was found right, a sentence each. `releases`: those that may answer. `now`: the prediction moment, wall clock.

    Raises CheckFailed with what was asked, what came, and what was expected.
    """
    good, bad, field = _requests(contract, now)
    answer = _ask(client, url, good)
    if answer.status_code != 200:
        raise CheckFailed(f"a well-formed request was answered with {answer.status_code}: {answer.text[:500]}")
    try:
        response = PredictResponse.model_validate(answer.json()["jsonData"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckFailed(f"the answer is none: {error}: {answer.text[:500]}") from error
    (row,) = response.predictions
    if response.model.release not in releases:
        raise CheckFailed(f"release {response.model.release[:12]} answered; expected {' or '.join(release[:12] for release in releases)}")
    if not 0 <= row.probability <= 1 or row.decision != (row.probability >= response.model.decision_threshold):
        raise CheckFailed(f"probability {row.probability} and decision {row.decision} do not fit the threshold {response.model.decision_threshold}")
    refusal = _ask(client, url, bad)
    named = _field(refusal)
    if refusal.status_code != 422 or named != field:
        raise CheckFailed(f"a request with a fault in {field} was answered with {refusal.status_code}, naming {named!r}; expected 422: {refusal.text[:500]}")
    return [
        f"a prediction: {row.probability:.3f}, decision {row.decision}, by model {response.model.model_version}, release {response.model.release[:12]}",
        f"a refusal: 422, the fault is in {field}",
    ]


def _requests(contract: ServingContract, now: datetime) -> tuple[Any, Any, str]:
    """A well-formed request with complete features, one with a wrong type in it, and the field that its refusal must name."""
    moments = {"prediction_moment": format_moment(now), "event_time": format_moment(now + timedelta(seconds=contract.lead_seconds))}
    made = list(probes(contract))
    good = next(probe for probe in made if probe.name == "well-formed, complete")
    bad = next(probe for probe in made if probe.name.startswith("wrong type of features."))
    return _at(good.document, moments), _at(bad.document, moments), bad.expected


def _at(document: dict[str, Any], moments: dict[str, str]) -> dict[str, Any]:
    return {"jsonData": {**document, "instances": [{**row, **moments} for row in document["instances"]]}}


def _ask(client: httpx.Client, url: str, body: Any) -> httpx.Response:
    try:
        return client.post(url.rstrip("/") + ROUTE, json=body, headers={"Seldon-Skip-Logging": "true"})
    except httpx.HTTPError as error:
        raise CheckFailed(f"{url} does not answer: {type(error).__name__}: {error}") from error


def _field(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["status"]["field"])
    except (ValueError, KeyError, TypeError):
        return ""


def wait_for(attempt: Callable[[], list[str]], seconds: float, sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """The first success within `seconds`; CheckFailed of the last attempt otherwise. A Service takes a moment to know its pods."""
    until = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except CheckFailed:
            if time.monotonic() > until:
                raise
            sleep(1.0)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m components.model_server.check_service", description="Ask for a prediction, and for one to be refused.")
    parser.add_argument("--url", required=True, help="http://host:port of the service")
    parser.add_argument("--usecase", required=True)
    parser.add_argument("--release", required=True, action="append", help="id of a release that may answer; several where a canary runs")
    parser.add_argument("--bundles-uri", default="", help="the bundle store (default: that of the platform file)")
    parser.add_argument("--wait-seconds", type=float, default=30.0, help="how long a failed check is repeated (default %(default)s)")
    given = parser.parse_args(arguments)
    try:
        bundles_uri = given.bundles_uri or Platform.load().bundles_uri
        contract = ServingContract.model_validate_json(read_file(bundles_uri, given.release[0], CONTRACT_FILE))
        if contract.usecase != given.usecase:
            raise CheckFailed(f"release {given.release[0][:12]} is of the use case {contract.usecase!r}, not {given.usecase!r}")
        with httpx.Client(timeout=10, trust_env=False) as client:
            for line in wait_for(lambda: check_service(given.url, contract, given.release, client, datetime.now(UTC)), given.wait_seconds):
                print(line)
    except (CrisplineError, ValidationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, CrisplineError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
