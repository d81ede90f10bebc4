"""charts/platform in a namespace that enforces `restricted`, with a real object store: experiments, features, schedules, upgrades, and what stays.

The tests run in order on one installation, since each needs what the one before it left. Kubeflow Pipelines is the recording server, which holds
requests against KFP's own client models and runs no pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml

from components.contracts.features import FeatureView
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.storage import names_in, storage_path
from components.data_engineering.entities import read_entities
from components.data_engineering.feature_tables import join_key_columns, tick_key, tick_numbers
from components.data_engineering.lake import current_version
from components.data_engineering.offline_features import request_features
from pipelines.kubernetes_settings import KubernetesSettings
from pipelines.on_kubeflow import compile_for_kubeflow
from pipelines.runners.kubeflow_runs import KubeflowRuns
from tests.cluster import recording_kfp_pod
from tests.cluster.access import CONTAINER_SECURITY, PATIENCE, POD_SECURITY, Cluster, Ended, Object
from tests.cluster.object_store import Bucket, bucket_of
from tests.cluster.served_model import build_redis_image

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster]

CHART = Path(__file__).resolve().parents[2] / "charts" / "platform"
USER, PASSWORD = "operator", "long enough for mlflow"
# The first schedules of 2013 became known two weeks before.
FIRST, LAST = datetime(2012, 12, 18, tzinfo=UTC), datetime(2013, 1, 5, tzinfo=UTC)


@dataclass
class Installation:
    """The release `platform`. `inside`: its platform.json; the s3:// addresses in it hold here as well."""

    kube: Cluster
    helm: Callable[..., str]
    namespace: str
    pipelines: str
    bucket: Bucket
    image: str
    values: Path
    inside: Platform
    runs: int = field(default=0)
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)  # the entities that are looked up
    offline: pd.DataFrame = field(default_factory=pd.DataFrame)  # and their features as training has them

    def upgrade(self, *arguments: str) -> str:
        return self.helm("upgrade", "--install", "platform", str(CHART), "-n", self.namespace, "-f", str(self.values), "--wait", "--timeout", "10m", *arguments)

    def python(self, name: str, program: str, check: bool = True) -> Ended:
        """Run a program in a pod of the pipelines' image, labelled `job: <name>`, with what a step has."""
        self.runs += 1
        inside = self.bucket.variables | {"AWS_ENDPOINT_URL": self.bucket.endpoint}
        env = {**inside, "REDIS_PASSWORD": PASSWORD, "MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}
        env["CRISPLINE_PLATFORM"] = "/etc/crispline/platform.json"
        volumes = {"/etc/crispline": {"configMap": {"name": "crispline-platform"}}}
        ended = self.kube.run_job(self.namespace, f"{name}-{self.runs}", self.image, [], command=["python", "-c", program], env=env, volumes=volumes)
        assert ended.succeeded or not check, ended.log
        return ended

    def looked_up(self, url: str, view: FeatureView, rows: pd.DataFrame) -> pd.DataFrame:
        """The served features of `rows`; a value that is older than the view allows is missing."""
        moments = rows["prediction_moment"].reset_index(drop=True)
        keys = {
            key: tick_numbers(view, rows["prediction_moment"]).tolist() if key == tick_key(view) else rows[key].fillna("").tolist()
            for key in join_key_columns(view)
        }
        request = {"features": [f"{view.served_name}:{name}" for name in view.feature_names], "entities": keys}
        answer = httpx.post(f"{url}/get-online-features", json=request, timeout=120).raise_for_status().json()
        columns = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
        found = {}
        for name in view.feature_names:
            values = pd.Series([np.nan if value is None else value for value in columns[name]["values"]], dtype="float64")
            found[name] = values.mask(moments - pd.to_datetime(pd.Series(columns[name]["event_timestamps"]), utc=True) > view.max_staleness)
        return pd.DataFrame(found)


@pytest.fixture(scope="module")
def redis_image(images: Any) -> str:
    return build_redis_image()


def image_values(reference: str) -> dict[str, str]:
    name, _, tag = reference.rpartition(":")
    registry, _, repository = name.partition("/")
    return {"registry": registry, "repository": repository, "tag": tag}


@pytest.fixture(scope="module")
def installed(
    kube: Cluster,
    helm: Callable[..., str],
    images: Any,
    redis_image: str,
    namespace: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installation]:
    place, pipelines = namespace("platform"), namespace("pipelines")
    with bucket_of(kube) as bucket:
        root = f"{bucket.uri}/dev"
        inside = Platform(
            environment="dev",
            lake_uri=f"{root}/lake",
            feature_store_uri=f"{root}/features",
            online_store=f"redis://crispline-redis.{place}.svc:6379/0",
            tracking_uri=f"http://crispline-mlflow.{place}.svc:5000",
            artifact_uri=f"{root}/mlflow",
            records_uri=f"{root}/records",
            bundles_uri=f"{root}/bundles",
            prediction_log_uri=f"{root}/prediction_log",
            labels_uri=f"{root}/labels",
            gitops_repository="https://git.example.org/acme/crispline.git",
            lineage_uri=f"{root}/lineage",
            feature_server_url=f"http://crispline-feature-server.{place}.svc:6566",
            pipelines_url=f"http://ml-pipeline.{pipelines}:8888",
        )
        kube.apply(
            bucket.secret("crispline-object-store"),
            _secret("mlflow-users", MLFLOW_TRACKING_USERNAME=USER, MLFLOW_TRACKING_PASSWORD=PASSWORD, MLFLOW_FLASK_SERVER_SECRET_KEY="key"),
            _secret("redis", REDIS_PASSWORD=PASSWORD),
            namespace=place,
        )
        kube.apply(*_recording_kfp(images["pipeline"]), namespace=pipelines)
        pipeline, tracking = image_values(images["pipeline"]), image_values(images["tracking"])
        values = tmp_path_factory.mktemp("values") / "values.yaml"
        schedule = {"name": "flights-data", "usecase": "flights", "pipeline": "data", "cron": "0 0 1 1 *", "parameters": {"start": "last", "end": "now/h"}}
        document = {
            "platform": inside.model_dump(),
            "objectStore": {"endpoint": bucket.endpoint, "existingSecret": "crispline-object-store"},
            "images": {
                "registry": pipeline["registry"],
                "pipeline": {"repository": pipeline["repository"], "tag": pipeline["tag"]},
                "tracking": {"repository": tracking["repository"], "tag": tracking["tag"]},
                "redis": image_values(redis_image),
            },
            "mlflow": {"auth": {"existingSecret": "mlflow-users"}, "persistence": {"size": "500Mi"}},
            "redis": {"existingSecret": "redis", "persistence": {"size": "500Mi"}},
            "schedules": {"runs": [schedule]},
            "networkPolicy": {
                "trackingClients": [{"podSelector": {"matchExpressions": [{"key": "job", "operator": "Exists"}]}}],
                "featureWriters": [{"podSelector": {"matchExpressions": [{"key": "job", "operator": "Exists"}]}}],
            },
        }
        values.write_text(yaml.safe_dump(document))
        found = Installation(kube, helm, place, pipelines, bucket, images["pipeline"], values, inside)
        found.upgrade()
        yield found


def _secret(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def _recording_kfp(image: str) -> list[Object]:
    """The recording server with the data pipeline."""
    compiled = compile_for_kubeflow("data", "flights-dev-data", KubernetesSettings(), {})
    return recording_kfp_pod.objects(image, compiled, POD_SECURITY, CONTAINER_SECURITY)


def test_everything_is_ready_under_restricted(installed: Installation) -> None:
    for component, count in (("mlflow", 1), ("feature-server", 2), ("redis", 1)):
        pods = installed.kube.ready(installed.namespace, f"app.kubernetes.io/component={component}", count)
        assert not any(status.restart_count for pod in pods for status in pod.status.container_statuses), installed.kube.state(installed.namespace)
    config = installed.kube.core.read_namespaced_config_map("crispline-platform", installed.namespace)
    assert Platform.model_validate_json(config.data["platform.json"]) == installed.inside


def test_on_the_first_day_helm_test_says_that_there_is_nothing_to_look_up(installed: Installation) -> None:
    said = installed.helm("test", "platform", "-n", installed.namespace, "--timeout", "10m")
    assert "Phase:          Succeeded" in said
    assert "MLflow: refuses an unknown run" in said and "nothing was published yet" in said


LOG_A_RUN = """
import pathlib
from components.contracts.platform import Platform
from components.model_engineering.tracking import quiet_mlflow
mlflow = quiet_mlflow()
mlflow.set_tracking_uri(Platform.load().tracking_uri)
mlflow.set_experiment("flights")
pathlib.Path("/tmp/card.txt").write_text("a model card")
with mlflow.start_run(run_name="from a step") as run:
    mlflow.log_metric("log_loss", 0.5)
    mlflow.log_artifact("/tmp/card.txt")
print("run", run.info.run_id)
"""


def test_a_step_logs_a_run_with_an_artifact_that_lands_in_the_object_store(installed: Installation) -> None:
    run = installed.python("track", LOG_A_RUN).log.split()[-1]
    store = storage_path(installed.inside.artifact_uri)
    (found,) = [path for path in store.fs.find(store.path) if path.endswith("card.txt")]
    assert run in found and store.fs.cat_file(found) == b"a model card"
    with installed.kube.forward(installed.namespace, "service/crispline-mlflow", 5000) as url:
        got = httpx.get(f"{url}/api/2.0/mlflow/runs/get", params={"run_id": run}, auth=(USER, PASSWORD), timeout=120)
        assert got.status_code == 200 and got.json()["run"]["data"]["metrics"][0]["value"] == 0.5
        assert httpx.get(f"{url}/api/2.0/mlflow/runs/get", params={"run_id": run}, timeout=120).status_code == 401, "nobody without a password"
        foreign = httpx.get(f"{url}/api/2.0/mlflow/runs/get", params={"run_id": run}, auth=(USER, PASSWORD), headers={"Host": "evil.example.org"}, timeout=120)
        assert foreign.status_code == 403


PUBLISH = f"""
from pathlib import Path
from components.data_engineering.feature_steps import materialise_period
from components.data_engineering.ingest_steps import ingest_step
version = Path("/tmp/version.json")
ingest_step("flights", "{FIRST.isoformat()}", "{LAST.isoformat()}", version)
print(materialise_period("flights", version, "{FIRST.isoformat()}", "{LAST.isoformat()}"))
"""


def test_features_that_a_step_publishes_are_served_as_training_sees_them(installed: Installation) -> None:
    assert "published" in installed.python("publish", PUBLISH).log
    flights, platform = load_usecase("flights"), installed.inside
    version = current_version(platform.lake_uri, flights, LAST)
    installed.rows = read_entities(platform.lake_uri, flights, version, LAST - timedelta(hours=6), LAST)
    installed.offline = request_features(flights, platform, version, installed.rows)
    assert len(installed.rows) > 50
    with installed.kube.forward(installed.namespace, "service/crispline-feature-server", 6566) as url:
        _wait_for_view(url, flights.features.views[0].served_name, flights.features.views[0].feature_names[0])
        _as_training_sees_them(installed, url)
        assert httpx.post(f"{url}/push", json={}, timeout=120).status_code == 404, "Feast's routes that write are not served"


def _as_training_sees_them(installed: Installation, url: str) -> None:
    for view in load_usecase("flights").features.views:
        offline = installed.offline[list(view.feature_names)].reset_index(drop=True)
        pd.testing.assert_frame_equal(installed.looked_up(url, view, installed.rows), offline, check_exact=True)


def _wait_for_view(url: str, view: str, feature: str, seconds: float = PATIENCE) -> None:
    """A replica finds a new view a moment after its registration."""
    deadline = time.monotonic() + seconds
    while httpx.post(f"{url}/get-online-features", json={"features": [f"{view}:{feature}"], "entities": {}}, timeout=120).status_code == 404:
        assert time.monotonic() < deadline, f"view {view} is not found"
        time.sleep(0.5)


def test_helm_test_looks_a_feature_up_once_there_is_one(installed: Installation) -> None:
    said = installed.helm("test", "platform", "-n", installed.namespace, "--timeout", "10m")
    assert "feature server: looks up" in said and "refuses an unknown view" in said


def test_lineage_and_records_of_the_steps_are_in_the_object_store(installed: Installation) -> None:
    assert len(names_in(storage_path(installed.inside.lineage_uri))) == 2, "one object for the start, one for the end"
    assert names_in(storage_path(f"{installed.inside.records_uri}/data_version"))


# A policy reaches the node a moment after the pod that it lets through: what must be open is asked until it is, and before the rest.
REACH = """
import socket, time
def reached(place):
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 3).close()
    except OSError:
        return False
    return True
ends = time.monotonic() + 120
for place in {open!r}:
    while not reached(place) and time.monotonic() < ends:
        time.sleep(1)
    print(place, "open" if reached(place) else "closed")
for place in {closed!r}:
    print(place, "open" if reached(place) else "closed")
"""


def test_network_policies_deny_what_is_not_a_declared_flow(installed: Installation, namespace: Callable[..., str]) -> None:
    kube, place = installed.kube, installed.namespace
    mlflow, lookup, store = (
        f"{name}.{place}.svc.cluster.local:{port}" for name, port in (("crispline-mlflow", 5000), ("crispline-feature-server", 6566), ("crispline-redis", 6379))
    )
    step = installed.python("neighbour", REACH.format(open=[mlflow, store], closed=[lookup])).log
    assert _found(step) == ["open", "open", "closed"], "a step writes features; looking them up is for model servers"
    elsewhere = namespace("stranger")
    said = kube.run_job(elsewhere, "stranger", installed.image, [], command=["python", "-c", REACH.format(open=[], closed=[mlflow, lookup, store])])
    assert said.succeeded and _found(said.log) == ["closed"] * 3, said.log
    (redis,) = kube.pods(place, "app.kubernetes.io/component=redis")
    (server, *_) = kube.pods(place, "app.kubernetes.io/component=feature-server")
    api = kube.core.read_namespaced_service("kubernetes", "default").spec.cluster_ip
    out = kube.run_in(place, server.metadata.name, ["python", "-c", REACH.format(open=[f"{redis.status.pod_ip}:6379"], closed=[f"{api}:443"])])
    assert _found(out) == ["open", "closed"], "the feature server has no business with the Kubernetes API"


def _found(said: str) -> list[str]:
    return [line.split()[1] for line in said.splitlines() if " " in line]


def test_a_schedule_starts_its_run_once(installed: Installation) -> None:
    kube, place = installed.kube, installed.namespace
    cron = kube.get("batch/v1", "CronJob", "crispline-flights-data", place)
    assert cron is not None
    for _ in range(2):  # the same Job again is what a pod that died leads to
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "crispline-flights-data-1"}, "spec": cron["spec"]["jobTemplate"]["spec"]}
        kube.apply(job, namespace=place)
        kube.wait_for("the schedule's Job", lambda: _succeeded(kube, place, "crispline-flights-data-1"))
        (pod,) = kube.pods(place, "batch.kubernetes.io/job-name=crispline-flights-data-1")
        said = kube.log(place, pod.metadata.name)
        kube.delete("batch/v1", "Job", "crispline-flights-data-1", place)
        kube.wait_for("the Job's end", lambda: kube.get("batch/v1", "Job", "crispline-flights-data-1", place) is None)
    assert "was started by an earlier try" in said
    with kube.forward(installed.pipelines, "service/ml-pipeline", 8888) as url:
        runs = KubeflowRuns(installed.inside.model_copy(update={"pipelines_url": url})).named("flights-data-1")
    assert len(runs) == 1 and dict(runs[0].parameters).items() >= {"usecase": "flights", "start": "last", "end": "now/h"}.items(), runs


def _succeeded(kube: Cluster, namespace: str, job: str) -> bool:
    return bool(kube.batch.read_namespaced_job_status(job, namespace).status.succeeded)


def test_features_and_experiments_outlive_their_pods(installed: Installation) -> None:
    kube, place = installed.kube, installed.namespace
    before = [kube.pods(place, f"app.kubernetes.io/component={name}")[0].metadata.uid for name in ("redis", "mlflow")]
    for name in ("redis", "mlflow"):
        (pod,) = kube.pods(place, f"app.kubernetes.io/component={name}")
        kube.core.delete_namespaced_pod(pod.metadata.name, place, grace_period_seconds=0)
    for name, uid in zip(("redis", "mlflow"), before, strict=True):
        kube.wait_for(
            f"another {name}",
            lambda name=name, uid=uid: [one for one in kube.pods(place, f"app.kubernetes.io/component={name}") if one.metadata.uid != uid],
        )  # type: ignore[misc]
        kube.ready(place, f"app.kubernetes.io/component={name}", 1)
    _still_there(installed)


def _still_there(installed: Installation) -> None:
    """What was published is looked up through the feature server's HTTP, and the experiment is listed."""
    assert len(installed.rows) > 50 and installed.offline.notna().any(axis=None)
    with installed.kube.forward(installed.namespace, "service/crispline-feature-server", 6566) as url:
        _as_training_sees_them(installed, url)
    with installed.kube.forward(installed.namespace, "service/crispline-mlflow", 5000) as url:
        found = httpx.post(f"{url}/api/2.0/mlflow/experiments/search", json={"max_results": 10}, auth=(USER, PASSWORD), timeout=120).json()
        assert "flights" in {each["name"] for each in found["experiments"]}


def test_an_upgrade_and_a_rollback_lose_nothing(installed: Installation) -> None:
    kube, place = installed.kube, installed.namespace
    installed.upgrade("--set", "featureServer.replicas=1", "--set", "redis.maxMemory=128mb", "--set", "podAnnotations.changed=yes")
    kube.ready(place, "app.kubernetes.io/component=feature-server", 1)
    (redis,) = kube.ready(place, "app.kubernetes.io/component=redis", 1)
    assert "128mb" in redis.spec.containers[0].args
    _still_there(installed)
    installed.helm("rollback", "platform", "1", "-n", place, "--wait", "--timeout", "10m")
    kube.ready(place, "app.kubernetes.io/component=feature-server", 2)
    (redis,) = kube.ready(place, "app.kubernetes.io/component=redis", 1)
    assert "256mb" in redis.spec.containers[0].args
    _still_there(installed)


def test_uninstalling_leaves_the_volumes_that_the_notes_name(installed: Installation) -> None:
    kube, place = installed.kube, installed.namespace
    notes = installed.helm("get", "notes", "platform", "-n", place)
    installed.helm("uninstall", "platform", "-n", place, "--wait", "--timeout", "10m")
    left = {claim.metadata.name for claim in kube.core.list_namespaced_persistent_volume_claim(place).items}
    assert left == {"crispline-mlflow", "data-crispline-redis-0"}
    assert f"kubectl -n {place} delete pvc crispline-mlflow data-crispline-redis-0" in notes
    ours = "app.kubernetes.io/instance=platform,app.kubernetes.io/managed-by=Helm"
    kinds = {
        "ConfigMap": kube.core.list_namespaced_config_map,
        "Service": kube.core.list_namespaced_service,
        "ServiceAccount": kube.core.list_namespaced_service_account,
        "Pod": kube.core.list_namespaced_pod,
        "Deployment": kube.apps.list_namespaced_deployment,
        "StatefulSet": kube.apps.list_namespaced_stateful_set,
        "CronJob": kube.batch.list_namespaced_cron_job,
        "NetworkPolicy": kube.networking.list_namespaced_network_policy,
    }

    def remaining() -> list[str]:
        return [f"{kind}/{each.metadata.name}" for kind, find in kinds.items() for each in find(place, label_selector=ours).items]

    kube.wait_for("everything to go", lambda: not remaining())
