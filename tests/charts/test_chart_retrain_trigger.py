"""charts/retrain-trigger: what it renders, what it refuses, and that it asks for no more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from ruamel.yaml import YAML

from components.contracts.events import Alert, Performance
from components.contracts.runs import FINISHED
from components.monitoring.retrain_trigger.claims import ClaimState
from components.monitoring.retrain_trigger.policy import Outcome
from tests.charts.helm import CUSTOM_APIS, ROOT, ChartRefused, Helm, Kubeconform, Object, faults_under_restricted, of_kind, one, pod_specs

CHART = ROOT / "charts" / "retrain-trigger"
VALUES: Object = {"usecase": "flights", "environment": "dev"}
MULTI_USER: Object = {
    **VALUES,
    "pipelines": {"multiUser": True, "namespace": "team-a"},
    "pipelineRunner": {"serviceAccounts": [{"namespace": "team-a", "name": "default-editor"}]},
}
EVERYTHING: Object = {
    **MULTI_USER,
    "suspend": True,
    "runMode": "dry_run",
    "replicas": 3,
    "images": {"pullSecrets": [{"name": "registry"}], "pipeline": {"digest": "sha256:" + "0" * 64}},
    "objectStore": {"endpoint": "http://minio.minio.svc:9000", "existingSecret": "crispline-object-store"},
    "sharedVolume": {"existingClaim": "records"},
    "git": {"existingSecret": "gitops"},
    "scheduling": {
        "nodeSelector": {"pool": "small"},
        "tolerations": [{"key": "small", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "low",
    },
    "commonLabels": {"team": "flights"},
    "podAnnotations": {"note": "here"},
    "networkPolicy": {
        "senders": [{"podSelector": {}}],
        "kubernetesApi": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
        "pipelines": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}}}],
        "git": [{"podSelector": {}}],
    },
    "monitoring": {"labels": {"release": "prometheus"}, "alerts": {"labels": {"team": "flights"}}},
}
CASES = {"default": VALUES, "multi-user": MULTI_USER, "everything": EVERYTHING, "no-policies": {**VALUES, "networkPolicy": {"enabled": False}}}


ENVIRONMENT_FILES = sorted((ROOT / "manifests" / "environments").glob("*/*/retrain-trigger.yaml"))


def container(objects: list[Object]) -> Object:
    (found,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    result: Object = found
    return result


def environment(objects: list[Object]) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container(objects)["env"]}


@pytest.mark.parametrize("case", CASES)
def test_it_is_clean_and_fits_the_schemas_of_kubernetes_and_of_prometheus_operator(helm: Helm, kubeconform: Kubeconform, case: str) -> None:
    helm.lint(CHART, CASES[case])
    kubeconform.check(helm.template(CHART, CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_rendering_twice_gives_the_same(helm: Helm, case: str) -> None:
    assert helm.template(CHART, CASES[case]) == helm.template(CHART, CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_as_the_level_restricted_asks(helm: Helm, case: str) -> None:
    found = {name: faults_under_restricted(spec) for name, spec in pod_specs(helm.objects(CHART, CASES[case]))}
    assert set(found) == {"Deployment/crispline-retrain-trigger", "Pod/crispline-retrain-trigger-test"}
    assert all(not faults for faults in found.values()), found


@pytest.mark.parametrize("file", ENVIRONMENT_FILES, ids=lambda file: f"{file.parents[1].name}-{file.parent.name}")
def test_the_values_of_each_environment_render(helm: Helm, kubeconform: Kubeconform, file: Path) -> None:
    kubeconform.check(helm.template(CHART, files=[file]))


def test_the_trigger_may_touch_its_state_and_nothing_else(helm: Helm) -> None:
    objects = helm.objects(CHART, VALUES)
    roles = {name: role["rules"] for name, role in of_kind(objects, "Role").items()}
    assert roles == {
        "crispline-retrain-trigger": [
            {"apiGroups": ["crispline.io"], "resources": ["retraincauses"], "verbs": ["get", "list", "create", "update", "delete"]},
            {"apiGroups": ["crispline.io"], "resources": ["retrainledgers"], "verbs": ["get", "create", "update"]},
        ],
        "crispline-retrain-trigger-claims": [{"apiGroups": ["crispline.io"], "resources": ["retraincauses"], "verbs": ["get", "create", "update"]}],
    }
    assert not of_kind(objects, "ClusterRole")
    assert not of_kind(objects, "ClusterRoleBinding")
    subjects = {name: [(each["namespace"], each["name"]) for each in binding["subjects"]] for name, binding in of_kind(objects, "RoleBinding").items()}
    assert subjects == {
        "crispline-retrain-trigger": [("example", "crispline-retrain-trigger")],
        "crispline-retrain-trigger-claims": [("kubeflow", "pipeline-runner")],
    }


def test_the_one_container_that_needs_the_token_gets_it_as_a_volume(helm: Helm) -> None:
    objects = helm.objects(CHART, VALUES)
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    assert one(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    (token,) = [volume for volume in pod["volumes"] if "projected" in volume]
    assert {next(iter(source)) for source in token["projected"]["sources"]} == {"serviceAccountToken", "configMap", "downwardAPI"}
    assert "audience" not in token["projected"]["sources"][0]["serviceAccountToken"]
    assert "CRISPLINE_KFP_TOKEN_FILE" not in environment(objects)
    assert not any("projected" in volume for volume in one(objects, "Pod")["spec"]["volumes"])


def test_a_multi_user_installation_gets_a_token_of_its_audience_and_the_right_to_runs_in_the_profile(helm: Helm) -> None:
    objects = helm.objects(CHART, MULTI_USER)
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "pipelines-token"]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"] == {"path": "token", "audience": "pipelines.kubeflow.org", "expirationSeconds": 3600}
    (mount,) = [mount for mount in container(objects)["volumeMounts"] if mount["name"] == "pipelines-token"]
    assert environment(objects)["CRISPLINE_KFP_TOKEN_FILE"] == f"{mount['mountPath']}/token"
    role = of_kind(objects, "Role")["crispline-retrain-trigger-example"]
    assert role["metadata"]["namespace"] == "team-a"
    assert {rule["resources"][0]: rule["verbs"] for rule in role["rules"]} == {
        "runs": ["create", "get", "list"],
        "experiments": ["create", "get", "list"],
        "pipelines": ["get", "list"],
    }


def test_switches_become_arguments(helm: Helm) -> None:
    plain = container(helm.objects(CHART, VALUES))["args"]
    assert plain[0] == "components.monitoring.retrain_trigger"
    assert {"--usecase=flights", "--replica=$(POD_NAME)", "--lease-seconds=120", "--poll-seconds=5"} <= set(plain)
    assert not [argument for argument in plain if "state" in argument or "run-mode" in argument or "suspend" in argument]
    set_ = container(helm.objects(CHART, EVERYTHING))["args"]
    assert {"--run-mode=dry_run", "--suspend"} <= set(set_)


def test_the_arguments_are_those_that_the_program_takes(helm: Helm) -> None:
    """The parser of the program itself reads them; only what follows its work is left out."""
    source = (ROOT / "components" / "monitoring" / "retrain_trigger" / "__main__.py").read_text()
    for argument in container(helm.objects(CHART, EVERYTHING))["args"][1:]:
        assert f'"{argument.split("=")[0]}"' in source, argument


def test_there_is_a_budget_only_with_two_pods_or_more(helm: Helm) -> None:
    assert one(helm.objects(CHART, VALUES), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert not of_kind(helm.objects(CHART, {**VALUES, "replicas": 1}), "PodDisruptionBudget")


def test_all_is_denied_but_the_flows_that_are_needed(helm: Helm) -> None:
    policies = of_kind(helm.objects(CHART, VALUES), "NetworkPolicy")
    deny = policies["crispline-retrain-trigger-deny"]["spec"]
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    assert not deny.get("ingress")
    assert not deny.get("egress")
    flows = policies["crispline-retrain-trigger"]["spec"]
    senders = flows["ingress"][0]["from"]
    assert {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "crispline", "app.kubernetes.io/name": "model-server"}}} in senders
    assert {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kubeflow"}},
        "podSelector": {"matchExpressions": [{"key": "workflows.argoproj.io/workflow", "operator": "Exists"}]},
    } in senders
    assert {"podSelector": {}} not in senders
    ports = [[each["port"] for each in rule["ports"]] for rule in flows["egress"]]
    assert ports == [[443, 6443], [8888], [443], [443]]
    endpoint = {**VALUES, "objectStore": {"endpoint": "http://minio.minio.svc:9000"}, "networkPolicy": {"gitPorts": []}}
    narrowed = of_kind(helm.objects(CHART, endpoint), "NetworkPolicy")["crispline-retrain-trigger"]["spec"]["egress"]
    assert [[each["port"] for each in rule["ports"]] for rule in narrowed] == [[443, 6443], [8888], [9000]]
    assert not of_kind(helm.objects(CHART, CASES["no-policies"]), "NetworkPolicy")


def test_every_policy_selects_pods_of_this_release_only(helm: Helm) -> None:
    for name, policy in of_kind(helm.objects(CHART, EVERYTHING), "NetworkPolicy").items():
        assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "example", name


def test_monitoring_is_made_where_prometheus_operator_is(helm: Helm) -> None:
    there = helm.objects(CHART, VALUES)
    assert one(there, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items() <= one(there, "Service")["metadata"]["labels"].items()
    absent = helm.objects(CHART, VALUES, apis=[api for api in CUSTOM_APIS if "monitoring.coreos.com" not in api])
    assert not {each["kind"] for each in absent} & {"ServiceMonitor", "PrometheusRule"}
    assert of_kind(helm.objects(CHART, {**VALUES, "monitoring": {"prometheusOperator": "always"}}, apis=[]), "PrometheusRule")


def test_every_alert_has_a_runbook_that_exists_and_asks_a_figure_that_the_trigger_gives(helm: Helm) -> None:
    source = "".join((ROOT / "components" / "monitoring" / "retrain_trigger" / name).read_text() for name in ("service.py", "kubernetes_store.py", "policy.py"))
    rules = one(helm.objects(CHART, VALUES), "PrometheusRule")["spec"]["groups"][0]["rules"]
    assert len(rules) == 4
    for rule in rules:
        page = Path(rule["annotations"]["runbook_url"].rsplit("/", 1)[1])
        text = (ROOT / "docs" / "runbooks" / page).read_text()
        assert rule["alert"] in text
        figures = {word.split("{")[0] for word in rule["expr"].replace("(", " ").split() if word.startswith("crispline_trigger_")}
        assert figures, rule["expr"]
        for figure in figures:
            name = figure.removeprefix("crispline_trigger_")
            assert f'"{name}"' in source or f'"{name.removeprefix("decision_")}"' in source, figure


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"environment": "dev"}, "usecase is empty"),
        ({"usecase": "flights"}, "environment is empty"),
        ({**VALUES, "runMode": "sometimes"}, "runMode"),
        ({**VALUES, "replica": 2}, "replica"),
        ({**VALUES, "pipelines": {"multiUser": True}}, "needs pipelines.namespace"),
        ({**VALUES, "pipelines": {"namespace": "team-a"}}, "multi-user"),
        ({**VALUES, "pipelineRunner": {"serviceAccounts": [{"name": "x"}]}}, "namespace"),
        ({**VALUES, "leaseSeconds": 1}, "leaseSeconds"),
        ({**VALUES, "usecase": "Flights"}, "usecase"),
    ],
)
def test_values_that_make_no_sense_are_refused_with_the_key(helm: Helm, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ChartRefused, match=message):
        helm.template(CHART, values)


def test_the_pages_are_generated_and_every_value_is_described() -> None:
    done = subprocess.run([sys.executable, "-m", "pipelines.chart_pages", "--check", str(CHART)], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_notes_tell_the_next_command_and_what_stays() -> None:
    notes = (CHART / "templates" / "NOTES.txt").read_text()
    for said in ("helm -n", "get retraincauses", "delete retraincauses,retrainledgers", "delete crd"):
        assert said in notes


def crd(name: str) -> Object:
    loaded: Object = YAML(typ="safe").load((CHART / "crds" / f"{name}.yaml").read_text())
    return loaded


def test_the_kinds_describe_every_field() -> None:
    def undescribed(node: Object, path: str) -> list[str]:
        found = [] if node.get("description") or path.count(".") < 2 or path.endswith((".alert", ".estimate")) else [path]
        for name, inner in node.get("properties", {}).items():
            found += undescribed(inner, f"{path}.{name}")
        return found

    for name in ("retraincauses", "retrainledgers"):
        (version,) = crd(name)["spec"]["versions"]
        assert undescribed(version["schema"]["openAPIV3Schema"], "") == []


def test_a_decision_in_the_ledger_is_one_in_a_cause() -> None:
    """It is copied from the one to the other, so what the one takes the other must take."""

    def spec(name: str) -> Object:
        (version,) = crd(name)["spec"]["versions"]
        found: Object = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        return found

    assert json.dumps(spec("retrainledgers")["last"]["properties"]["decision"]["properties"]) == json.dumps(spec("retraincauses")["decision"]["properties"])


def test_the_kinds_know_the_words_that_the_code_uses() -> None:
    def allowed(*path: str) -> set[str]:
        (version,) = crd("retraincauses")["spec"]["versions"]
        node = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for name in path:
            node = node["properties"][name]
        return set(node["enum"])

    assert allowed("decision", "outcome") == set(get_args(Outcome))
    assert allowed("claim", "state") == set(get_args(ClaimState))
    assert allowed("claim", "outcome") == {"", *FINISHED}
    assert allowed("event", "kind") == {Alert.__name__, Performance.__name__}
