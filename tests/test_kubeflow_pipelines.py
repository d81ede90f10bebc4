"""The pipelines as Kubeflow Pipelines gets them: same steps, Kubernetes' settings, pods that `restricted` accepts, resources that are current."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.contracts.errors import InvalidUseCase
from components.deployment.environment_file import EnvironmentFile, known_environments, load_environment
from components.environments.names import environment_of_image
from pipelines.kubeflow_pipeline import build_pipeline
from pipelines.kubernetes_settings import (
    Amounts,
    ClaimMount,
    KubernetesSettings,
    Retries,
    SecretVariables,
    StepOverrides,
    Toleration,
    load_settings,
    with_object_store,
)
from pipelines.on_kubeflow import compile_for_kubeflow, step_names
from pipelines.pipeline_resources import images_of, resource_file
from pipelines.runners.kubeflow_names import PIPELINES
from pipelines.runners.kubeflow_versions import content_hash
from tests.kubeflow_driver import pods

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).resolve().parents[1]
ALWAYS_ON_KUBEFLOW = {"resolve_request", "notify"}
PLATFORM = """\
platform:
  environment: dev
  lake_uri: s3://crispline/dev/lake
  feature_store_uri: s3://crispline/dev/features
  online_store: redis://crispline-redis:6379/0
  tracking_uri: http://crispline-mlflow:5000
  artifact_uri: s3://crispline/dev/artifacts
  records_uri: s3://crispline/dev/records
  bundles_uri: s3://crispline/dev/bundles
  prediction_log_uri: s3://crispline/dev/prediction_log
  labels_uri: s3://crispline/dev/labels
  gitops_repository: https://git.example.org/acme/crispline.git
  lineage_uri: s3://crispline/dev/lineage
  pipelines_url: http://ml-pipeline.kubeflow:8888
objectStore: {endpoint: "http://minio.minio.svc:9000", existingSecret: crispline-object-store}
access: {namespace: crispline-dev, registry: localhost:5000}
"""


def environment_in(root: Path, **files: str) -> EnvironmentFile:
    """A repository with one environment; `files`: pipelines.yaml of the environment, and of the use case."""
    folder = root / "manifests" / "environments" / "dev"
    (folder / "flights").mkdir(parents=True)
    (folder / "platform.yaml").write_text(PLATFORM)
    for name, content in files.items():
        (folder / {"environment": "pipelines.yaml", "usecase": "flights/pipelines.yaml"}[name]).write_text(content)
    return load_environment("dev", root)


def compiled(name: str, settings: KubernetesSettings = KubernetesSettings(), labels: Mapping[str, str] = {"crispline.io/usecase": "flights"}) -> Any:  # noqa: B008
    return list(yaml.load_all(compile_for_kubeflow(name, f"flights-dev-{name.replace('_', '-')}", settings, labels), yaml.CSafeLoader))


def steps(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """Tasks of steps by function name."""
    found = {}
    for component in [pipeline["root"], *pipeline["components"].values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            name = task["componentRef"]["name"]
            if "executorLabel" in pipeline["components"][name]:
                found[name.removeprefix("comp-").replace("-", "_")] = task
    return found


@pytest.mark.parametrize("name", PIPELINES)
def test_kubeflow_runs_the_pipelines_steps_and_an_exit_task(name: str) -> None:
    golden = next(iter(yaml.load_all((ROOT / "tests" / "contract" / "golden" / f"{name}.yaml").read_text(), yaml.CSafeLoader)))
    pipeline, _ = compiled(name)
    own, kubeflow = steps(golden), steps(pipeline)
    assert set(own) == set(kubeflow) - ALWAYS_ON_KUBEFLOW
    for step in own:
        assert own[step]["cachingOptions"] == kubeflow[step]["cachingOptions"], step
    assert kubeflow["notify"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert kubeflow["notify"]["inputs"]["parameters"]["run"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert pipeline["root"]["dag"]["tasks"].keys() == {"exit-handler-1", "notify"}


def test_a_retraining_claims_with_the_id_that_kubeflow_gives_to_the_run() -> None:
    """The driver replaces a placeholder only where it is the whole constant of a task's input (driver/resolve.go)."""
    pipeline, _ = compiled("retraining")
    assert steps(pipeline)["claim"]["inputs"]["parameters"]["run"] == {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert "run" not in pipeline["root"]["inputDefinitions"]["parameters"]


@pytest.mark.parametrize("name", ["data", "training", "batch_scoring", "monitoring"])
def test_moments_reach_the_steps_as_the_first_step_made_them_definite(name: str) -> None:
    pipeline, _ = compiled(name)
    tasks = steps(pipeline)
    assert tasks["resolve_request"]["inputs"]["parameters"]["created"] == {"runtimeValue": {"constant": "{{$.pipeline_job_create_time_utc}}"}}
    for step, parameters in (("ingest", ("start", "end")), ("resolve_data_version", ("as_of",)), ("assess_performance", ("window_start", "as_of"))):
        for parameter in parameters if step in tasks else ():
            assert tasks[step]["inputs"]["parameters"][parameter]["taskOutputParameter"]["producerTask"] == "resolve-request", (step, parameter)


def test_the_loop_over_shards_hands_whole_numbers_on() -> None:
    """A loop over an untyped list would hand text on, which the driver refuses for a number (driver/resolve.go)."""
    pipeline, _ = compiled("batch_scoring")
    (loop,) = (each["inputDefinitions"]["parameters"] for name, each in pipeline["components"].items() if name.startswith("comp-for-loop"))
    assert {name: each["parameterType"] for name, each in loop.items() if name.endswith("loop-item")} == {
        "pipelinechannel--list-shards-Output-loop-item": "NUMBER_INTEGER"
    }


def test_every_input_of_a_task_has_the_type_that_its_component_declares() -> None:
    """The driver converts nothing but to text: a number that arrives as text ends the run."""
    for name in PIPELINES:
        pipeline, _ = compiled(name)
        for component in [pipeline["root"], *pipeline["components"].values()]:
            outer = component.get("inputDefinitions", {}).get("parameters", {})
            for task, spec in component.get("dag", {}).get("tasks", {}).items():
                inner = pipeline["components"][spec["componentRef"]["name"]].get("inputDefinitions", {}).get("parameters", {})
                for parameter, source in spec.get("inputs", {}).get("parameters", {}).items():
                    if "componentInputParameter" in source:
                        assert outer[source["componentInputParameter"]]["parameterType"] == inner[parameter]["parameterType"], (name, task, parameter)


FULL = KubernetesSettings(
    imagePullSecrets=["registry"],
    variables={"AWS_REGION": "us-east-1"},
    secrets=[SecretVariables(name="crispline-object-store", keys=["AWS_ACCESS_KEY_ID"]), SecretVariables(name="git", keys=["GITHUB_TOKEN"], steps=["promote"])],
    volumes=[ClaimMount(claim="lake", mountPath="/lake", steps=["build_features"])],
    scratch="5Gi",
    steps={
        "train": StepOverrides(
            requests=Amounts(cpu="2", memory="4Gi"),
            nodeSelector={"pool": "training"},
            tolerations=[Toleration(key="dedicated", value="training", effect="NoSchedule")],
            retries=Retries(number=3, firstWait=timedelta(minutes=1)),
            timeout=timedelta(hours=3),
        )
    },
)


def test_every_pod_meets_the_level_restricted() -> None:
    """The rules of https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted that concern these pods."""
    for name in PIPELINES:
        pipeline, platform = compiled(name, FULL)
        found = dict(pods(pipeline, platform))
        assert found.keys() == pipeline["deploymentSpec"]["executors"].keys()
        for executor, pod in found.items():
            for container in (*pod["spec"]["containers"], *pod["spec"]["initContainers"]):
                security = container["securityContext"]
                assert security["runAsNonRoot"] is True, (name, executor)
                assert security.get("runAsUser", 10001) > 0
                assert security["allowPrivilegeEscalation"] is False
                assert security["capabilities"] == {"drop": ["ALL"]}
                assert security["seccompProfile"] == {"type": "RuntimeDefault"}
            assert all(volume.keys() & {"emptyDir", "configMap", "persistentVolumeClaim"} for volume in pod["spec"]["volumes"])
            paths = [mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]]
            assert len(paths) == len(set(paths)) and "/tmp" in paths and "/etc/crispline" in paths


def test_settings_reach_the_steps_that_they_name() -> None:
    pipeline, platform = compiled("training", FULL)
    found = dict(pods(pipeline, platform))
    train, promote, judge = (found[f"exec-{step}"]["spec"] for step in ("train", "promote", "judge"))
    assert train["containers"][0]["resources"] == {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
    assert (train["nodeSelector"], train["activeDeadlineSeconds"]) == ({"pool": "training"}, 10_800)
    assert train["tolerations"] == [{"key": "dedicated", "operator": "Equal", "value": "training", "effect": "NoSchedule"}]
    secrets = [each["valueFrom"]["secretKeyRef"]["name"] for each in promote["containers"][0]["env"] if "valueFrom" in each]
    assert secrets == ["crispline-object-store", "git"]
    assert "git" not in str(train["containers"][0]["env"])
    assert {"name": "CRISPLINE_PLATFORM", "value": "/etc/crispline/platform.json"} in judge["containers"][0]["env"]
    assert [volume["name"] for volume in found["exec-build-features"]["spec"]["volumes"] if "persistentVolumeClaim" in volume] == ["lake"]
    assert found["exec-train"]["metadata"]["labels"] == {"crispline.io/usecase": "flights"}
    assert all("password" not in each and not each.get("value", "").startswith("AKIA") for each in train["containers"][0]["env"])


def test_a_retry_is_not_ended_by_the_duration_that_argo_gives_to_all_attempts() -> None:
    """Argo counts maxDuration from the first attempt's start and ends later attempts at it (workflow/controller/operator.go): KFP's default is an hour."""
    pipeline, platform = compiled("training", FULL)
    tasks = steps(pipeline)
    assert tasks["train"]["retryPolicy"] == {"maxRetryCount": 3, "backoffDuration": "60s", "backoffFactor": 2.0, "backoffMaxDuration": f"{4 * 10_800 + 420}s"}
    for name in PIPELINES:
        pipeline, platform = compiled(name)
        for step, task in steps(pipeline).items():
            policy = task.get("retryPolicy")
            if policy is None:
                continue
            config = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step.replace('_', '-')}"]
            assert int(policy["backoffMaxDuration"][:-1]) > int(config["activeDeadlineSeconds"]) * (policy["maxRetryCount"] + 1), (name, step)
            assert policy["backoffFactor"] == int(policy["backoffFactor"])  # Argo's is a whole number
    assert "retryPolicy" not in tasks["judge"]


def test_a_run_has_an_end_and_its_workflow_does_not_stay_for_ever() -> None:
    _, platform = compiled("training")
    assert platform["platforms"]["kubernetes"]["pipelineConfig"] == {"activeDeadlineSeconds": 43_200, "resourceTtlOnCompletion": 604_800}


def test_the_version_follows_from_the_content_not_from_its_writing() -> None:
    text = compile_for_kubeflow("monitoring", "flights-dev-monitoring", KubernetesSettings(), {})
    documents = list(yaml.load_all(text, yaml.CSafeLoader))
    assert content_hash(text) == content_hash("# another comment\n" + yaml.safe_dump_all(reversed([documents[1], documents[0]]), sort_keys=False))
    other = compile_for_kubeflow("monitoring", "flights-dev-monitoring", KubernetesSettings(user=10002), {})
    assert content_hash(text) != content_hash(other)


def test_an_environments_settings_are_laid_under_the_use_cases(tmp_path: Path) -> None:
    environment = environment_in(
        tmp_path,
        environment="defaults: {timeout: 2h}\nsteps:\n  train: {limits: {memory: 8Gi}, retries: {number: 1}}\n",
        usecase="steps:\n  train: {limits: {memory: 16Gi}}\n",
    )
    settings = load_settings(environment, "flights", step_names("training"), tmp_path)
    train = settings.step("train")
    assert (train.limits.memory, train.retries.number, settings.step("register").timeout) == ("16Gi", 1, timedelta(hours=2))
    assert settings.variables["AWS_ENDPOINT_URL"] == "http://minio.minio.svc:9000" and settings.variables["AWS_ALLOW_HTTP"] == "true"
    assert settings.secrets[0].name == "crispline-object-store"
    assert with_object_store(settings, environment).secrets == settings.secrets


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("retries: 3\n", "retries"),
        ("defaults: {limits: {memory: lots}}\n", r"defaults\.limits\.memory"),
        ("steps: {trian: {timeout: 1h}}\n", r"steps\.trian: there is no such step"),
        ("secrets: [{name: git, keys: [A], steps: [promot]}]\n", "promot: there is no such step"),
        ("user: 0\n", "user: Input should be greater than or equal to 1"),
        ("steps: {train: {retries: {factor: 1.5}}}\n", "factor"),
        ("a: [\n", "yaml"),
    ],
)
def test_settings_that_break_their_contract_are_refused_with_the_key(tmp_path: Path, content: str, said: str) -> None:
    environment = environment_in(tmp_path, environment=content)
    with pytest.raises(InvalidUseCase, match=said) as refused:
        load_settings(environment, "flights", step_names("training"), tmp_path)
    assert str(tmp_path / "manifests" / "environments" / "dev" / "pipelines.yaml") in str(refused.value)


def test_a_pipeline_of_an_environment_bears_its_names(tmp_path: Path) -> None:
    built = build_pipeline("batch_scoring", "flights", environment_in(tmp_path), tmp_path)
    pipeline, platform = yaml.load_all(built.compiled, yaml.CSafeLoader)
    assert (built.name, pipeline["pipelineInfo"]["name"]) == ("flights-dev-batch-scoring", "flights-dev-batch-scoring")
    (labels,) = {tuple(sorted(pod["metadata"]["labels"].items())) for _, pod in pods(pipeline, platform)}
    assert dict(labels)["crispline.io/pipeline"] == "batch_scoring"


WRITTEN = [
    (environment, file.parent.name, file.stem)
    for environment in known_environments()
    for file in sorted((ROOT / "manifests" / "pipelines" / environment).glob("*/*.yaml"))
]


@functools.cache
def written_now(environment: str, usecase: str) -> dict[str, str]:
    """The resources of a use case's pipelines as this code writes them, with the images that the written ones name: one release wrote them all."""
    images: dict[str, str] = {}
    for pipeline in PIPELINES:
        images |= images_of(resource_file(environment, usecase, pipeline))
    code = (
        "import json; from components.deployment.environment_file import load_environment; from pipelines.kubeflow_pipeline import build_pipeline\n"
        "from pipelines.pipeline_resources import PIPELINES, resources, written\n"
        f"environment = load_environment({environment!r})\n"
        f"built = {{each: build_pipeline(each, {usecase!r}, environment) for each in PIPELINES}}\n"
        f"print(json.dumps({{each: written(resources(made, environment, {usecase!r})) for each, made in built.items()}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **images}, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("environment", "usecase", "pipeline"), WRITTEN)
def test_the_written_resources_are_current(environment: str, usecase: str, pipeline: str) -> None:
    """But for their images, which are those of a release. After a change: python -m pipelines.pipeline_resources --env <environment>"""
    assert written_now(environment, usecase)[pipeline] == resource_file(environment, usecase, pipeline).read_text()


def test_every_environment_has_the_resources_of_every_pipeline_of_the_example() -> None:
    for environment in known_environments():
        found = {pipeline for each, usecase, pipeline in WRITTEN if (each, usecase) == (environment, "flights")}
        assert found == set(PIPELINES), environment


def test_the_images_of_written_resources_are_found(tmp_path: Path) -> None:
    for environment, usecase, pipeline in WRITTEN:
        for variable, image in images_of(resource_file(environment, usecase, pipeline)).items():
            assert variable == f"CRISPLINE_IMAGE_{environment_of_image(image).upper()}"
