"""`helm install` of staging by hand, as docs/how-to/kubernetes.md has it for dev: the charts with staging's own values, in a namespace of its own.

The values' example names give way to what is here: namespaces, bucket, registry, Git repository. Images have this tree's tags; requests and volumes
are small, since all of it is on one node.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.contracts.artifacts import Release
from components.contracts.platform import Platform
from components.deployment.bundle import read_manifest
from components.deployment.environment_file import load_environment
from components.deployment.releases import release_content
from components.deployment.tests.example_release import CREATED, judged_release
from pipelines.runners.environments import ROOT
from tests.cluster.access import Cluster, Object
from tests.cluster.conftest import Images
from tests.cluster.object_store import Bucket, bucket_of
from tests.cluster.served_model import PREDICTORS, SPLITTERS, USECASE, Helm, build_haproxy_image, build_redis_image, values_of_test

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster]

ENVIRONMENT = "staging"
FOLDER = Path("manifests") / "environments" / ENVIRONMENT
# As manifests/argocd installs them: the chart of each Helm release, and the files of values in their order.
RELEASES = {
    "crispline-platform": ("platform", ("platform.yaml", "platform-values.yaml")),
    f"crispline-trigger-{USECASE}": ("retrain-trigger", (f"{USECASE}/retrain-trigger.yaml",)),
    USECASE: ("model-server", tuple(f"{USECASE}/{name}" for name in ("values.yaml", "release.json", "canary.yaml"))),
}


@dataclass(frozen=True)
class Staging:
    """The environment's charts in a namespace. `platform`: what its platform.yaml says."""

    kube: Cluster
    helm: Helm
    namespace: str
    platform: Platform


def tagged(reference: str) -> Object:
    name, _, tag = reference.rpartition(":")
    return {"repository": name.rpartition("/")[2], "tag": tag}


def put_in_place(root: Path, names: dict[str, str]) -> None:
    """Copy the environment's files below `root`, with names of ours for those of the example."""
    shutil.copytree(ROOT / FOLDER, root / FOLDER)
    for file in (root / FOLDER).rglob("*.*"):
        text = file.read_text()
        for example, ours in names.items():
            text = text.replace(example, ours)
        file.write_text(text)


def release_a_model(root: Path, platform: Platform) -> None:
    """A release that passed its gates, in the environment's store and in its release.json."""
    bundle = judged_release(platform)
    manifest = read_manifest(platform.bundles_uri, bundle)
    release = Release(
        usecase=USECASE,
        environment=ENVIRONMENT,
        release=bundle,
        model_version=manifest.model_version,
        data_version=manifest.data_version,
        gates_record=manifest.gates_record,
        cause="first",
        promoted=CREATED,
    )
    (root / FOLDER / USECASE / "release.json").write_bytes(release_content(release))


def needs_of(kube: Cluster, namespace: str, bucket: Bucket, image: str) -> None:
    """What the environment's files name and no chart makes: the Secrets, and a Git repository."""
    here = Path(__file__).parent
    users = {"MLFLOW_TRACKING_USERNAME": "operator", "MLFLOW_TRACKING_PASSWORD": "long enough for mlflow", "MLFLOW_FLASK_SERVER_SECRET_KEY": "key"}
    kube.apply(
        bucket.secret("crispline-object-store"),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "crispline-mlflow-users"}, "stringData": users},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "crispline-git"}, "stringData": {"GIT_CONFIG_COUNT": "0"}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "git"},
            "data": {"git_over_http.py": (here / "git_over_http.py").read_text()},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "git"}, "spec": {"selector": {"app": "git"}, "ports": [{"port": 8080}]}},
        namespace=namespace,
    )
    arguments = ["/script/git_over_http.py", "--folder", "/tmp", "--port", "8080"]
    environment = {"GIT_PUSH_AUTHORIZATION": "nobody pushes"}
    kube.run_pod(namespace, "git", image, arguments, command=["python"], env=environment, volumes={"/script": {"configMap": {"name": "git"}}})


@pytest.fixture(scope="module")
def staging(kube: Cluster, helm: Helm, images: Images, namespace: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staging]:
    place, root = namespace(ENVIRONMENT), tmp_path_factory.mktemp("repository")
    known = {name: images[name] for name in ("pipeline", "serving", "monitoring", "tracking")}
    build_haproxy_image()
    redis, _, tag = build_redis_image().partition("/")[2].rpartition(":")
    small, volume = values_of_test(known), {"persistence": {"size": "500Mi"}}
    own: dict[str, Object] = {
        "platform": {
            "images": {name: tagged(known[name]) for name in ("pipeline", "tracking")}
            | {"redis": {"registry": images.registry(), "repository": redis, "tag": tag}},
            "mlflow": volume,
            "redis": volume,
        },
        "retrain-trigger": {"images": {"pipeline": tagged(known["pipeline"])}, "networkPolicy": {"gitPorts": [8080]}},
        "model-server": {
            "images": {name: tagged(known[name]) for name in ("serving", "monitoring")},
            "splitter": {"haproxy": small["splitter"]["haproxy"]},
            **{name: {"resources": small[name]["resources"]} for name in ("model", "forwarder", "sidecar")},
        },
    }
    with bucket_of(kube) as bucket:
        needs_of(kube, place, bucket, known["pipeline"])
        example = {
            "crispline-staging": place,
            "s3://crispline": bucket.uri,
            "https://github.com/example/crispline.git": f"http://git.{place}.svc:8080/models.git",
            "ghcr.io/example": images.registry(),
            "kubeflow": namespace("pipelines"),
        }
        put_in_place(root, example)
        platform = load_environment(ENVIRONMENT, root).platform
        release_a_model(root, platform)
        for name, (chart, files) in RELEASES.items():
            values = [part for file in files for part in ("-f", str(root / FOLDER / file))]
            helm("install", name, str(ROOT / "charts" / chart), "-n", place, *values, "-f", "-", input=json.dumps(own[chart]))
        yield Staging(kube, helm, place, platform)
        for name in reversed(RELEASES):
            helm("uninstall", name, "-n", place)


def test_every_pod_that_staging_asks_for_is_ready_under_restricted(staging: Staging) -> None:
    counts = {PREDICTORS: 2, SPLITTERS: 2} | {
        f"app.kubernetes.io/component={name}": count for name, count in (("mlflow", 1), ("redis", 1), ("feature-server", 2), ("trigger", 2))
    }
    for selector, count in counts.items():
        staging.kube.ready(staging.namespace, selector, count)
    config = staging.kube.core.read_namespaced_config_map("crispline-platform-staging", staging.namespace)
    assert Platform.model_validate_json(config.data["platform.json"]) == staging.platform


@pytest.mark.parametrize("name", list(RELEASES))
def test_helm_test_of_each_chart_passes(staging: Staging, name: str) -> None:
    """Experiments and features, an event and its decision, a prediction; and of each a bad one, which is refused."""
    said = staging.helm("test", name, "-n", staging.namespace, "--timeout", "10m")
    assert "Phase:          Succeeded" in said and "refus" in said, said
