"""The rules of Seldon's validating webhook that the CRD cannot express (operator 1.18 and 1.19, seldondeployment_webhook.go), and two of its reconciler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.charts.helm import Object

PROTOCOLS, TRANSPORTS = {"", "seldon", "tensorflow", "kfserving", "v2"}, {"", "rest", "grpc"}
LOGGER_MODES = {"all", "request", "response"}
IMPLEMENTED = {None, "UNKNOWN_IMPLEMENTATION"}


def refusals(deployment: Object) -> list[str]:
    """What the webhook would refuse, a sentence each; what would be taken and then cannot be reconciled counts as well."""
    return [*_whole(deployment["spec"]), *_traffic(deployment["spec"]), *_names(deployment)]


def _whole(spec: Object) -> Iterator[str]:
    predictors = spec["predictors"]
    if spec.get("protocol", "") not in PROTOCOLS:
        yield "invalid protocol"
    if spec.get("transport", "") not in TRANSPORTS:
        yield "invalid transport"
    if not predictors:
        yield "graph contains no predictors"
    if len(predictors) == 1 and predictors[0].get("shadow"):
        yield "shadow can not exist as only predictor"
    yield from (f"duplicate predictor name {name}" for name, count in Counter(each["name"] for each in predictors).items() if count > 1)
    services = Counter((each.get("annotations") or {}).get("seldon.io/svc-name") for each in predictors)
    yield from (f"duplicate service name {name}" for name, count in services.items() if name and count > 1)
    for predictor in predictors:
        yield from _graph(predictor["graph"], predictor)
    transports = {each for predictor in predictors for each in _endpoint_types(predictor["graph"])}
    if len(transports) > 1 or (transports and {"REST": "rest", "GRPC": "grpc"}[next(iter(transports))] != spec.get("transport", "rest")):
        yield "endpoint types differ from the transport"
    for key in ("executor-logger-queue-size", "executor-logger-write-timeout-ms"):
        value = (spec.get("annotations") or {}).get(f"seldon.io/{key}", "0")
        if not value.isdigit():
            yield f"{key} is no whole number"


def _graph(node: Object, predictor: Object) -> Iterator[str]:
    containers = {container["name"]: container for component in predictor["componentSpecs"] for container in component["spec"]["containers"]}
    if node.get("implementation") in IMPLEMENTED:
        if node["name"] not in containers:
            yield f"can't find container for predictive unit {node['name']}"
        if node.get("type") == "UNKNOWN_TYPE" and not node.get("methods"):
            yield f"predictive unit {node['name']} has no implementation methods defined"
    elif not node.get("modelUri"):
        yield f"predictive unit {node['name']} needs a modelUri"
    if "logger" in node and node["logger"].get("mode", "") not in LOGGER_MODES:
        yield "no logger mode specified"
    if "seldon-container-engine" in containers:
        yield "a container of the executor's name makes the operator leave out its own"
    if (predictor.get("annotations") or {}).get("seldon.io/no-engine"):
        yield "without the executor nothing is logged"
    for child in node.get("children") or []:
        yield from _graph(child, predictor)


def _endpoint_types(node: Object) -> Iterator[str]:
    if (node.get("endpoint") or {}).get("type"):
        yield node["endpoint"]["type"]
    for child in node.get("children") or []:
        yield from _endpoint_types(child)


def _traffic(spec: Object) -> Iterator[str]:
    predictors = spec["predictors"]
    shadows = [each for each in predictors if each.get("shadow")]
    total = sum(each.get("traffic", 0) for each in predictors if not each.get("shadow"))
    if len(shadows) > 1:
        yield "multiple shadows are not allowed"
    if any(not 0 <= each.get("traffic", 0) <= 100 for each in shadows):
        yield "shadow traffic is illegal"
    if total != 100 and len(predictors) - len(shadows) > 1:
        yield "traffic must sum to 100 for multiple predictors"
    if 0 < total < 100 and len(predictors) == 1:
        yield "traffic must be 100 for a single predictor when set"


def _names(deployment: Object) -> Iterator[str]:
    """Names over 63 characters are replaced by a hash that nobody recognises."""
    name = deployment["metadata"]["name"]
    for predictor in deployment["spec"]["predictors"]:
        for position, component in enumerate(predictor["componentSpecs"]):
            whole = f"{name}-{predictor['name']}-{position}-{component['metadata'].get('name', '')}"
            if not component["metadata"].get("name") or len(whole) > 63:
                yield f"the Deployment of {predictor['name']} has no name of its own, or one that is too long"
            for container in component["spec"]["containers"]:
                if len(f"{name}-{predictor['name']}-{container['name']}") > 63:
                    yield f"the Service of container {container['name']} has a name that is too long"
