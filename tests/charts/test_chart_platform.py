"""charts/platform: what it renders, what it refuses, and that its platform.json is the contract's."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.contracts.platform import Platform
from tests.charts.helm import ROOT, ChartRefused, Helm, Kubeconform, Object, faults_under_restricted, of_kind, one, pod_specs

CHART = ROOT / "charts" / "platform"
STORE = "s3://crispline/dev"
PLATFORM: Object = {
    "environment": "dev",
    "lake_uri": f"{STORE}/lake",
    "feature_store_uri": f"{STORE}/features",
    "online_store": "redis://crispline-redis:6379/0",
    "tracking_uri": "http://crispline-mlflow:5000",
    "artifact_uri": f"{STORE}/mlflow",
    "records_uri": f"{STORE}/records",
    "bundles_uri": f"{STORE}/bundles",
    "prediction_log_uri": f"{STORE}/prediction_log",
    "labels_uri": f"{STORE}/labels",
    "gitops_repository": "https://git.example.org/acme/crispline.git",
    "lineage_uri": f"{STORE}/lineage",
    "feature_server_url": "http://crispline-feature-server:6566",
}
VALUES: Object = {"platform": PLATFORM, "objectStore": {"endpoint": "http://minio.minio.svc:9000", "existingSecret": "crispline-object-store"}}
DATA: Object = {"name": "flights-data", "usecase": "flights", "pipeline": "data", "cron": "15 * * * *", "parameters": {"start": "last", "end": "now/h"}}
SCHEDULED: Object = {
    **VALUES,
    "platform": {**PLATFORM, "pipelines_url": "http://ml-pipeline.kubeflow:8888"},
    "pipelines": {"stepNamespaces": ["kubeflow"]},
    "schedules": {"timeZone": "Europe/Zurich", "runs": [DATA, {**DATA, "name": "flights-training", "pipeline": "training", "suspend": True, "parameters": {}}]},
}
EVERYTHING: Object = {
    **SCHEDULED,
    "platform": {**SCHEDULED["platform"], "pipelines_namespace": "team-a"},
    "access": {"namespace": "crispline-dev", "registry": "ghcr.io/acme"},
    "pipelines": {"stepNamespaces": ["team-a"], "multiUser": True},
    "images": {"pullSecrets": [{"name": "registry"}], "pipeline": {"digest": "sha256:" + "0" * 64}, "redis": {"repository": "valkey/valkey", "tag": "8"}},
    "mlflow": {
        "allowedHosts": ["mlflow.example.org"],
        "corsAllowedOrigins": ["https://portal.example.org"],
        "auth": {"existingSecret": "mlflow-users"},
        "database": {"existingSecret": "mlflow-database", "upgrade": True},
        "persistence": {"storageClass": "fast"},
    },
    "redis": {"existingSecret": "redis", "persistence": {"storageClass": "fast"}},
    "quota": {"enabled": True, "hard": {"requests.cpu": "8", "requests.memory": "16Gi"}},
    "scheduling": {
        "nodeSelector": {"pool": "small"},
        "tolerations": [{"key": "small", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "low",
    },
    "commonLabels": {"team": "flights"},
    "podAnnotations": {"note": "here"},
    "networkPolicy": {"trackingClients": [{"podSelector": {}}], "objectStore": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]},
}
ELSEWHERE: Object = {
    **VALUES,
    "platform": {**PLATFORM, "online_store": "rediss://cache.example.org:6380/0", "tracking_uri": "https://mlflow.example.org"},
    "mlflow": {"enabled": False},
    "redis": {"enabled": False, "existingSecret": "redis"},
}
CASES = {
    "default": VALUES,
    "scheduled": SCHEDULED,
    "everything": EVERYTHING,
    "elsewhere": ELSEWHERE,
    "no-policies": {**VALUES, "networkPolicy": {"enabled": False}},
}


def pod(objects: list[Object], kind: str, name: str) -> Object:
    found: Object = dict(pod_specs([one(objects, kind, name)]))[f"{kind}/{name}"]
    return found


def container(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = pod(objects, kind, name)["containers"]
    result: Object = found
    return result


def variables(objects: list[Object], kind: str, name: str) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(objects, kind, name).get("env", [])}


@pytest.mark.parametrize("case", CASES)
def test_it_is_clean_and_fits_the_schemas_of_kubernetes(helm: Helm, kubeconform: Kubeconform, case: str) -> None:
    helm.lint(CHART, CASES[case])
    kubeconform.check(helm.template(CHART, CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_rendering_twice_gives_the_same(helm: Helm, case: str) -> None:
    assert helm.template(CHART, CASES[case]) == helm.template(CHART, CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_as_the_level_restricted_asks(helm: Helm, case: str) -> None:
    found = {name: faults_under_restricted(spec) for name, spec in pod_specs(helm.objects(CHART, CASES[case]))}
    assert len(found) >= 2 and all(not faults for faults in found.values()), found


@pytest.mark.parametrize("case", CASES)
def test_platform_json_is_what_every_process_reads(helm: Helm, case: str) -> None:
    found = one([each for each in helm.objects(CHART, CASES[case]) if each["metadata"]["namespace"] == "example"], "ConfigMap", "crispline-platform")
    assert Platform.model_validate_json(found["data"]["platform.json"]) == Platform(**CASES[case]["platform"])


def test_the_values_are_those_of_the_contract_with_its_defaults() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["platform"]["properties"]
    assert set(schema) == set(Platform.model_fields)
    values = YAML(typ="safe").load((CHART / "values.yaml").read_text())["platform"]
    optional = {name: field.default for name, field in Platform.model_fields.items() if not field.is_required() and name != "environment"}
    assert {name: values[name] for name in optional} == optional


def test_the_steps_of_pipelines_get_the_same_platform_json_where_they_run(helm: Helm) -> None:
    found = {
        each["metadata"]["namespace"]: each["data"]["platform.json"]
        for each in helm.objects(CHART, SCHEDULED)
        if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "crispline-platform"
    }
    assert set(found) == {"example", "kubeflow"} and len(set(found.values())) == 1


def test_no_secret_is_made_and_no_password_is_in_an_argument(helm: Helm) -> None:
    for case in CASES.values():
        assert not of_kind(helm.objects(CHART, case), "Secret")
    objects = helm.objects(CHART, EVERYTHING)
    assert variables(objects, "StatefulSet", "crispline-redis")["REDIS_PASSWORD"] == {"secretKeyRef": {"name": "redis", "key": "REDIS_PASSWORD"}}
    assert "$(REDIS_PASSWORD)" in container(objects, "StatefulSet", "crispline-redis")["args"]
    said = variables(objects, "Deployment", "crispline-mlflow")
    assert said["MLFLOW_BACKEND_STORE_URI"] == {"secretKeyRef": {"name": "mlflow-database", "key": "uri"}}
    assert {name: said[name]["secretKeyRef"]["key"] for name in said if "AUTH_ADMIN" in name or "FLASK" in name} == {
        "MLFLOW_AUTH_ADMIN_USERNAME": "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "MLFLOW_FLASK_SERVER_SECRET_KEY",
    }


def test_mlflow_is_one_process_for_its_own_names_and_tells_nobody(helm: Helm) -> None:
    objects = helm.objects(CHART, VALUES)
    arguments = container(objects, "Deployment", "crispline-mlflow")["args"]
    deployment = one(objects, "Deployment", "crispline-mlflow")["spec"]
    assert arguments[:2] == ["mlflow", "server"]
    assert {"--workers=1", "--serve-artifacts", f"--artifacts-destination={STORE}/mlflow"} <= set(arguments)
    assert deployment["replicas"] == 1 and deployment["strategy"] == {"type": "Recreate"}
    (hosts,) = [each.removeprefix("--allowed-hosts=").split(",") for each in arguments if each.startswith("--allowed-hosts=")]
    assert "crispline-mlflow.example.svc.cluster.local:5000" in hosts and "crispline-mlflow:5000" in hosts and "*" not in hosts
    said = variables(objects, "Deployment", "crispline-mlflow")
    assert said["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert said["MLFLOW_BACKEND_STORE_URI"].startswith("sqlite:////var/lib/mlflow/")
    assert "--app-name=basic-auth" not in arguments
    users = helm.objects(CHART, EVERYTHING)
    assert "--app-name=basic-auth" in container(users, "Deployment", "crispline-mlflow")["args"]
    assert "password" not in one(users, "ConfigMap", "crispline-mlflow")["data"]["basic_auth.ini"]


def test_the_database_is_migrated_only_when_that_is_asked_for(helm: Helm) -> None:
    assert "initContainers" not in pod(helm.objects(CHART, VALUES), "Deployment", "crispline-mlflow")
    (init,) = pod(helm.objects(CHART, EVERYTHING), "Deployment", "crispline-mlflow")["initContainers"]
    assert init["args"] == ["mlflow", "db", "upgrade", "$(MLFLOW_BACKEND_STORE_URI)"]


def test_the_object_store_is_found_by_the_same_variables_everywhere(helm: Helm) -> None:
    objects = helm.objects(CHART, VALUES)
    for kind, name in (("Deployment", "crispline-mlflow"), ("Deployment", "crispline-feature-server"), ("Pod", "crispline-platform-test")):
        said = variables(objects, kind, name)
        assert said["AWS_ENDPOINT_URL"] == "http://minio.minio.svc:9000" and said["AWS_ALLOW_HTTP"] == "true" and said["AWS_REGION"] == "us-east-1"
        assert {"secretRef": {"name": "crispline-object-store"}} in container(objects, kind, name)["envFrom"]
    aws = helm.objects(CHART, {**VALUES, "objectStore": {"region": "eu-central-2"}})
    assert not {"AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP"} & set(variables(aws, "Deployment", "crispline-feature-server"))
    assert "envFrom" not in container(aws, "Deployment", "crispline-feature-server")


def test_what_was_published_outlives_the_release_and_the_notes_say_how_to_delete_it(helm: Helm) -> None:
    objects = helm.objects(CHART, VALUES)
    claim = one(objects, "PersistentVolumeClaim", "crispline-mlflow")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    redis = one(objects, "StatefulSet", "crispline-redis")["spec"]
    assert redis["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    assert [each["metadata"]["name"] for each in redis["volumeClaimTemplates"]] == ["data"]
    notes = helm.notes(CHART, VALUES)
    assert "kubectl -n example delete pvc crispline-mlflow data-crispline-redis-0" in notes
    assert "helm -n example test example" in notes and "crispline doctor --env dev" in notes
    assert "none of this chart" in helm.notes(CHART, ELSEWHERE)


def test_redis_keeps_what_it_took_and_says_when_it_is_full(helm: Helm) -> None:
    arguments = container(helm.objects(CHART, VALUES), "StatefulSet", "crispline-redis")["args"]
    settings = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert settings["--appendonly"] == "yes" and settings["--maxmemory-policy"] == "noeviction" and settings["--maxmemory"] == "256mb"
    assert "--requirepass" not in settings


def test_schedules_start_runs_in_kubeflow_pipelines(helm: Helm) -> None:
    objects = helm.objects(CHART, SCHEDULED)
    data, training = one(objects, "CronJob", "crispline-flights-data"), one(objects, "CronJob", "crispline-flights-training")
    assert (data["spec"]["schedule"], data["spec"]["timeZone"], data["spec"]["suspend"]) == ("15 * * * *", "Europe/Zurich", False)
    assert data["spec"]["concurrencyPolicy"] == "Forbid" and training["spec"]["suspend"] is True
    arguments = container(objects, "CronJob", "crispline-flights-data")["args"]
    assert arguments[0] == "pipelines.runners.scheduled_run"
    assert {"--schedule=flights-data", "--occurrence=$(JOB_NAME)", "--usecase=flights", "--pipeline=data"} <= set(arguments)
    assert {"--parameter=start=last", "--parameter=end=now/h"} <= set(arguments)
    assert not of_kind(objects, "Role")
    role = one(helm.objects(CHART, EVERYTHING), "Role")
    assert role["metadata"]["namespace"] == "team-a"
    assert {rule["resources"][0]: rule["verbs"] for rule in role["rules"]} == {
        "runs": ["create", "get", "list"],
        "experiments": ["create", "get", "list"],
        "pipelines": ["get", "list"],
    }
    token = [each for each in pod(helm.objects(CHART, EVERYTHING), "CronJob", "crispline-flights-data")["volumes"] if each["name"] == "pipelines-token"]
    assert token[0]["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"


def test_the_pipelines_that_can_be_scheduled_are_those_that_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["schedules"]["properties"]["runs"]["items"]
    source = (ROOT / "pipelines" / "runners" / "kubeflow_names.py").read_text()
    (known,) = [ast.literal_eval(line.partition("=")[2].strip()) for line in source.splitlines() if line.startswith("PIPELINES")]
    assert set(schema["properties"]["pipeline"]["enum"]) == set(known) - {"retraining"}, "the trigger alone starts a retraining"


def test_the_arguments_are_those_that_the_programs_take(helm: Helm) -> None:
    objects = helm.objects(CHART, EVERYTHING)
    for kind, name in (("CronJob", "crispline-flights-data"), ("Deployment", "crispline-feature-server"), ("Pod", "crispline-platform-test")):
        module, *arguments = container(objects, kind, name)["args"]
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text()
        for argument in arguments:
            option = re.sub(r"^--", "", argument.split("=")[0])
            assert f'"--{option}"' in source or f'"{option}"' in source, argument


def test_all_is_denied_but_the_flows_that_are_needed(helm: Helm) -> None:
    policies = {name: each["spec"] for name, each in of_kind(helm.objects(CHART, SCHEDULED), "NetworkPolicy").items()}
    assert policies["crispline-platform-deny"] == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "platform", "app.kubernetes.io/instance": "example"}},
        "policyTypes": ["Ingress", "Egress"],
    }
    step = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}},
        "podSelector": {"matchExpressions": [{"key": "workflows.argoproj.io/workflow", "operator": "Exists"}]},
    }
    models = {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "crispline", "app.kubernetes.io/name": "model-server"}}}
    clients = {name: policies[name]["ingress"][0]["from"] for name in ("crispline-mlflow", "crispline-feature-server", "crispline-redis")}
    assert step in clients["crispline-mlflow"] and step in clients["crispline-redis"] and step not in clients["crispline-feature-server"]
    assert models in clients["crispline-feature-server"] and models not in clients["crispline-redis"]
    assert not any({"podSelector": {}} in peers for peers in clients.values())
    ports = {name: [[each["port"] for each in rule["ports"]] for rule in policies[name].get("egress", [])] for name in policies}
    assert ports["crispline-mlflow"] == [[9000]] and ports["crispline-feature-server"] == [[9000], [6379]]
    assert ports["crispline-redis"] == [] and ports["crispline-schedules"] == [[8888]]
    other = {name: each["spec"] for name, each in of_kind(helm.objects(CHART, ELSEWHERE), "NetworkPolicy").items()}
    assert [[each["port"] for each in rule["ports"]] for rule in other["crispline-feature-server"]["egress"]] == [[9000], [6380]]
    assert {"crispline-mlflow", "crispline-redis"}.isdisjoint(other)
    database = of_kind(helm.objects(CHART, EVERYTHING), "NetworkPolicy")["crispline-mlflow"]["spec"]["egress"]
    assert [[each["port"] for each in rule["ports"]] for rule in database] == [[9000], [5432]]
    assert not of_kind(helm.objects(CHART, CASES["no-policies"]), "NetworkPolicy")


def test_every_policy_selects_pods_of_this_release_only(helm: Helm) -> None:
    for name, policy in of_kind(helm.objects(CHART, EVERYTHING), "NetworkPolicy").items():
        assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "example", name


def test_nobody_has_a_token_or_a_right_in_kubernetes(helm: Helm) -> None:
    objects = helm.objects(CHART, SCHEDULED)
    assert set(of_kind(objects, "ServiceAccount")) == {"crispline-mlflow", "crispline-feature-server", "crispline-redis", "crispline-schedules"}
    assert all(each["automountServiceAccountToken"] is False for each in of_kind(objects, "ServiceAccount").values())
    assert not {each["kind"] for each in objects} & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "platform.environment is empty"),
        ({"platform": {"environment": "dev"}}, "platform.lake_uri is empty"),
        ({**VALUES, "platform": {**PLATFORM, "lake": "x"}}, "lake"),
        ({**VALUES, "platform": {**PLATFORM, "online_store": "redis://user:hunter2@cache:6379"}}, "platform.online_store holds a password"),
        ({**VALUES, "platform": {**PLATFORM, "online_store": "/var/online.db"}}, "redis.enabled to false"),
        ({**ELSEWHERE, "platform": {**ELSEWHERE["platform"], "online_store": "/var/online.db"}}, "share no file"),
        ({**VALUES, "platform": {**PLATFORM, "tracking_uri": "sqlite:///mlflow.db"}}, "tracking_uri is no http address"),
        ({**VALUES, "platform": {**PLATFORM, "artifact_uri": "/var/artifacts"}}, "artifact_uri is no s3"),
        ({**VALUES, "schedules": {"runs": [DATA]}}, "needs platform.pipelines_url"),
        ({**SCHEDULED, "schedules": {"runs": [DATA, DATA]}}, 'two schedules are called "flights-data"'),
        ({**SCHEDULED, "schedules": {"runs": [{**DATA, "pipeline": "retraining"}]}}, "pipeline"),
        ({**SCHEDULED, "schedules": {"runs": [{**DATA, "cron": "hourly"}]}}, "cron"),
        ({**VALUES, "pipelines": {"multiUser": True}}, "needs platform.pipelines_namespace"),
        ({**VALUES, "quota": {"enabled": True}}, "quota.enabled needs quota.hard"),
        ({**VALUES, "mlflow": {"auth": {"defaultPermission": "ALL"}}}, "defaultPermission"),
        ({**VALUES, "redis": {"maxMemory": "much"}}, "maxMemory"),
    ],
)
def test_values_that_make_no_sense_are_refused_with_the_key(helm: Helm, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ChartRefused, match=message) as refused:
        helm.template(CHART, values)
    assert "hunter2" not in str(refused.value)


def test_the_pages_are_generated_and_every_value_is_described() -> None:
    done = subprocess.run([sys.executable, "-m", "pipelines.chart_pages", "--check", str(CHART)], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
