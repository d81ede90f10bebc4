"""The retrain trigger's chart in a namespace that enforces `restricted`, with the recording KFP server in another one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from components.contracts.events import ALERT, PERFORMANCE, Alert, Performance
from components.contracts.platform import Platform
from components.monitoring.tests.test_retrain_trigger_claims import performance
from components.monitoring.tests.trigger_on_kubernetes_conformance import retraining_pipeline
from tests.cluster import recording_kfp_pod
from tests.cluster.access import CONTAINER_SECURITY, POD_SECURITY, Cluster
from tests.cluster.conftest import Images

CHART = Path(__file__).resolve().parents[2] / "charts" / "retrain-trigger"
TRIGGER = "crispline-retrain-trigger"
LEASE_SECONDS = 10


@dataclass(frozen=True)
class Installation:
    """The chart in a namespace that enforces `restricted`, with the recording KFP server in another one."""

    kube: Cluster
    helm: Callable[..., str]
    namespace: str
    pipelines: str
    values: Path
    platform: Platform  # as seen from the test

    def upgrade(self, *arguments: str) -> None:
        self.helm("upgrade", "--install", TRIGGER, str(CHART), "-n", self.namespace, "-f", str(self.values), *arguments)

    def pods(self, count: int = 2) -> list[str]:
        return [pod.metadata.name for pod in self.kube.ready(self.namespace, "app.kubernetes.io/component=trigger", count)]

    def post(self, url: str, event: Alert | Performance) -> dict[str, Any]:
        kind = PERFORMANCE if isinstance(event, Performance) else ALERT
        headers = {"ce-id": event.id, "ce-source": "test", "ce-type": kind, "ce-specversion": "1.0", "content-type": "application/json"}
        answer = httpx.post(f"{url}/events", content=event.model_dump_json(), headers=headers, timeout=120)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def hold(self, point: str) -> None:
        self.kube.run_in(self.pipelines, "recording-kfp", ["touch", f"/tmp/hold-{point}"])

    def release(self) -> None:
        self.kube.run_in(self.pipelines, "recording-kfp", ["sh", "-c", "rm -f /tmp/hold-*"])

    def reached(self, point: str, after: float) -> float:
        """When a request came to a point, seconds since the epoch; waits for the first one later than `after`."""

        def look() -> float | None:
            lines = [json.loads(line) for line in self.kube.log(self.pipelines, "recording-kfp").splitlines() if line.startswith("{")]
            return next((float(line["time"]) for line in lines if line["point"] == point and line["time"] > after), None)

        return self.kube.wait_for(f"a request at {point}", look)

    def kill_program(self, pod: str) -> None:
        """kill -9 of the program in a pod; its container starts again under the same name."""
        script = "import os,signal;[os.kill(int(p),signal.SIGKILL) for p in os.listdir('/proc') if p.isdigit() and b'retrain_trigger' in open(f'/proc/{p}/cmdline','rb').read() and int(p)!=os.getpid() and int(p)!=1]"
        before = self.restarts(pod)
        with contextlib.suppress(Exception):  # the command may be gone with its container before it has said so
            self.kube.run_in(self.namespace, pod, ["python", "-c", script])
        self.kube.wait_for(f"restart of {pod}", lambda: self.restarts(pod) > before)

    def restarts(self, pod: str) -> int:
        return int(self.kube.core.read_namespaced_pod(pod, self.namespace).status.container_statuses[0].restart_count)

    def kill_pod(self, pod: str) -> None:
        """The pod is gone at once, as with its node; another one takes its place under another name."""
        self.kube.core.delete_namespaced_pod(pod, self.namespace, grace_period_seconds=0)


@contextlib.contextmanager
def installed_trigger(kube: Cluster, helm: Callable[..., str], images: Images, namespace: Callable[..., str], folder: Path) -> Iterator[Installation]:
    """Two replicas, uninstalled after the block. `folder`: for the chart's values and the state of this side."""
    place, pipelines = namespace("retraining"), namespace("pipelines")
    image = images["pipeline"]
    kube.apply(*recording_kfp_pod.objects(image, retraining_pipeline(), POD_SECURITY, CONTAINER_SECURITY), namespace=pipelines)
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}}
    kube.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "records"}, "spec": claim}, namespace=place)
    runner = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "pipeline-runner"}}
    kube.apply(runner, namespace=pipelines)
    inside = Platform.embedded(Path("/var/lib/crispline")).model_copy(
        update={"claims_uri": f"kubernetes:///{place}/claims", "pipelines_url": f"http://ml-pipeline.{pipelines}:8888"}
    )
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "crispline-platform"}, "data": {"platform.json": inside.model_dump_json()}}
    kube.apply(settings, namespace=place)
    kube.apply(settings, namespace=pipelines)
    values = folder / "values.yaml"
    registry, repository = image.rsplit(":", 1)[0].rsplit("/", 1)
    values.write_text(
        yaml.safe_dump(
            {
                "usecase": "flights",
                "environment": "dev",
                "runMode": "enabled",
                "leaseSeconds": LEASE_SECONDS,
                "pollSeconds": 1,
                "images": {"registry": registry, "pipeline": {"repository": repository, "tag": image.rsplit(":", 1)[1]}},
                "sharedVolume": {"existingClaim": "records"},
                "pipelineRunner": {"serviceAccounts": [{"namespace": pipelines, "name": "pipeline-runner"}]},
                "networkPolicy": {
                    "senders": [{"podSelector": {"matchLabels": {"sender": "yes"}}}],
                    "pipelines": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": pipelines}}}],
                    "gitPorts": [],
                },
            }
        )
    )
    kube.ready(pipelines, "app=ml-pipeline")
    with kube.forward(pipelines, "service/ml-pipeline", 8888) as url:
        outside = Platform.embedded(folder / "state").model_copy(update={"claims_uri": inside.claims_uri, "pipelines_url": url})
        installation = Installation(kube, helm, place, pipelines, values, outside)
        installation.upgrade()
        installation.pods()
        yield installation
        helm("uninstall", TRIGGER, "-n", place, "--ignore-not-found")


def months(stage: int) -> list[Performance]:
    """Good windows, then a bad one, far enough from those of other stages that neither cooldown nor budget binds."""
    first = stage * 60
    return [performance(first + week, 0.72) for week in (-3, -2, -1)] + [performance(first, 0.55)]
