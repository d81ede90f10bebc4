"""The chart model-server on a real cluster, in deployment mode, in a namespace that enforces the pod-security level `restricted`.

What is measured here is crispline's forwarder in front of the model, not Seldon's executor: the operator has its own tests where it is installed.
The tests run in order on one installation, since each needs what the one before it left.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from kubernetes.client.exceptions import ApiException

from tests.cluster.access import CONTAINER_SECURITY, POD_SECURITY, Cluster, Object
from tests.cluster.conftest import Images
from tests.cluster.served_model import (
    CHART,
    NAME,
    PREDICTORS,
    SPLITTERS,
    USECASE,
    ServedModel,
    build_haproxy_image,
    with_releases,
)  # fmt: skip

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster]


@pytest.fixture(scope="module")
def served(
    kube: Cluster, helm: Callable[..., str], images: Images, namespace: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedModel]:
    yield with_releases(kube, helm, images, namespace("serving"), tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def haproxy(images: Images) -> str:
    return build_haproxy_image()


def server_of(served: ServedModel, pod: str) -> int:
    """Process id of the sidecar's server inside its container."""
    return int(served.python(pod, "print(open('/proc/1/task/1/children').read())", "sidecar").split()[0])


def test_pods_become_ready_under_restricted(served: ServedModel, record_property: Callable[[str, Any], None]) -> None:
    seconds = served.install(served.releases[0])
    pods = served.kube.ready(served.namespace, PREDICTORS, 2)
    starts = [_ready_at(pod) for pod in pods]
    record_property("seconds from pod to ready", max(starts))
    print(f"\ninstalled in {seconds:.1f} s; pods ready after {', '.join(f'{start:.0f}' for start in starts)} s")
    assert not any(status.restart_count for pod in pods for status in pod.status.container_statuses)
    log = served.kube.log(served.namespace, pods[0].metadata.name, "fetch-release")
    assert "files verified" in log and served.releases[0][:12] in log


def _ready_at(pod: Any) -> float:
    condition = next(each for each in pod.status.conditions if each.type == "Ready")
    return float((condition.last_transition_time - pod.metadata.creation_timestamp).total_seconds())


def test_a_prediction_through_the_service_reaches_the_prediction_log(served: ServedModel) -> None:
    with served.load(requests=20, clients=2, prefix="first") as load:
        result = load.result()
    assert result["statuses"] == {"200": 20} and result["releases"] == {served.releases[0]: 20}
    rows = served.kube.wait_for("20 rows in the log", lambda: _when(len(found := served.logged("first-")) >= 20, found))
    assert sorted(row["id"] for row in rows) == sorted(f"first-{number}-0" for number in range(20))
    assert {(row["predictor"], row["release"], row["entity"]) for row in rows} == {("default", served.releases[0], "probe")}
    assert {row["instance"].rsplit("-", 1)[0] for row in rows} <= {pod.metadata.name for pod in served.kube.pods(served.namespace, PREDICTORS)}


def _when(condition: bool, found: Any) -> Any:
    return found if condition else None


def test_a_bad_request_is_refused_with_the_field_at_fault(served: ServedModel) -> None:
    with served.kube.forward(served.namespace, f"service/{NAME}", 8000) as url:
        answer = httpx.post(f"{url}/api/v1.0/predictions", content=served.request(features={"distance": "far"}), headers={"content-type": "application/json"})
        assert answer.status_code == 422 and answer.json()["status"]["field"].startswith("instances[0].features.")
        assert httpx.get(f"{url}/nowhere").status_code == 404


def test_helm_test_makes_a_prediction_and_a_bad_request_and_leaves_no_pod(served: ServedModel) -> None:
    said = served.helm("test", USECASE, "-n", served.namespace, "--timeout", "10m")
    assert "Phase:          Succeeded" in said
    assert served.kube.get("v1", "Pod", f"{NAME}-test", served.namespace) is None


def test_network_policies_deny_what_is_not_a_declared_flow(served: ServedModel, namespace: Callable[..., str]) -> None:
    stranger_home = namespace("stranger")
    served.standing_pod("stranger", "serving", namespace=stranger_home)
    served.standing_pod("neighbour", "serving")
    pod = served.kube.pods(served.namespace, PREDICTORS)[0]
    service = f"{NAME}.{served.namespace}.svc.cluster.local"

    def reaches(who: str, host: str, port: int, home: str = "", container: str = "") -> bool:
        program = f"import socket\ntry: socket.create_connection(({host!r}, {port}), 3).close(); print('open')\nexcept OSError as error: print('closed', error)"
        return served.python(who, program, container, home).strip().startswith("open")

    # A policy reaches the node a moment after the pod that it lets through.
    served.kube.wait_for("the way of the namespace's clients", lambda: reaches("neighbour", service, 8000))
    assert not reaches("stranger", service, 8000, stranger_home), "another namespace"
    for port in (9000, 8080):
        assert not reaches("neighbour", pod.status.pod_ip, port), f"port {port} is for Prometheus"
        assert not reaches("stranger", pod.status.pod_ip, port, stranger_home)
    kubernetes = served.kube.core.read_namespaced_service("kubernetes", "default").spec.cluster_ip
    assert reaches("neighbour", kubernetes, 443), "the API server is there"
    for container in ("model", "forwarder", "sidecar"):
        assert not reaches(pod.metadata.name, kubernetes, 443, container=container), f"{container} has no way to the API server"
    other = served.kube.core.read_namespaced_pod("neighbour", served.namespace).status.pod_ip
    assert not reaches(pod.metadata.name, other, 8000, container="model")


def test_prometheus_reads_every_metric_from_its_own_namespace(served: ServedModel, namespace: Callable[..., str]) -> None:
    home = namespace("prometheus")
    served.install(served.releases[0], networkPolicy={"prometheus": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": home}}}]})
    served.standing_pod("prometheus", "serving", namespace=home)
    ip = served.kube.pods(served.namespace, PREDICTORS)[0].status.pod_ip
    for port, name in ((8000, "crispline_forwarder_requests_total"), (9000, "crispline_model_info"), (8080, "crispline_sidecar_events_total")):
        program = f"import urllib.request as u\ntry: print(u.urlopen('http://{ip}:{port}/metrics', timeout=10).read().decode())\nexcept OSError as error: print(error)"
        served.kube.wait_for(f"{name} on {port}", lambda program=program, name=name: name in served.python("prometheus", program, namespace=home))  # type: ignore[misc]


def test_kill_9_of_a_sidecars_server_under_load_fails_no_request_and_the_port_stays_open(served: ServedModel) -> None:
    """With two replicas; the next test does it with one."""
    pods = served.kube.ready(served.namespace, PREDICTORS, 2)
    _kill_under_load(served, [pod.metadata.name for pod in pods], "two")


def test_one_replica_survives_it_too_because_its_first_process_restarts_the_server(served: ServedModel) -> None:
    served.install(served.releases[0], replicas=1)
    (pod,) = served.kube.ready(served.namespace, PREDICTORS, 1)
    _kill_under_load(served, [pod.metadata.name], "one")


def _kill_under_load(served: ServedModel, pods: list[str], name: str) -> None:
    with served.load(prefix=f"kill-{name}", clients=2, pause=0.02) as load:
        time.sleep(2)
        killed = server_of(served, pods[0])
        served.python(pods[0], f"import os, signal; os.kill({killed}, signal.SIGKILL)", "sidecar")
        served.kube.wait_for("another server", lambda: _replaced(served, pods[0], killed))
        time.sleep(2)
        result = load.stop()
    assert result["failed"] == 0, result
    assert result["requests"] > 50
    after = served.kube.core.read_namespaced_pod(pods[0], served.namespace)
    assert all(status.restart_count == 0 and status.ready for status in after.status.container_statuses)
    wanted = result["requests"]
    rows = served.kube.wait_for("the log to catch up", lambda: _when(len(found := served.logged(f"kill-{name}-")) >= wanted - 10, found))
    lost = wanted - len(rows)
    print(f"\n{wanted} requests, {lost} events lost with the killed server (at most ten, one for each of the sender's workers)")
    assert 0 <= lost <= 10


def _replaced(served: ServedModel, pod: str, killed: int) -> bool:
    """Whether another server answers behind the port; the killed one may have taken a question with it."""
    try:
        return bool(served.sidecar_status(pod)["usecase"] == USECASE and server_of(served, pod) != killed)
    except (AssertionError, IndexError):
        return False


def test_with_two_replicas_a_sidecar_container_that_ends_takes_no_request_with_it(served: ServedModel) -> None:
    """The container's first process ends, as when the kubelet or the kernel ends it: the pod is out of service until it is back, its predictions are not."""
    served.install(served.releases[0], replicas=2)
    pods = served.kube.ready(served.namespace, PREDICTORS, 2)
    name = pods[0].metadata.name
    with served.load(prefix="container", clients=2, pause=0.02) as load:
        time.sleep(1)
        served.python(name, "import os, signal; os.kill(1, signal.SIGTERM)", "sidecar")

        def restarted() -> bool:
            statuses = served.kube.core.read_namespaced_pod(name, served.namespace).status.container_statuses
            return any(status.name == "sidecar" and status.restart_count >= 1 and status.ready for status in statuses)

        served.kube.wait_for("the sidecar's container to be back", restarted)
        result = load.stop()
    assert result["failed"] == 0, result


def test_a_rolling_update_under_load_fails_no_request(served: ServedModel) -> None:
    first, second = served.releases
    with served.load(prefix="roll", clients=4, pause=0.01) as load:
        seconds = served.install(second)
        result = load.stop()
    print(f"\nrolled over in {seconds:.1f} s under load: {result}")
    assert result["failed"] == 0, result
    assert set(result["releases"]) == {first, second} and result["requests"] > 50


def test_a_rollback_under_load_fails_no_request(served: ServedModel) -> None:
    with served.load(prefix="back", clients=2, pause=0.01) as load:
        served.helm("rollback", USECASE, "-n", served.namespace, "--wait", "--timeout", "10m")
        result = load.stop()
    assert result["failed"] == 0, result
    assert served.releases[0] in result["releases"]
    with served.load(requests=10, prefix="after") as load:
        assert load.result()["releases"] == {served.releases[0]: 10}


def interval(share: float, requests: int, deviations: float = 3.9) -> tuple[float, float]:
    """Where a binomial share lies but once in ten thousand times (normal approximation)."""
    spread = deviations * math.sqrt(share * (1 - share) / requests)
    return share - spread, share + spread


REQUESTS = 400  # enough to tell 60 % from 25 %: each interval is 10 points wide at most, to either side


def test_a_canary_gets_its_weight_and_a_higher_one_under_load(served: ServedModel, haproxy: str) -> None:
    first, second = served.releases
    canary = {"release": second, "plan": [25, 60], "step": 0, "weight": 25, "shadow": False}
    served.install(first, replicas=1, canary=canary, splitter={"kind": "haproxy", "haproxy": {"replicas": 1, "image": haproxy}})
    with served.load(requests=REQUESTS, clients=4, prefix="canary") as load:
        low, high = interval(0.25, REQUESTS)
        found = load.result()
    assert found["failed"] == 0 and low < found["predictors"]["canary"] / REQUESTS < high, found
    assert found["releases"] == {first: found["predictors"]["default"], second: found["predictors"]["canary"]}

    with served.load(requests=20, prefix="named", header="X-Crispline-Predictor=canary") as load:
        assert load.result()["predictors"] == {"canary": 20}

    with served.load(clients=2, pause=0.01, prefix="raised") as load:
        seconds = served.install(
            first, replicas=1, canary={**canary, "step": 1, "weight": 60}, splitter={"kind": "haproxy", "haproxy": {"replicas": 1, "image": haproxy}}
        )
        raised = load.stop()
    assert raised["failed"] == 0, raised
    with served.load(requests=REQUESTS, clients=4, prefix="sixty") as load:
        low, high = interval(0.6, REQUESTS)
        found = load.result()
    assert low < found["predictors"]["canary"] / REQUESTS < high, found
    print(f"\na new weight is in force {seconds:.1f} s after `helm upgrade`")

    rows = served.kube.wait_for("canary's rows", lambda: _when(len(rows := served.logged("sixty-")) >= REQUESTS - 10, rows))
    by_predictor = {name: sum(row["predictor"] == name for row in rows) for name in ("default", "canary")}
    assert abs(by_predictor["canary"] - found["predictors"]["canary"]) <= 10
    assert {(row["predictor"], row["release"]) for row in rows} == {("default", first), ("canary", second)}


def test_a_canary_that_is_taken_back_fails_no_request(served: ServedModel, haproxy: str) -> None:
    with served.load(clients=2, pause=0.01, prefix="gone") as load:
        served.install(served.releases[0], replicas=1, canary={}, splitter={"kind": "haproxy", "haproxy": {"replicas": 1, "image": haproxy}})
        served.kube.wait_for("the canary to go", lambda: served.kube.get("apps/v1", "Deployment", f"{NAME}-canary", served.namespace) is None)
        result = load.stop()
    assert result["failed"] == 0, result
    with served.load(requests=20, prefix="alone") as load:
        assert load.result()["predictors"] == {"default": 20}
    assert len(served.kube.ready(served.namespace, SPLITTERS, 1)) == 1


def test_weights_without_a_splitter_are_refused_before_anything_changes(served: ServedModel) -> None:
    given = {**served.values, "usecase": USECASE, "environment": "dev", "release": served.releases[0], "canary": {"release": served.releases[1], "weight": 5}}
    said = served.helm("upgrade", USECASE, CHART, "-n", served.namespace, "-f", "-", input=json.dumps(given), check=False)
    assert "nothing here divides them: splitter.kind is none; set it to haproxy or gateway-api" in said


def test_a_shadow_sees_every_request_and_answers_nobody(served: ServedModel) -> None:
    first, second = served.releases
    served.install(first, replicas=1, canary={"release": second, "shadow": True})
    with served.load(requests=50, clients=2, prefix="shadow") as load:
        result = load.result()
    assert result["failed"] == 0 and result["releases"] == {first: 50}
    rows = served.kube.wait_for("both predictors' rows", lambda: _when(len(rows := served.logged("shadow-")) >= 100, rows))
    for predictor, release in (("default", first), ("shadow", second)):
        assert sorted(row["id"] for row in rows if row["predictor"] == predictor and row["release"] == release) == sorted(f"shadow-{n}-0" for n in range(50))


def test_a_release_that_was_changed_in_the_store_is_not_served_and_the_old_one_is(served: ServedModel) -> None:
    changed = "0" * 64
    served.install(changed, wait=False, replicas=1)
    failed = served.kube.wait_for("the init container's refusal", lambda: _refusal(served, changed))
    assert "was the release published to this store?" in failed
    with served.load(requests=10, prefix="still") as load:
        assert load.result()["releases"] == {served.releases[0]: 10}


def _refusal(served: ServedModel, release: str) -> str:
    for pod in served.kube.pods(served.namespace, PREDICTORS):
        if pod.metadata.annotations["crispline.io/release"] == release:
            return served.kube.log(served.namespace, pod.metadata.name, "fetch-release")
    return ""


def test_uninstall_leaves_the_volume_and_nothing_of_the_chart(served: ServedModel) -> None:
    notes = served.helm("get", "notes", USECASE, "-n", served.namespace)
    assert "kubectl -n" in notes and "delete pvc data" in notes
    served.helm("uninstall", USECASE, "-n", served.namespace, "--wait", "--timeout", "10m")
    core, apps, networking = served.kube.core, served.kube.apps, served.kube.networking
    selector = f"app.kubernetes.io/instance={USECASE}"

    def left() -> list[str]:
        lists = [
            core.list_namespaced_pod, core.list_namespaced_service, core.list_namespaced_config_map, core.list_namespaced_secret,
            core.list_namespaced_service_account, core.list_namespaced_persistent_volume_claim, apps.list_namespaced_deployment,
            apps.list_namespaced_replica_set, networking.list_namespaced_network_policy,
        ]  # fmt: skip
        return [f"{type(each).__name__}/{each.metadata.name}" for found in lists for each in found(served.namespace, label_selector=selector).items]

    served.kube.wait_for("everything to go", lambda: not left())
    assert [claim.metadata.name for claim in core.list_namespaced_persistent_volume_claim(served.namespace).items] == ["data"]
    assert len(served.logged("first-")) == 20, "the data are there"


# Seldon's operator


def test_the_api_takes_the_seldon_deployment_and_drops_nothing(kube: Cluster, helm: Callable[..., str], namespace: Callable[..., str]) -> None:
    """The definition's schema and rules as the API server applies them, strictly; the operator's webhook has its own tests (tests/charts)."""
    from ruamel.yaml import YAML

    group = "machinelearning.seldon.io"
    if kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"seldondeployments.{group}") is None:
        pytest.skip(f"the cluster has no CRD seldondeployments.{group}; install Seldon Core's operator or its definition alone")
    files = ("-f", f"{CHART}/ci/seldon-values.yaml", "--kube-version", "1.36.0", "-s", "templates/seldondeployment.yaml")
    (made,) = [each for each in YAML(typ="safe").load_all(helm("template", USECASE, CHART, *files)) if each]
    made["metadata"].pop("namespace", None)
    kept = kube.custom.create_namespaced_custom_object(group, "v1", namespace("seldon"), "seldondeployments", made, dry_run="All", field_validation="Strict")
    assert kept["spec"] == made["spec"]


def executors_pod(served: ServedModel, name: str, labels: dict[str, str]) -> Object:
    """A pod as the operator makes it: the executor's container has a user, if one is configured, and may not gain privileges."""
    engine = {
        "name": "seldon-container-engine",
        "image": served.images["serving"],
        "command": ["sleep", "600"],
        "ports": [{"name": "http", "containerPort": 8000}, {"name": "metrics", "containerPort": 8000}, {"name": "grpc", "containerPort": 5001}],
        "securityContext": {"runAsUser": 8888, "allowPrivilegeEscalation": False},
        "resources": {"requests": {"cpu": "10m"}},
    }
    model = {"name": "model", "image": served.images["serving"], "command": ["sleep", "600"], "securityContext": CONTAINER_SECURITY}
    spec = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 20, "securityContext": POD_SECURITY, "containers": [model, engine]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def test_the_admission_policy_completes_the_executor_so_that_restricted_takes_its_pod(served: ServedModel, namespace: Callable[..., str]) -> None:
    """Needs Kubernetes 1.36 or newer; an older cluster has no such policy, and its namespaces enforce `baseline`."""
    from kubernetes.client import VersionApi

    version = VersionApi().get_code()
    if (int(version.major), int(version.minor.rstrip("+"))) < (1, 36):
        pytest.skip(f"Kubernetes {version.git_version} has no MutatingAdmissionPolicy v1; 1.36 or newer makes this test run")
    home = namespace("executor")
    labels = {"app.kubernetes.io/name": "model-server", "app.kubernetes.io/instance": "executor", "app.kubernetes.io/component": "predictor"}
    with pytest.raises(ApiException, match="restricted"):
        served.kube.core.create_namespaced_pod(home, executors_pod(served, "before", labels))

    given = {"usecase": USECASE, "environment": "dev", "release": served.releases[0]}
    rendered = served.helm(
        *("template", "executor", CHART, "-n", home, "--kube-version", version.git_version, "-s", "templates/mutatingadmissionpolicy.yaml", "-f", "-"),
        input=json.dumps(given),
    )
    from ruamel.yaml import YAML

    objects = [each for each in YAML(typ="safe").load_all(rendered) if each]
    assert [each["kind"] for each in objects] == ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"]
    try:
        served.kube.apply(*objects)
        pod = served.kube.wait_for("the policy to be in force", lambda: _created(served, home, executors_pod(served, "after", labels)))
        engine = next(each for each in pod.spec.containers if each.name == "seldon-container-engine")
        context = engine.security_context
        assert (context.run_as_user, context.run_as_non_root, context.allow_privilege_escalation, context.read_only_root_filesystem) == (
            8888,
            True,
            False,
            True,
        )
        assert context.capabilities.drop == ["ALL"] and context.seccomp_profile.type == "RuntimeDefault"
        assert engine.lifecycle.pre_stop.sleep.seconds == 8
        assert [port.name for port in engine.ports] == ["http", "metrics", "grpc"]
        model = next(each for each in pod.spec.containers if each.name == "model")
        assert model.lifecycle is None
        bare = executors_pod(served, "bare", labels)
        del bare["spec"]["containers"][1]["securityContext"]
        served.kube.core.create_namespaced_pod(home, bare)
        with pytest.raises(ApiException, match="restricted"):
            served.kube.core.create_namespaced_pod(home, executors_pod(served, "foreign", {**labels, "app.kubernetes.io/instance": "another"}))
    finally:
        for each in objects:
            served.kube.delete(each["apiVersion"], each["kind"], each["metadata"]["name"])


def _created(served: ServedModel, home: str, pod: Object) -> Any:
    try:
        return served.kube.core.create_namespaced_pod(home, pod)
    except ApiException as error:
        if error.status == 403:
            return None
        raise
