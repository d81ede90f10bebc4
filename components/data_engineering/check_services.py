"""`python -m components.data_engineering.check_services --tracking-url ... --feature-server-url ...`: do MLflow and the feature server do their work?

Each must answer something good and refuse something bad. It changes nothing: the run that is asked for does not exist, nor does the entity
whose features are looked up; of which view it looks them up stands in the registry that CRISPLINE_PLATFORM names.
"""

from __future__ import annotations

import argparse
import os
import sys

import httpx

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform

_NOBODY = "nobody-this-is-a-check"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="check-services", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking-url", default="", help="MLflow; user and password come from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    parser.add_argument("--feature-server-url", default="", help="Feast's feature server")
    options = parser.parse_args(arguments)
    try:
        if options.tracking_url:
            with httpx.Client(base_url=options.tracking_url, timeout=30.0, trust_env=False, auth=_credentials()) as client:
                _say("MLflow", check_tracking(client))
        if options.feature_server_url:
            with httpx.Client(base_url=options.feature_server_url, timeout=30.0, trust_env=False) as client:
                _say("feature server", check_feature_server(client, registered_lookup(Platform.load())))
    except (CrisplineError, httpx.HTTPError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def check_tracking(client: httpx.Client) -> list[str]:
    """What was found, a line each. Raises CrisplineError for the first thing that is not as it should be."""
    listed = client.post("/api/2.0/mlflow/experiments/search", json={"max_results": 1})
    _expect(listed.status_code == 200, "it lists experiments", listed)
    unknown = client.get("/api/2.0/mlflow/runs/get", params={"run_id": _NOBODY})
    _expect(400 <= unknown.status_code < 500, "it refuses to show a run that does not exist", unknown)
    foreign = client.get("/api/2.0/mlflow/runs/get", params={"run_id": _NOBODY}, headers={"Host": "elsewhere.example.org"})
    _expect(foreign.status_code == 403, "it refuses a request for another host", foreign)
    return ["lists experiments", "refuses an unknown run", "refuses another host's name"]


def check_feature_server(client: httpx.Client, lookup: tuple[str, dict[str, object]] | None) -> list[str]:
    """`lookup`: a feature as `<view>:<feature>` and a value for each of the view's join keys; None when no view is registered yet."""
    health = client.get("/health")
    _expect(health.status_code == 200, "it is healthy", health)
    bad = client.post("/get-online-features", json={"features": ["no_such_view:no_such_feature"], "entities": {"nothing": [_NOBODY]}})
    _expect(400 <= bad.status_code < 500, "it refuses a view that does not exist", bad)
    malformed = client.post("/get-online-features", json={"features": 1})
    _expect(400 <= malformed.status_code < 500, "it refuses a malformed request", malformed)
    found = ["refuses an unknown view", "refuses a malformed request"]
    if lookup is None:
        return [*found, "nothing was published yet: there is nothing to look up"]
    feature, keys = lookup
    answer = client.post("/get-online-features", json={"features": [feature], "entities": {name: [value] for name, value in keys.items()}})
    _expect(answer.status_code == 200 and feature.split(":")[1] in answer.json()["metadata"]["feature_names"], f"it looks {feature} up", answer)
    keyless = client.post("/get-online-features", json={"features": [feature], "entities": {"no_such_key": [1]}})
    _expect(400 <= keyless.status_code < 500, "it refuses a lookup without the view's keys", keyless)
    return [*found, "refuses a lookup without keys", f"looks up {feature}"]


def registered_lookup(platform: Platform) -> tuple[str, dict[str, object]] | None:
    """A feature of one of the registered views with the keys of nobody; None when there is no view."""
    from feast import FeatureView
    from feast.repo_config import RegistryConfig

    from components.data_engineering.feature_repository import registry_uri
    from components.data_engineering.feature_server import lookup_of_nobody
    from components.data_engineering.registry_store import WholeRegistryStore

    registry = WholeRegistryStore(RegistryConfig(path=registry_uri(platform))).get_registry_proto()
    views = sorted((FeatureView.from_proto(each) for each in registry.feature_views), key=lambda view: view.name)
    return lookup_of_nobody(views[0]) if views else None


def _credentials() -> tuple[str, str] | None:
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME", ""), os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    return (user, password) if user else None


def _expect(good: bool, what: str, answer: httpx.Response) -> None:
    if not good:
        raise CrisplineError(f"it is not so that {what}: {answer.request.method} {answer.request.url} gave {answer.status_code} {answer.text[:300]}")


def _say(who: str, found: list[str]) -> None:
    for line in found:
        print(f"{who}: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
