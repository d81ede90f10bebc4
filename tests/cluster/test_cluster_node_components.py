"""What goes on while a component of the node is killed. These tests run alone and last, since everything else on the cluster notices it too.

CRISPLINE_RESTART_NODE_COMPONENT is a command that kills a component, {component}, which then starts again: kubelet or kube-apiserver. Without
it the tests skip and say so.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.contracts.events import PERFORMANCE
from components.monitoring.retrain_trigger.stores import open_store
from pipelines.runners.kubeflow_runs import KubeflowRuns
from tests.cluster.access import Cluster, needed_program, pod_spec
from tests.cluster.conftest import Images
from tests.cluster.installed_trigger import TRIGGER, Installation, installed_trigger, months
from tests.cluster.served_model import PREDICTORS, ServedModel, with_releases

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster, pytest.mark.cluster_alone]

RESTART_VARIABLE = "CRISPLINE_RESTART_NODE_COMPONENT"
Restart = Callable[[str], None]


@pytest.fixture(scope="module")
def restart(kube: Cluster) -> Restart:
    """Kill a component by the given command; returns once another process of it is at work."""
    command = os.environ.get(RESTART_VARIABLE, "")
    if not command:
        pytest.skip(f"{RESTART_VARIABLE} is not set; for kind: docker exec <node> pkill -KILL -x {{component}}")
    node = kube.core.list_node().items[0].metadata.name
    metrics = {"kubelet": f"/api/v1/nodes/{node}/proxy/metrics", "kube-apiserver": "/metrics"}

    def raw(path: str) -> str:
        """What the API server answers; empty when it does not."""
        asked = [needed_program("kubectl"), "get", "--raw", path, "--request-timeout=10s"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout

    def started(component: str) -> str:
        found = re.search(r"^process_start_time_seconds (\S+)$", raw(metrics[component]), re.MULTILINE)
        return found[1] if found else ""

    def run(component: str) -> None:
        before = started(component)
        assert before, f"{component} does not say when it started"
        done = subprocess.run(command.format(component=component), shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        kube.wait_for(f"another {component}", lambda: started(component) not in ("", before) and raw("/readyz") == "ok")

    return run


@pytest.fixture(scope="module")
def served(
    kube: Cluster, restart: Restart, helm: Callable[..., str], images: Images, namespace: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> ServedModel:
    return with_releases(kube, helm, images, namespace("kubelet"), tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def installed(
    kube: Cluster, restart: Restart, helm: Callable[..., str], images: Images, namespace: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with installed_trigger(kube, helm, images, namespace, tmp_path_factory.mktemp("trigger")) as installation:
        yield installation


def test_a_killed_kubelet_fails_no_request_and_the_pod_goes_on(served: ServedModel, restart: Restart) -> None:
    served.install(served.releases[0], replicas=1)
    (before,) = served.kube.ready(served.namespace, PREDICTORS)
    with served.load(prefix="kubelet", clients=2, pause=0.02) as load:
        time.sleep(1)
        restart("kubelet")
        time.sleep(1)
        result = load.stop()
    print(f"\n{result}")
    assert result["failed"] == 0 and result["requests"] > 50, result
    (after,) = served.kube.ready(served.namespace, PREDICTORS)
    assert after.metadata.uid == before.metadata.uid
    assert not any(status.restart_count for status in after.status.container_statuses)
    wanted = result["requests"]
    served.kube.wait_for("every row in the log", lambda: len(served.logged("kubelet-")) == wanted)


# Sends each event as a step does, once the one before is decided. Where a step would fail it fails, and is started anew: then all are sent again.
SENDER = f"""
import json, sys, time, httpx
from components.monitoring.performance.steps import post_event
for one in json.loads(sys.argv[2]):
    post_event(sys.argv[1] + "/events", {PERFORMANCE!r}, one["id"], "test", json.dumps(one))
    print("sent", one["id"], flush=True)
    while httpx.get(sys.argv[1] + "/decisions/" + one["id"], timeout=60).status_code != 200:
        time.sleep(0.1)
"""


def test_each_cause_sent_while_the_api_server_is_killed_has_one_run(installed: Installation, images: Images, restart: Restart) -> None:
    kube, place = installed.kube, installed.namespace
    stages = [months(number) for number in reversed(range(6))]  # the latest first: no run that is under way then hinders another
    events, causes = [event for stage in stages for event in stage], sorted(stage[-1].id for stage in stages)
    body = json.dumps([event.model_dump(mode="json") for event in events])
    spec = pod_spec(images["pipeline"], [SENDER, f"http://{TRIGGER}.{place}:8080", body], ["python", "-c"])
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sender", "labels": {"sender": "yes"}}, "spec": {**spec, "restartPolicy": "OnFailure"}}
    kube.apply(pod, namespace=place)
    kube.wait_for("the first two causes to be sent", lambda: kube.log(place, "sender").count("sent") >= 8)
    assert kube.log(place, "sender").count("sent") < len(events)
    restart("kube-apiserver")
    sent = kube.log(place, "sender").count("sent")
    kube.wait_for("the sender's end", lambda: kube.core.read_namespaced_pod("sender", place).status.phase == "Succeeded")
    store = open_store(installed.platform.claims_uri, "flights")

    def decided() -> bool:
        try:
            return len(store.events()) == len(events) and not store.unhandled() and all(claim.run_id for claim in store.unfinished())
        except (ApiException, HTTPError):
            return False

    kube.wait_for("every decision and run", decided)
    print(f"\n{sent} of {len(events)} events were sent when the API server was back")
    with kube.forward(installed.pipelines, "service/ml-pipeline", 8888) as url:
        runs = KubeflowRuns(installed.platform.model_copy(update={"pipelines_url": url})).list("retraining")
    assert sorted(run.cause for run in runs) == causes
    claims = {cause: store.get(cause) for cause in causes}
    assert {run.cause: run.id for run in runs} == {cause: claim.run_id for cause, claim in claims.items() if claim is not None}
