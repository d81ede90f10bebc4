"""Pipelines on Kubernetes and on a real Kubeflow Pipelines.

What needs the Kubernetes API alone runs on every cluster: the pods that Kubeflow Pipelines would make are accepted where `restricted` is enforced,
and the written objects by their CRDs. What needs Kubeflow Pipelines runs where the Service ml-pipeline is, in the namespace that
CRISPLINE_KFP_NAMESPACE names (kubeflow by default, single-user), and skips elsewhere.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from ruamel.yaml import YAML

from components.contracts.platform import Platform
from components.contracts.runs import FINISHED, Run
from components.environments.names import image_variable
from pipelines.kubernetes_settings import KubernetesSettings
from pipelines.pipeline_resources import FOLDER
from pipelines.runners.environments import ROOT
from pipelines.runners.kubeflow_names import PIPELINES
from pipelines.runners.kubeflow_runs import KubeflowRuns
from pipelines.runners.kubeflow_schedules import Schedule, Schedules
from pipelines.runners.kubeflow_versions import publish
from tests.cluster.access import Cluster
from tests.cluster.conftest import Images
from tests.kubeflow_driver import pods

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster]

DATA = "/data"
WRITTEN = sorted((ROOT / FOLDER).glob("*/*/*.yaml"))


def documents(file: Path) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(file.read_text()))


def test_every_pod_of_every_pipeline_is_accepted_where_restricted_is_enforced(kube: Cluster, namespace: Callable[..., str]) -> None:
    place = namespace("kubeflow-pods")
    for file in WRITTEN:
        _, version = documents(file)
        for executor, pod in pods(version["spec"]["pipelineSpec"], version["spec"]["platformSpec"], service_account="default"):
            kube.core.create_namespaced_pod(place, {**pod, "metadata": {**pod["metadata"], "name": executor}}, dry_run="All")


def test_a_pod_without_the_security_context_is_refused_there(kube: Cluster, namespace: Callable[..., str]) -> None:
    """What the settings are for: the container that Kubeflow Pipelines makes without them."""
    place = namespace("kubeflow-root")
    _, version = documents(WRITTEN[0])
    executor, pod = next(pods(version["spec"]["pipelineSpec"], version["spec"]["platformSpec"], service_account="default"))
    del pod["spec"]["containers"][0]["securityContext"]["runAsNonRoot"]
    with pytest.raises(ApiException, match="runAsNonRoot != true"):
        kube.core.create_namespaced_pod(place, {**pod, "metadata": {"name": executor}}, dry_run="All")


def test_the_written_objects_are_accepted_by_their_definitions(kube: Cluster, namespace: Callable[..., str]) -> None:
    group = "pipelines.kubeflow.org"
    if not kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"pipelineversions.{group}"):
        pytest.skip(f"the cluster has no CRD pipelineversions.{group}; apply those of Kubeflow Pipelines 2.17 (manifests/kustomize/base/crds)")
    place = namespace("kubeflow-objects")
    for file in WRITTEN:
        for each, plural in zip(documents(file), ("pipelines", "pipelineversions"), strict=True):
            each["metadata"].pop("namespace", None)
            kept = kube.custom.create_namespaced_custom_object(group, "v2beta1", place, plural, each, dry_run="All", field_validation="Strict")
            assert kept["spec"] == each["spec"], file  # nothing was dropped as unknown


@pytest.fixture(scope="module")
def runs_in(kube: Cluster) -> str:
    """The namespace of a real Kubeflow Pipelines; skips where there is none."""
    place = os.environ.get("CRISPLINE_KFP_NAMESPACE", "kubeflow")
    if kube.get("v1", "Service", "ml-pipeline", place) is None:
        pytest.skip(f"there is no Service ml-pipeline in {place}; install Kubeflow Pipelines (docs/how-to/kubernetes.md), or set CRISPLINE_KFP_NAMESPACE")
    return place


@pytest.fixture(scope="module")
def installation(kube: Cluster, images: Images, runs_in: str) -> Iterator[tuple[KubeflowRuns, str]]:
    """(runs, environment): a platform of files on a volume in the namespace of the runs; everything made is removed."""
    environment = f"test{secrets.token_hex(3)}"
    name = f"crispline-{environment}"
    platform = Platform.embedded(Path(DATA)).model_copy(update={"environment": environment})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"platform.json": platform.model_dump_json()}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": claim},
        namespace=runs_in,
    )
    variables = {image_variable(image): images[image] for image in ("pipeline", "monitoring")}
    os.environ.update(variables)
    from pipelines.on_kubeflow import compile_for_kubeflow

    settings = KubernetesSettings.model_validate(
        {"configMap": name, "volumes": [{"claim": name, "mountPath": DATA}], "defaults": {"retries": {"number": 1, "firstWait": "5s"}, "timeout": "20m"}}
    )
    try:
        with kube.forward(runs_in, "service/ml-pipeline", 8888) as url:
            runs = KubeflowRuns(platform.model_copy(update={"pipelines_url": url}))
            for pipeline in PIPELINES:
                called = f"flights-{environment}-{pipeline.replace('_', '-')}"
                assert publish(runs, called, compile_for_kubeflow(pipeline, called, settings, {}), "Of a test.").uploaded
                assert not publish(runs, called, compile_for_kubeflow(pipeline, called, settings, {}), "Of a test.").uploaded
            yield runs, environment
    finally:
        kube.delete("v1", "ConfigMap", name, runs_in)
        kube.delete("v1", "PersistentVolumeClaim", name, runs_in)


def ended(runs: KubeflowRuns, run: Run, seconds: float) -> Run:
    deadline = time.monotonic() + seconds
    while (found := runs.get(run.id)).state not in FINISHED:
        assert time.monotonic() < deadline, f"run {run.id} is {found.state} after {seconds:.0f} s: {steps(runs, run)}"
        time.sleep(3)
    return found


def steps(runs: KubeflowRuns, run: Run) -> dict[str, str]:
    from pipelines.runners.kubeflow_follow import steps_of

    found = runs.details(run.id)
    return {step.name: step.state for step in steps_of(found, runs.step_names(found))}


def test_of_two_retrainings_for_one_cause_one_is_effective_and_the_other_a_duplicate(installation: tuple[KubeflowRuns, str]) -> None:
    """Claim, placeholder of the run's id, condition and exit task, by a real driver and launcher. The lake is empty: the effective run fails after its claim."""
    runs, environment = installation
    parameters = {"usecase": "flights", "as_of": "2013-04-01T00:00:00Z", "environment": environment, "cause": "cause-1"}
    name = f"retraining-{environment}"
    submitted = [runs.submit(name, "retraining", parameters, "cause-1") for _ in range(2)]
    found = runs.find(name)
    assert found is not None and found.id == submitted[0].id
    states = {run.id: ended(runs, run, 900).state for run in submitted}
    assert sorted(states.values()) == ["duplicate", "failed"]
    for run in submitted:
        seen = steps(runs, run)
        assert seen["claim"] == "SUCCEEDED" and seen["notify"] == "SUCCEEDED"
        assert ("resolve_data_version" in seen) == (states[run.id] == "failed")


@pytest.mark.cluster_long
def test_data_and_batch_scoring_pass_artifacts_moments_and_whole_numbers(installation: tuple[KubeflowRuns, str]) -> None:
    runs, environment = installation
    parameters = {"usecase": "flights", "environment": environment, "start": "2012-12-18T00:00:00Z", "end": "2013-01-15T00:00:00Z"}
    data = runs.submit(f"data-{environment}", "data", parameters, "")
    assert ended(runs, data, 1800).state == "succeeded", steps(runs, data)
    seen = steps(runs, data)
    assert {seen[step] for step in ("resolve_request", "ingest", "validate", "build_features", "materialise", "notify")} == {"SUCCEEDED"}
    scored = runs.submit(f"batch-{environment}", "batch_scoring", {**parameters, "as_of": "now", "shard_rows": "1000"}, "")
    assert ended(runs, scored, 1800).state == "failed"  # nothing is released
    assert steps(runs, scored)["entities_to_score"] == "SUCCEEDED"
    assert [state for step, state in steps(runs, scored).items() if step.startswith("score_batch")].count("FAILED") >= 1


def test_a_schedule_is_made_changed_and_removed(installation: tuple[KubeflowRuns, str]) -> None:
    runs, _ = installation
    version = runs.newest_version("flights", "monitoring")
    schedules = Schedules(runs, "UTC", print)
    parameters = {"usecase": "flights", "window_start": "", "window_end": "", "as_of": "now"}
    name = version.pipeline
    first = schedules.apply(Schedule(name, version, "0 3 1 1 *", "UTC", parameters), 60)
    changed = schedules.apply(Schedule(name, version, "0 4 1 1 *", "UTC", parameters), 60)
    assert changed.id != first.id
    (found,) = schedules.found(name)
    assert (found.id, found.enabled, found.cron) == (changed.id, True, "0 0 4 1 1 *")
    assert schedules.remove(name, 60) == 1 and schedules.found(name) == []
