"""The retrain trigger on a real Kubernetes API: its store, the rules of its kinds, and the chart, with replicas that are really killed.

Kubeflow Pipelines is the recording server, which holds requests against KFP's own client models and runs no pipeline.
"""

from __future__ import annotations

import copy
import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from components.monitoring.retrain_trigger.kubernetes_objects import GROUP, VERSION, connect
from components.monitoring.retrain_trigger.kubernetes_store import KubernetesStore
from components.monitoring.retrain_trigger.stores import open_store
from components.monitoring.tests.trigger_on_kubernetes_conformance import TriggerOnKubernetesConformance
from components.monitoring.tests.trigger_store_conformance import START, OpenStore, TriggerStoreConformance, alert, decision, intent
from pipelines.runners.kubeflow_runs import KubeflowRuns
from tests.cluster.access import CONTAINER_SECURITY, POD_SECURITY, Cluster
from tests.cluster.conftest import Images
from tests.cluster.installed_trigger import CHART, LEASE_SECONDS, TRIGGER, Installation, installed_trigger, months

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster]

Namespaces = Callable[..., str]


@pytest.fixture(scope="module")
def kinds(kube: Cluster) -> None:
    """The chart's custom resources, known to the API."""
    for file in sorted((CHART / "crds").glob("*.yaml")):
        definition = yaml.safe_load(file.read_text())
        kube.apply(definition)

        def established(name: str = definition["metadata"]["name"]) -> bool:
            found = kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", name) or {}
            return any(each["type"] == "Established" and each["status"] == "True" for each in (found.get("status") or {}).get("conditions") or [])

        kube.wait_for(f"kind of {file.name}", established)


@pytest.fixture(scope="module")
def store_namespace(kinds: None, namespace: Namespaces) -> str:
    return namespace("claims")


@pytest.fixture
def claims_uri(store_namespace: str) -> str:
    return f"kubernetes:///{store_namespace}/{uuid.uuid4().hex[:8]}"


class TestStoreOnTheRealApi(TriggerStoreConformance):
    @pytest.fixture
    def open_store(self, claims_uri: str) -> OpenStore:
        return lambda: open_store(claims_uri, "flights")


class TestReplicasOnTheRealApi(TriggerOnKubernetesConformance):
    @pytest.fixture
    def claims_uri(self, store_namespace: str) -> str:
        return f"kubernetes:///{store_namespace}/{uuid.uuid4().hex[:8]}"


def test_the_api_refuses_to_change_what_is_fixed(claims_uri: str, store_namespace: str) -> None:
    store = open_store(claims_uri, "flights")
    store.receive(alert("a"), START)
    store.decide_once("a", lambda _: decision("a"))
    store.claim(intent("a"), "owner")
    store.bind("a", "run-1", "flights")
    store.handled("a")
    api = client.CustomObjectsApi(connect())
    prefix = claims_uri.rsplit("/", 1)[1]
    (cause,) = api.list_namespaced_custom_object(GROUP, VERSION, store_namespace, "retraincauses", label_selector=f"crispline.io/claims={prefix}")["items"]

    def refused(change: Callable[[dict[str, Any]], Any], of: dict[str, Any], plural: str = "retraincauses") -> str:
        changed = copy.deepcopy(of)
        change(changed["spec"])
        with pytest.raises(ApiException) as error:
            api.replace_namespaced_custom_object(GROUP, VERSION, store_namespace, plural, changed["metadata"]["name"], changed)
        assert error.value.status == 422, error.value.body
        return str(json.loads(error.value.body)["message"])

    assert "use case and cause are fixed" in refused(lambda spec: spec.update(cause="b"), cause)
    assert "acknowledged is fixed" in refused(lambda spec: spec["event"].update(body="{}"), cause)
    assert "acknowledged is fixed" in refused(lambda spec: spec.pop("event"), cause)
    assert "stays handled" in refused(lambda spec: spec["event"].update(handled=False), cause)
    assert "a decision is fixed" in refused(lambda spec: spec["decision"].update(run=False), cause)
    assert "a decision is fixed" in refused(lambda spec: spec.pop("decision"), cause)
    assert "what a claim is for" in refused(lambda spec: spec["claim"]["parameters"].update(as_of="2014-01-01T00:00:00Z"), cause)
    assert "first run that was bound" in refused(lambda spec: spec["claim"].update(runId="run-2"), cause)
    assert "first run that was bound" in refused(lambda spec: spec.pop("claim"), cause)
    assert "not claimed again" in refused(lambda spec: spec["claim"].update(state="claimed"), cause)
    assert "names its run" in refused(lambda spec: spec.update(claim=spec["claim"] | {"state": "submitted", "runId": ""}), cause)
    assert "Unsupported value" in refused(lambda spec: spec["claim"].update(state="lost"), cause)
    store.finish("a", "failed")
    finished = api.get_namespaced_custom_object(GROUP, VERSION, store_namespace, "retraincauses", cause["metadata"]["name"])
    assert "a finished claim is fixed" in refused(lambda spec: spec["claim"].update(outcome="succeeded"), finished)

    (ledger,) = api.list_namespaced_custom_object(GROUP, VERSION, store_namespace, "retrainledgers", label_selector=f"crispline.io/claims={prefix}")["items"]
    assert "one after the other" in refused(lambda spec: spec.update(sequence=3), ledger, "retrainledgers")
    assert "one after the other" in refused(lambda spec: spec.update(sequence=0), ledger, "retrainledgers")
    assert "a decision is fixed" in refused(lambda spec: spec["last"].update(cause="b"), ledger, "retrainledgers")


def test_the_largest_event_and_the_longest_reason_fit(claims_uri: str) -> None:
    """A reason may quote the effects of two alerts; quotes and backslashes count twice."""
    store = open_store(claims_uri, "flights")
    text = '"' * 60_000
    store.receive(alert("a", effect=text), START)
    long = decision("a", outcome="page", run=False)
    long = type(long)(**{**long.__dict__, "reason": text + text})
    assert store.decide_once("a", lambda _: long) == long
    assert store.decision("a") == long
    assert store.events() == [alert("a", effect=text)]


def test_old_events_are_deleted_and_not_decided_again(store_namespace: str) -> None:
    store = KubernetesStore(connect(), store_namespace, uuid.uuid4().hex[:8], "flights", kept_events=3, forget_every=6)
    for number in range(6):
        store.receive(alert(f"a{number}"), START.replace(hour=number))
        store.decide_once(f"a{number}", lambda _, number=number: decision(f"a{number}", outcome="nothing", run=False))  # type: ignore[misc]
        store.handled(f"a{number}")
    assert [one.id for one in store.events()] == ["a2", "a3", "a4", "a5"]
    assert store.receive(alert("a0"), START) is False
    assert store.unhandled() == []


# --- the chart


@pytest.fixture(scope="module")
def installed(
    kube: Cluster, helm: Callable[..., str], images: Images, namespace: Namespaces, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with installed_trigger(kube, helm, images, namespace, tmp_path_factory.mktemp("trigger")) as installation:
        yield installation


def settled(installation: Installation, cause: str) -> Any:
    """The cause's claim, once its run is bound and the event is done with."""
    store = open_store(installation.platform.claims_uri, "flights")

    def look() -> Any:
        claim = store.get(cause)
        return claim if claim is not None and claim.run_id and cause not in {one.id for one in store.unhandled()} else None

    return installation.kube.wait_for(f"the run of {cause}", look)


def end_of(installation: Installation, run: str) -> None:
    """The run fails, so that the next stage finds none under way."""
    httpx.post(f"{installation.platform.pipelines_url}/apis/v2beta1/runs/{run}:terminate", timeout=120).raise_for_status()
    store = open_store(installation.platform.claims_uri, "flights")
    installation.kube.wait_for(f"the end of run {run}", lambda: run not in {claim.run_id for claim in store.unfinished()})


def one_run(installation: Installation, cause: str) -> None:
    claim = settled(installation, cause)
    runs = [run for run in KubeflowRuns(installation.platform).list("retraining", cause) if run.name == f"retraining-{cause}"]
    assert [run.id for run in runs] == [claim.run_id]
    assert runs[0].parameters["cause"] == cause
    end_of(installation, claim.run_id)


def test_an_event_posted_twice_to_both_replicas_starts_one_run(installed: Installation, record_property: Callable[[str, Any], None]) -> None:
    with ExitStack() as forwards:
        urls = [forwards.enter_context(installed.kube.forward(installed.namespace, f"pod/{pod}", 8080)) for pod in installed.pods()]
        *good, bad = months(0)
        for event in good:
            installed.post(urls[0], event)
        store = open_store(installed.platform.claims_uri, "flights")
        installed.kube.wait_for("the good windows' decisions", lambda: not store.unhandled())
        with ThreadPoolExecutor(4) as pool:
            sent = time.time()
            answers = list(pool.map(lambda url: installed.post(url, bad), [*urls, *urls]))
        assert sorted(answer["duplicate"] for answer in answers) == [False, True, True, True]
        started = installed.reached("after", sent) - sent
        record_property("seconds_from_alert_to_started_run", round(started, 3))
        print(f"from the alert to the started run: {started:.2f} s")
        one_run(installed, bad.id)


@pytest.mark.cluster_long
def test_seconds_from_an_alert_to_its_run(installed: Installation, record_property: Callable[[str, Any], None]) -> None:
    """Five causes, one after the other, each posted once."""
    took = []
    with installed.kube.forward(installed.namespace, f"service/{TRIGGER}", 8080) as url:
        for stage in range(10, 15):
            *good, bad = months(stage)
            for event in good:
                installed.post(url, event)
            store = open_store(installed.platform.claims_uri, "flights")
            installed.kube.wait_for("the good windows' decisions", lambda store=store: not store.unhandled())
            sent = time.time()
            installed.post(url, bad)
            took.append(installed.reached("after", sent) - sent)
            one_run(installed, bad.id)
    took.sort()
    print(f"from the alert to the started run, {len(took)} causes: median {took[len(took) // 2]:.2f} s, longest {took[-1]:.2f} s")
    record_property("seconds_from_alert_to_started_run", [round(each, 3) for each in took])


@pytest.mark.parametrize(("stage", "point", "kill"), [(1, "find", "program"), (2, "before", "pod"), (3, "after", "program"), (4, "after", "pod")])
def test_a_replica_killed_around_the_post_starts_one_run(installed: Installation, stage: int, point: str, kill: str) -> None:
    """find: it has looked and not posted; before: its POST is on the way; after: the run exists, its answer never comes."""
    *good, bad = months(stage)
    store = open_store(installed.platform.claims_uri, "flights")
    installed.pods()
    with installed.kube.forward(installed.namespace, f"service/{TRIGGER}", 8080) as url:
        for event in good:
            installed.post(url, event)
        installed.kube.wait_for("the good windows' decisions", lambda: not store.unhandled())
        installed.hold(point)
        sent = time.time()
        installed.post(url, bad)
        try:
            installed.reached(point, sent)
            claim = store.get(bad.id)
            assert claim is not None
            assert claim.state == "claimed"
            (installed.kill_program if kill == "program" else installed.kill_pod)(claim.owner)
        finally:
            installed.release()
    one_run(installed, bad.id)
    installed.pods()


def test_a_post_that_took_effect_and_timed_out_starts_one_run(installed: Installation) -> None:
    *good, bad = months(5)
    store = open_store(installed.platform.claims_uri, "flights")
    with installed.kube.forward(installed.namespace, f"service/{TRIGGER}", 8080) as url:
        for event in good:
            installed.post(url, event)
        installed.kube.wait_for("the good windows' decisions", lambda: not store.unhandled())
        installed.hold("after")
        sent = time.time()
        installed.post(url, bad)
        installed.reached("after", sent)
        time.sleep(LEASE_SECONDS / 5 + 1)  # a call of the pipelines' API may take a fifth of the lease
        installed.release()
    one_run(installed, bad.id)


def test_the_first_step_of_a_run_reaches_the_claim_as_the_pipelines_service_account(installed: Installation, images: Any) -> None:
    asked = "from components.deployment.steps import run_claim; print([run_claim('flights', cause='manual-1', run=run) for run in ('one', 'two', 'one')])"
    mounts = {"/tmp": {"emptyDir": {}}, "/var/lib/crispline": {"emptyDir": {}}, "/etc/crispline": {"configMap": {"name": "crispline-platform"}}}
    container = {
        "name": "claim",
        "image": images["pipeline"],
        "command": ["python", "-c", asked],
        "env": [{"name": "CRISPLINE_PLATFORM", "value": "/etc/crispline/platform.json"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": f"v{number}", "mountPath": path} for number, path in enumerate(mounts)],
    }
    volumes = [{"name": f"v{number}", **source} for number, source in enumerate(mounts.values())]
    spec = {"serviceAccountName": "pipeline-runner", "restartPolicy": "Never", "securityContext": POD_SECURITY, "containers": [container], "volumes": volumes}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "claim"}, "spec": spec}
    installed.kube.apply(pod, namespace=installed.pipelines)

    def ended() -> bool:
        return installed.kube.core.read_namespaced_pod("claim", installed.pipelines).status.phase in ("Succeeded", "Failed")

    installed.kube.wait_for("the step", ended)
    assert "['effective', 'duplicate', 'effective']" in installed.kube.log(installed.pipelines, "claim")


def may(kube: Cluster, user: str, verb: str, resource: str, namespace: str, group: str = GROUP) -> bool:
    """The API's own answer (SubjectAccessReview)."""
    attributes = client.V1ResourceAttributes(namespace=namespace, verb=verb, group=group, resource=resource)
    review = client.V1SubjectAccessReview(spec=client.V1SubjectAccessReviewSpec(user=user, resource_attributes=attributes))
    return bool(client.AuthorizationV1Api().create_subject_access_review(review).status.allowed)


def test_the_roles_allow_what_is_needed_and_nothing_else(installed: Installation) -> None:
    trigger = f"system:serviceaccount:{installed.namespace}:{TRIGGER}"
    runner = f"system:serviceaccount:{installed.pipelines}:pipeline-runner"
    allowed = {
        (trigger, "retraincauses"): {"get", "list", "create", "update", "delete"},
        (trigger, "retrainledgers"): {"get", "create", "update"},
        (runner, "retraincauses"): {"get", "create", "update"},
        (runner, "retrainledgers"): set(),
    }
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    for (user, resource), expected in allowed.items():
        assert {verb for verb in verbs if may(installed.kube, user, verb, resource, installed.namespace)} == expected, (user, resource)
        assert not any(may(installed.kube, user, verb, resource, "default") for verb in verbs)
    for resource, group in (("secrets", ""), ("configmaps", ""), ("pods", ""), ("leases", "coordination.k8s.io")):
        assert not any(may(installed.kube, trigger, verb, resource, installed.namespace, group) for verb in verbs), resource


def test_only_senders_reach_it_and_it_reaches_only_what_it_needs(installed: Installation, images: Any) -> None:
    url = f"http://{TRIGGER}.{installed.namespace}:8080/livez"
    # A policy reaches the node a moment after the pod that it lets through.
    ask = f"""
import sys, time, urllib.request
for _ in range(int(sys.argv[1])):
    try:
        print(urllib.request.urlopen({url!r}, timeout=5).status)
        break
    except OSError as error:
        print(error)
        time.sleep(1)
else:
    sys.exit(1)
"""
    for name, labels, times, answered in (("sender", {"sender": "yes"}, 60, True), ("stranger", {"sender": "no"}, 2, False)):
        container = {
            "name": "ask",
            "image": images["pipeline"],
            "command": ["python", "-c", ask, str(times)],
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "securityContext": CONTAINER_SECURITY,
        }
        spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": POD_SECURITY, "containers": [container]}
        installed.kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}, namespace=installed.namespace)
        phase = installed.kube.wait_for(
            name,
            lambda name=name: (
                found if (found := installed.kube.core.read_namespaced_pod(name, installed.namespace).status.phase) in ("Succeeded", "Failed") else None
            ),
        )
        assert (phase == "Succeeded") is answered, installed.kube.log(installed.namespace, name)
    pod = installed.pods()[0]
    elsewhere = "import socket\ntry:\n  socket.create_connection(('{0}', {1}), 4); print('open')\nexcept OSError as error: print('closed')"
    trigger_ip = installed.kube.core.read_namespaced_pod(installed.pods()[1], installed.namespace).status.pod_ip
    assert "closed" in installed.kube.run_in(installed.namespace, pod, ["python", "-c", elsewhere.format(trigger_ip, 8080)])
    assert "open" in installed.kube.run_in(installed.namespace, pod, ["python", "-c", elsewhere.format(f"ml-pipeline.{installed.pipelines}", 8888)])


def test_helm_test_passes_and_what_it_sent_leads_to_nothing(installed: Installation) -> None:
    said = installed.helm("test", TRIGGER, "-n", installed.namespace)
    assert "Phase:          Succeeded" in said
    assert "refuses a bad event" in said
    store = open_store(installed.platform.claims_uri, "flights")
    (sent,) = [event for event in store.events() if event.id.startswith("helm-test-")]
    made = store.decision(sent.id)
    assert made is not None
    assert made.outcome == "nothing"


def test_suspended_it_keeps_events_and_decides_them_later_and_uninstalled_it_leaves_them(installed: Installation) -> None:
    *good, bad = months(20)
    store = open_store(installed.platform.claims_uri, "flights")
    installed.upgrade("--set", "suspend=true", "--wait", "--timeout", "10m")
    installed.pods()  # and none of the old ones is left that still decides
    with installed.kube.forward(installed.namespace, f"service/{TRIGGER}", 8080) as url:
        for event in [*good, bad]:
            installed.post(url, event)
        assert httpx.get(f"{url}/healthz", timeout=120).json()["status"] == "suspended"
        time.sleep(3)
        assert [event.id for event in store.unhandled()] == [event.id for event in [*good, bad]]
    installed.helm("rollback", TRIGGER, "1", "-n", installed.namespace, "--wait", "--timeout", "10m")
    one_run(installed, bad.id)
    installed.helm("uninstall", TRIGGER, "-n", installed.namespace, "--wait")
    assert bad in store.events()
    assert store.decision(bad.id) is not None
    left = installed.kube.core.list_namespaced_config_map(installed.namespace).items
    assert {each.metadata.name for each in left} == {"kube-root-ca.crt", "crispline-platform"}
