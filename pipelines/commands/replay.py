"""`crispline replay --env dev`: rows of the past through the served model of an environment, as its users would have asked.

The rows and their features come from the environment's own lake, as of the end of the period; the answers go the usual way, through server and
sidecar into the prediction log. Nothing is posted but predictions: what follows, windows, alerts and decisions, the environment does by itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import httpx

from components.contracts.durations import format_moment, parse_moment
from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.records import record_id
from components.contracts.serving import CONTRACT_FILE, PredictRequest, ServingContract
from components.deployment.bundle import read_file
from components.deployment.environment_file import load_environment
from components.deployment.releases import current_release
from pipelines.commands.choices import WrongUsage
from pipelines.commands.reporting import end_with
from pipelines.demo.replay import Sample
from pipelines.reach import reached

DAY = timedelta(days=1)
_SECONDS = 30.0


def replay(request: Mapping[str, Any]) -> int:
    """`request`: environment, usecase, start, end, share, rows (of one request). Prints what was asked, as JSON. Raises CrisplineError at a refusal."""
    start, end = parse_moment(request["start"]), parse_moment(request["end"])
    if not start < end or not 0 < request["share"] <= 1:
        raise WrongUsage("--start must lie before --end, and --share between 0 and 1")
    environment = load_environment(request["environment"])
    with reached(environment) as there, httpx.Client(timeout=_SECONDS) as client:
        os.environ.update(there.store_variables())
        platform, usecase = environment.platform, load_usecase(request["usecase"])
        release = current_release(platform, usecase.name, environment.name)
        if release is None:
            raise CrisplineError(f"nothing is released to {environment.name}; train and promote first: crispline submit training --env {environment.name}")
        contract = ServingContract.model_validate_json(read_file(platform.bundles_uri, release.release, CONTRACT_FILE))
        contract = contract.model_copy(update={"maximum_batch_rows": request["rows"]})
        url = there.url(f"http://{usecase.name.replace('_', '-')}-model.{environment.access.namespace}.svc:8000")
        asked = rows = 0
        began = time.monotonic()
        for day, requests in _days(platform, usecase, contract, start, end, Sample(request["share"])):
            for each in requests:
                _ask(client, url, each)
                asked, rows = asked + 1, rows + len(each.instances)
            print(f"{day:%Y-%m-%d}: {rows} rows so far", file=sys.stderr, flush=True)
    print(json.dumps({"requests": asked, "rows": rows, "seconds": round(time.monotonic() - began, 1), "release": release.release}))
    return 0


def _days(
    platform: Any, usecase: Any, contract: ServingContract, start: datetime, end: datetime, sample: Sample
) -> Iterator[tuple[datetime, list[PredictRequest]]]:
    """Requests of one day after the other, in order of time; the features of every row as they stood at its prediction moment."""
    from components.data_engineering.entities import read_entities
    from components.data_engineering.lake import current_version
    from components.data_engineering.offline_features import request_features
    from components.model_server.batch import requests_of

    version = current_version(platform.lake_uri, usecase, end)
    day = start
    while day < end:
        found = read_entities(platform.lake_uri, usecase, version, day, min(day + DAY, end), contract.feature_set)
        found = found[sample.of(found["entity"])].sort_values(["prediction_moment", "entity"])
        frame = request_features(usecase, platform, version, found, contract.feature_set) if len(found) else found
        yield day, list(requests_of(frame, contract)) if len(frame) else []
        day += DAY


def _ask(client: httpx.Client, url: str, request: PredictRequest) -> None:
    """The id follows from the rows, so that a replay that is repeated doubles nothing in the log."""
    puid = record_id("replay", *(f"{instance.entity} {format_moment(instance.prediction_moment)}" for instance in request.instances))
    try:
        answer = client.post(
            f"{url}/api/v1.0/predictions",
            json={"jsonData": request.model_dump(mode="json", exclude={"instances": {"__all__": {"keys", "fields"}}})},
            headers={"Seldon-Puid": puid},
        )
    except httpx.HTTPError as error:
        raise CrisplineError(f"the model server does not answer ({error}); see its pods, then repeat the command") from error
    if answer.status_code != 200:
        late = "\n    remedy: set serving.momentSkew: unlimited in values.yaml of this environment" if "MOMENT_TOO_FAR" in answer.text else ""
        raise CrisplineError(f"a request of {len(request.instances)} rows was answered with {answer.status_code}: {answer.text[:300]}{late}")


if __name__ == "__main__":
    end_with(lambda: replay(json.loads(sys.argv[1])))
