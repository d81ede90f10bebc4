"""`crispline doctor --env <environment>`: each endpoint of an environment, what may be done there, and in which version it runs.

Every check stands alone: one that fails says so and the next one is made. What is written, an object beside the records, is removed again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from components.contracts.errors import CrisplineError
from components.contracts.storage import create_atomically, remove, storage_path
from components.deployment.environment_file import EnvironmentFile, load_environment
from components.deployment.forge import TOKEN_VARIABLE, call_forge, repository_name
from components.deployment.gitops import GitRepository, is_remote
from components.deployment.releases import ENVIRONMENTS_FOLDER
from components.environments.names import IMAGES
from pipelines.commands.findings import Finding
from pipelines.images import image_reference_of, manifest
from pipelines.reach import NotReachable, Reach, kubectl, reached
from pipelines.runners.environments import ROOT

_SECONDS = 10.0
_OLDEST_KUBERNETES = (1, 30)
_OLDEST_MLFLOW = 3
_MAY = ("create deployments.apps", "create services", "create configmaps", "create networkpolicies.networking.k8s.io", "create pods/portforward")
_OPTIONAL = {
    "monitoring.coreos.com": "metrics are not scraped and alerts not raised; install the Prometheus operator",
    "argoproj.io": "nothing is reconciled by Argo CD; install it, or use Flux or `helm upgrade` (docs/how-to/gitops.md)",
    "gateway.networking.k8s.io": "the splitter `gateway-api` is not possible; `haproxy` needs nothing",
    "keda.sh": "autoscaling.kind `keda` is not possible; `hpa` needs nothing",
}


class Check(NamedTuple):
    """A check by name, and whether crispline needs what it looks at."""

    subject: str
    look: Callable[[], Iterator[Finding]]
    needed: bool = True


def environment_findings(environment: str, root: Path = ROOT) -> Iterator[Finding]:
    """Findings about one environment of manifests/environments, as they are made."""
    try:
        file = load_environment(environment, root)
    except CrisplineError as error:
        yield Finding(f"environment {environment}", False, str(error), "correct manifests/environments")
        return
    yield Finding("platform.yaml", True, f"{environment}, namespace {file.access.namespace}", "")
    with reached(file) as there:
        for check in _checks(file, there, root / ENVIRONMENTS_FOLDER / environment):
            try:
                yield from check.look()
            except CrisplineError as error:
                said, _, remedy = str(error).partition("\n    remedy: ")
                yield Finding(check.subject, False, said, remedy or "see the message", check.needed)
            except Exception as error:  # a client library's own error is a finding, too
                yield Finding(check.subject, False, f"{type(error).__name__}: {_first_line(error)}", "see the message", check.needed)


def _checks(file: EnvironmentFile, there: Reach, folder: Path) -> list[Check]:
    return [
        Check("Kubernetes", lambda: _kubernetes(file, there)),
        Check("namespace", lambda: _namespace(file, there)),
        Check("permissions", lambda: _permissions(there), needed=False),
        Check("custom resources", lambda: _resources(file, folder), needed=False),
        Check("secrets", lambda: _secrets(file, there)),
        Check("object store", lambda: _object_store(file, there)),
        Check("Kubeflow Pipelines", lambda: _pipelines(file, there)),
        Check("MLflow", lambda: _mlflow(file, there)),
        Check("online store", lambda: _online_store(file, there)),
        Check("feature server", lambda: _service(file.platform.feature_server_url, "/health", "feature server", there), needed=False),
        Check("retrain trigger", lambda: _service(_base(file.platform.trigger_url), "/healthz", "retrain trigger", there), needed=False),
        Check("registry", lambda: _registry(file, folder), needed=False),
        Check("Git", lambda: _git(file)),
        Check("forge", lambda: _forge(file), needed=False),
        Check("Argo CD", lambda: _argocd(file), needed=False),
    ]


# --- Kubernetes ------------------------------------------------------------------------------------------------------------------------------


def _kubernetes(file: EnvironmentFile, there: Reach) -> Iterator[Finding]:
    if shutil.which("kubectl") is None:
        yield Finding("kubectl", False, "not found", "install it: https://kubernetes.io/docs/tasks/tools/")
        return
    version = json.loads(there.kubectl("version", "-o", "json"))["serverVersion"]
    found = (int(re.sub(r"\D", "", version["major"])), int(re.sub(r"\D", "", version["minor"])))
    wanted = ".".join(map(str, _OLDEST_KUBERNETES))
    yield Finding("Kubernetes", found >= _OLDEST_KUBERNETES, f"{version['gitVersion']}{_of_context(file)}", f"the charts need Kubernetes {wanted} or newer")


def _namespace(file: EnvironmentFile, there: Reach) -> Iterator[Finding]:
    name = file.access.namespace
    remedy = f"kubectl apply -k manifests/namespaces/{file.name}"
    try:
        labels = json.loads(there.kubectl("get", "namespace", name, "-o", "json"))["metadata"].get("labels", {})
    except NotReachable as error:
        yield Finding("namespace", False, str(error), remedy)
        return
    level = labels.get("pod-security.kubernetes.io/enforce", "none")
    yield Finding("namespace", True, f"{name}, enforces {level}", "")
    if level not in ("restricted", "baseline"):
        yield Finding("pod security", False, f"{name} enforces {level}", remedy, needed=False)


def _permissions(there: Reach) -> Iterator[Finding]:
    denied = []
    for what in _MAY:
        verb, resource = what.split()
        try:
            there.kubectl("auth", "can-i", verb, resource)
        except NotReachable:
            denied.append(what)
    remedy = "enough where Argo CD or Flux does the changes; to install by hand, ask for these (manifests/namespaces has the roles)"
    yield Finding("permissions", not denied, f"not: {', '.join(denied)}" if denied else "install and forward ports", remedy, needed=False)


def _resources(file: EnvironmentFile, folder: Path) -> Iterator[Finding]:
    groups = {line.partition("/")[0] for line in kubectl(file.access.context, "api-versions").split()}
    mode = _serving_modes(folder)
    if "seldon" in mode:
        remedy = "install Seldon's operator, or set serving.mode: deployment in values.yaml"
        yield Finding("Seldon", "machinelearning.seldon.io" in groups, f"needed by {', '.join(mode['seldon'])}", remedy)
    if file.platform.pipelines_url and "pipelines.kubeflow.org" not in groups:
        remedy = "the classic store keeps pipelines in its database: use `crispline submit`, not manifests/pipelines"
        yield Finding("pipelines in Kubernetes", False, "no Pipeline and PipelineVersion resources", remedy, needed=False)
    for group, remedy in _OPTIONAL.items():
        yield Finding(group, group in groups, "there" if group in groups else "not installed", remedy, needed=False)


def _serving_modes(folder: Path) -> dict[str, list[str]]:
    """Use cases of the environment by `serving.mode`."""
    from ruamel.yaml import YAML

    found: dict[str, list[str]] = {}
    for values in sorted(folder.glob("*/values.yaml")):
        document = YAML(typ="safe").load(values.read_text()) or {}
        found.setdefault(document.get("serving", {}).get("mode", "seldon"), []).append(values.parent.name)
    return found


def _secrets(file: EnvironmentFile, there: Reach) -> Iterator[Finding]:
    for name, keys in file.access.secrets.items():
        subject, remedy = f"Secret {name}", f"make it with the keys {', '.join(keys)} (docs/how-to/kubernetes.md#credentials)"
        try:
            data = json.loads(there.kubectl("get", "secret", name, "-o", "json")).get("data", {})
        except NotReachable as error:
            forbidden = "forbidden" in str(error).lower()
            yield Finding(subject, False, str(error), "ask somebody who may read it" if forbidden else remedy, needed=not forbidden)
            continue
        missing = [key for key in keys if key not in data]
        yield Finding(subject, not missing, f"lacks {', '.join(missing)}" if missing else f"{len(keys)} keys", remedy)


def _argocd(file: EnvironmentFile) -> Iterator[Finding]:
    selector = f"crispline.io/environment={file.name}"
    document = json.loads(kubectl(file.access.context, "get", "applications.argoproj.io", "-A", "-l", selector, "-o", "json"))
    items = document["items"]
    if not items:
        yield Finding("Argo CD", False, f"no Application of {file.name}", "kubectl apply -k manifests/argocd", needed=False)
    for item in items:
        status = item.get("status", {})
        sync, health = status.get("sync", {}).get("status", "Unknown"), status.get("health", {}).get("status", "Unknown")
        conditions = "; ".join(each.get("message", "") for each in status.get("conditions", []))[:300]
        good = (sync, health) == ("Synced", "Healthy")
        yield Finding(f"Argo CD {item['metadata']['name']}", good, f"{sync}, {health}", conditions or "see the Application in Argo CD", needed=False)


# --- endpoints -------------------------------------------------------------------------------------------------------------------------------


def _object_store(file: EnvironmentFile, there: Reach) -> Iterator[Finding]:
    for name in ("records_uri", "bundles_uri", "prediction_log_uri", "labels_uri", "lake_uri", "feature_store_uri"):
        uri = getattr(file.platform, name)
        if not uri.startswith("s3://"):
            remedy = "pods need a shared volume at that path (sharedVolume of the charts), or an s3:// address"
            yield Finding(name, "://" in uri, f"{uri} is not looked at", remedy, needed=False)
            continue
        probe = storage_path(there.path(uri)) / f".doctor-{uuid.uuid4().hex}"
        once, twice = create_atomically(probe, b"crispline doctor"), create_atomically(probe, b"somebody else")
        content = probe.read_bytes()
        remove(probe)
        kept = once and not twice and content == b"crispline doctor"
        yield Finding(
            name,
            kept,
            f"{uri}: may write, read, delete" if kept else f"{uri}: a conditional PUT does not hold",
            "use a store with If-None-Match: S3, MinIO, GCS",
        )


def _pipelines(file: EnvironmentFile, there: Reach) -> Iterator[Finding]:
    if not file.platform.pipelines_url:
        yield Finding("Kubeflow Pipelines", False, "pipelines_url is empty", "set it in platform.yaml to train in this environment", needed=False)
        return
    from pipelines.runners.kubeflow_api import KubeflowApi

    platform = file.platform.model_copy(update={"pipelines_url": there.url(file.platform.pipelines_url)})
    api = KubeflowApi(platform, timeout_seconds=int(_SECONDS))
    health = api.call(api.health.healthz_service_get_healthz)
    multi = bool(health.multi_user)
    yield Finding("Kubeflow Pipelines", True, f"{'multi' if multi else 'single'}-user, pipelines kept in {health.pipeline_store or 'a database'}", "")
    if multi != bool(platform.pipelines_namespace):
        remedy = "set pipelines_namespace to the profile's namespace" if multi else "leave pipelines_namespace empty"
        yield Finding("pipelines_namespace", False, repr(platform.pipelines_namespace), remedy)
    api.call(api.pipelines.pipeline_service_list_pipelines, page_size=1, **api.namespaced)
    yield Finding("may list pipelines", True, platform.pipelines_namespace or "yes", "")


def _mlflow(file: EnvironmentFile, there: Reach) -> Iterator[Finding]:
    import httpx

    uri = file.platform.tracking_uri
    if not uri.startswith("http"):
        yield Finding(
            "MLflow", False, f"tracking_uri is {uri}", "name the tracking server's URL: pods do not share a file", needed=bool(file.platform.pipelines_url)
        )
        return
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    login = httpx.BasicAuth(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
    # The name that pods use: behind a port-forward the server would see another one and refuse it.
    with httpx.Client(base_url=there.url(uri), headers={"Host": urlsplit(uri).netloc}, timeout=_SECONDS, auth=login) as client:
        version = client.get("/version")
        if version.status_code == 403:
            yield Finding("MLflow", False, f"403: {version.text.strip()[:120]}", f"start it with --allowed-hosts {urlsplit(uri).netloc}")
            return
        if version.status_code != 401:
            version.raise_for_status()
            said = version.text.strip()
            yield Finding("MLflow", int(said.partition(".")[0] or 0) >= _OLDEST_MLFLOW, said, f"MLflow {_OLDEST_MLFLOW} or newer")
        answer = client.get("/api/2.0/mlflow/experiments/search", params={"max_results": 1})
        remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, as in the Secret that platform.yaml names"
        yield Finding("may read experiments", answer.is_success, str(answer.status_code), remedy, needed=answer.status_code not in (401, 403))


def _online_store(file: EnvironmentFile, there: Reach) -> Iterator[Finding]:
    place = file.platform.online_store
    if "://" not in place:
        yield Finding("online store", False, f"{place} is a file", "pods share none: use redis://", needed=bool(file.platform.pipelines_url))
        return
    parts = urlsplit(there.url(place))
    with socket.create_connection((parts.hostname or "", parts.port or 6379), timeout=_SECONDS) as connection:
        connection.sendall(b"PING\r\n")
        said = connection.recv(64).decode(errors="replace").strip() if parts.scheme == "redis" else "TLS"
    yield Finding("online store", said.startswith(("+PONG", "-NOAUTH", "TLS")), f"{place}: {said}", "is it a Redis?")


def _service(url: str, path: str, name: str, there: Reach) -> Iterator[Finding]:
    import httpx

    if not url:
        yield Finding(name, False, "no address in platform.yaml", "set it there, or leave it where the environment has none", needed=False)
        return
    answer = httpx.get(f"{there.url(url).rstrip('/')}{path}", timeout=_SECONDS)
    yield Finding(
        name, answer.is_success, f"{url}: {answer.status_code}", f"see its pods: kubectl -n {there.environment.access.namespace} get pods", needed=False
    )


def _registry(file: EnvironmentFile, folder: Path) -> Iterator[Finding]:
    for usecase in sorted(values.parent.name for values in folder.glob("*/values.yaml")):
        references = {image: image_reference_of(image, usecase, file.access.registry) for image in IMAGES}
        absent = [reference for reference in references.values() if manifest(reference) is None]
        found = f"not shown: {', '.join(absent)}" if absent else f"{len(references)} images of {usecase} as they are in this tree"
        remedy = f"crispline images build --registry {file.access.registry}; a registry that asks for credentials shows nothing to this check"
        yield Finding("registry", not absent, found, remedy, needed=False)


def _git(file: EnvironmentFile) -> Iterator[Finding]:
    address = file.platform.gitops_repository
    if not is_remote(address):
        yield Finding("Git", False, f"{address} is a folder", "name the repository's address: https://..., ssh://... or git@host:...")
        return
    repository = GitRepository(address, file.platform.gitops_branch)
    yield Finding("Git, read", True, f"{address} {file.platform.gitops_branch} at {repository.head[:12]}", "")
    repository.try_push()
    yield Finding("Git, push", True, "may push branches", "")


def _forge(file: EnvironmentFile) -> Iterator[Finding]:
    api, address = file.platform.forge_url, file.platform.gitops_repository
    if not api:
        yield Finding(
            "forge", False, "forge_url is empty", "proposals are pushed as branches and no pull request is opened; set it to change that", needed=False
        )
        return
    if TOKEN_VARIABLE not in os.environ:
        yield Finding("forge", False, f"{TOKEN_VARIABLE} is not set", "set a token that may write pull requests, to see what it may do", needed=False)
        return
    name = repository_name(address)
    may = call_forge(api, "GET", f"/repos/{name}").get("permissions", {})
    yield Finding(
        "forge", bool(may.get("push")), f"{name}: {', '.join(sorted(key for key, yes in may.items() if yes)) or 'read'}", "give the token write access"
    )
    protected = call_forge(api, "GET", f"/repos/{name}/branches/{file.platform.gitops_branch}").get("protected", False)
    remedy = "require a review for manifests/environments (docs/how-to/gitops.md#who-may-commit)"
    yield Finding("branch rules", bool(protected), f"{file.platform.gitops_branch} is {'' if protected else 'not '}protected", remedy, needed=False)


def _base(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if url else ""


def _of_context(file: EnvironmentFile) -> str:
    return f" in context {file.access.context}" if file.access.context else ""


def _first_line(error: BaseException) -> Any:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]
