"""A small real model served on the cluster: its releases on a volume, the chart's values, load from inside, and what reached the prediction log."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from components.contracts.durations import format_moment
from components.contracts.platform import Platform
from components.contracts.serving import ServingContract
from components.deployment.bundle import read_file
from components.deployment.tests.example_release import build_release
from components.model_server.request_probes import probes
from pipelines.images import IMAGE_LOAD_VARIABLE
from pipelines.runners.environments import ROOT
from tests.cluster.access import CONTAINER_SECURITY, POD_SECURITY, Cluster, Object, building
from tests.cluster.conftest import Images

USECASE, NAME = "flights", "flights-model"
DATA = "/var/lib/crispline"
CHART = str(ROOT / "charts" / "model-server")
PREDICTORS = "app.kubernetes.io/component=predictor"
SPLITTERS = "app.kubernetes.io/component=splitter"
HERE = Path(__file__).resolve().parent
HAPROXY_IMAGE, REDIS_IMAGE = "localhost:5000/crispline-test-haproxy:bookworm", "localhost:5000/crispline-tests/redis:bookworm"
Helm = Callable[..., str]


def build_debian_image(name: str, image: str) -> str:
    """A program of Debian's (haproxy, redis), made known to the cluster as `image` by the command of CRISPLINE_IMAGE_LOAD; that reference."""
    folder = HERE / name
    command = os.environ[IMAGE_LOAD_VARIABLE].format(context=folder, dockerfile=folder / "Dockerfile", arguments="", image=image)
    with building():
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return image


def build_haproxy_image() -> str:
    return build_debian_image("haproxy", HAPROXY_IMAGE)


def build_redis_image() -> str:
    return build_debian_image("redis", REDIS_IMAGE)


@dataclass
class Load:
    """Requests that run in a pod meanwhile; `result` waits for their end."""

    kube: Cluster
    namespace: str
    pod: str
    _found: Object | None = field(default=None, init=False)

    def result(self) -> Object:
        if self._found is None:
            self.kube.wait_for(f"the end of {self.pod}", self._ended)
            self._found = json.loads(self.kube.log(self.namespace, self.pod).splitlines()[-1])
            self.kube.delete("v1", "Pod", self.pod, self.namespace)
        return self._found

    def stop(self) -> Object:
        """End it in order, as soon as its requests in flight are answered."""
        if self._found is None:
            self.kube.run_in(self.namespace, self.pod, ["python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)"])
        return self.result()

    def _ended(self) -> bool:
        phase = self.kube.core.read_namespaced_pod(self.pod, self.namespace).status.phase
        assert phase != "Failed", self.kube.log(self.namespace, self.pod)
        return bool(phase == "Succeeded")


@dataclass
class ServedModel:
    """A namespace with a volume that holds releases, and the chart in it once `install` was called."""

    kube: Cluster
    helm: Helm
    namespace: str
    images: Mapping[str, str]
    releases: list[str]
    contract: ServingContract
    values: Object
    _pods: int = field(default=0, init=False)

    @property
    def url(self) -> str:
        return f"http://{NAME}:8000/api/v1.0/predictions"

    def install(self, release: str, *, wait: bool = True, **changes: Any) -> float:
        """`helm upgrade --install` with a release in service and further values; seconds until every pod is ready."""
        given = {**self.values, "usecase": USECASE, "environment": "dev", "release": release, **changes}
        began = time.monotonic()
        self.helm(
            *("upgrade", "--install", USECASE, CHART, "-n", self.namespace, "-f", "-"),
            *(("--wait", "--timeout", "10m") if wait else ()),
            input=json.dumps(given),
        )
        return time.monotonic() - began

    def request(self, **changes: Any) -> bytes:
        """A well-formed request with complete features, asked now."""
        now = datetime.now(UTC)
        (row,) = next(probe for probe in probes(self.contract) if probe.name == "well-formed, complete").document["instances"]
        moments = {"prediction_moment": format_moment(now), "event_time": format_moment(now + timedelta(seconds=self.contract.lead_seconds))}
        return json.dumps({"jsonData": {"instances": [{**row, **moments, **changes}]}}).encode()

    @contextmanager
    def load(self, *, url: str = "", prefix: str = "load", clients: int = 4, **options: Any) -> Iterator[Load]:
        """Requests from inside the namespace while the block runs, until `stop`, or as many as `requests` says. `options`: those of load_in_pod.py."""
        self._pods += 1
        name = f"load-{self._pods}"
        files = {"load.py": (HERE / "load_in_pod.py").read_text(), "body.json": self.request().decode()}
        self.kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": files}, namespace=self.namespace)
        arguments = ["--url", url or self.url, "--body", "/load/body.json", "--seconds", "1800", "--clients", str(clients), "--prefix", prefix]
        arguments += [part for key, value in options.items() for part in (f"--{key}", str(value))]
        pod = self.pod(name, "serving", ["python", "/load/load.py", *arguments], {"/load": {"configMap": {"name": name}}})
        running = Load(self.kube, self.namespace, name)
        self.kube.apply(pod, namespace=self.namespace)
        self.kube.wait_for(f"the start of {name}", lambda: "started" in self.kube.log(self.namespace, name))
        yield running
        running.result()

    def pod(self, name: str, image: str, command: Sequence[str], volumes: Mapping[str, Object], **labels: str) -> Object:
        """A restricted pod that runs a command once."""
        names = {path: f"v{number}" for number, path in enumerate(volumes)}
        container = {
            "name": "main",
            "image": self.images[image],
            "command": list(command),
            "env": [{"name": "HOME", "value": "/tmp"}],
            "securityContext": CONTAINER_SECURITY,
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
            "volumeMounts": [*({"name": names[path], "mountPath": path} for path in volumes), {"name": "tmp", "mountPath": "/tmp"}],
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": POD_SECURITY,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [*({"name": names[path], **source} for path, source in volumes.items()), {"name": "tmp", "emptyDir": {}}],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}

    def standing_pod(self, name: str, image: str, volumes: Mapping[str, Object] | None = None, namespace: str = "") -> str:
        """A pod that does nothing, to run commands in."""
        self.kube.apply(self.pod(name, image, ["sleep", "3600"], volumes or {}, standing=name), namespace=namespace or self.namespace)
        self.kube.ready(namespace or self.namespace, f"standing={name}")
        return name

    def python(self, pod: str, program: str, container: str = "", namespace: str = "") -> str:
        return self.kube.run_in(namespace or self.namespace, pod, ["python", "-c", program], container)

    def logged(self, prefix: str = "") -> list[Object]:
        """Rows of the prediction log whose id begins with `prefix`: id, predictor, release, entity, instance, sequence."""
        program = (
            "import json; from datetime import UTC, datetime, timedelta; from components.monitoring.prediction_log import PredictionLog;"
            f"log = PredictionLog({DATA + '/prediction_log'!r}); now = datetime.now(UTC);"
            f"rows = log.read({USECASE!r}, now - timedelta(days=1), now + timedelta(days=1));"
            f"rows = rows[rows['id'].str.startswith({prefix!r})] if len(rows) else rows;"
            "names = ['id', 'predictor', 'release', 'entity', 'instance', 'sequence'];"
            "print(json.dumps(rows[names].to_dict('records')) if len(rows) else '[]')"
        )
        found: list[Object] = json.loads(self.python("reader", program).strip().splitlines()[-1])
        return found

    def sidecar_status(self, pod: str) -> Object:
        program = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/status', timeout=90).read().decode())"
        found: Object = json.loads(self.python(pod, program, "sidecar"))
        return found


def put_on_volume(served: ServedModel, folder: Path) -> None:
    """A claim `data` with the contents of `folder`, and a standing pod `reader` that has it mounted."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder, arcname=".")
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    packed = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "releases"},
        "binaryData": {"releases.tgz": base64.b64encode(buffer.getvalue()).decode()},
    }
    served.kube.apply(claim, packed, namespace=served.namespace)
    volumes = {DATA: {"persistentVolumeClaim": {"claimName": "data"}}, "/packed": {"configMap": {"name": "releases"}}}
    served.standing_pod("reader", "monitoring", volumes)
    # What the sidecars write to may be written by any user: on the volume of a test their group is another one.
    unpack = (
        f"import os, tarfile; os.umask(0); tarfile.open('/packed/releases.tgz').extractall({DATA!r});"
        f"[os.makedirs({DATA!r} + '/' + name, 0o777, exist_ok=True) for name in ('prediction_log', 'records', 'labels')]"
    )
    served.python("reader", unpack)


def with_releases(kube: Cluster, helm: Helm, images: Images, namespace: str, folder: Path) -> ServedModel:
    """What a namespace needs before the chart is installed there: two releases on a volume, and the platform's ConfigMap."""
    releases, contract = make_releases(folder)
    known = {name: images[name] for name in ("serving", "monitoring")}
    found = ServedModel(kube, helm, namespace, known, releases, contract, values_of_test(known))
    put_on_volume(found, folder)
    kube.apply(platform_of_files(), namespace=namespace)
    return found


def make_releases(folder: Path) -> tuple[list[str], ServingContract]:
    """Two releases of small real models, and the contract of the first."""
    releases = [build_release(folder / "bundles", seed=seed) for seed in (7, 8)]
    return releases, ServingContract.model_validate_json(read_file(str(folder / "bundles"), releases[0], "serving.json"))


def platform_of_files() -> Object:
    """The ConfigMap of a platform whose places are paths on the volume."""
    platform = Platform.embedded(Path(DATA)).model_copy(update={"environment": "dev"})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "crispline-platform"}, "data": {"platform.json": platform.model_dump_json()}}


def values_of_test(images: Mapping[str, str]) -> Object:
    """Values for one node: small requests, no feature server, every moment of a request allowed."""
    small = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1536Mi"}}

    def split(reference: str) -> Object:
        name, _, tag = reference.rpartition(":")
        return {"repository": name.rpartition("/")[2], "tag": tag}

    return {
        "serving": {"mode": "deployment", "momentSkew": "unlimited"},
        "replicas": 2,
        "images": {"registry": images["serving"].rpartition("/")[0], "serving": split(images["serving"]), "monitoring": split(images["monitoring"])},
        "sharedVolume": {"existingClaim": "data", "mountPath": DATA},
        "featureServer": {"url": ""},
        "sidecar": {"moveSeconds": 1, "triggerUrl": "", "resources": small},
        "model": {"resources": small},
        "forwarder": {"resources": small},
        "splitter": {"haproxy": {"image": HAPROXY_IMAGE, "resources": small}},
    }
