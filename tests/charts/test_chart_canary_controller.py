"""charts/canary-controller: what it renders is what the controller reads, and it asks for no more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.contracts.durations import parse_duration
from tests.charts.helm import CUSTOM_APIS, ROOT, ChartRefused, Helm, Kubeconform, Object, faults_under_restricted, of_kind, one, pod_specs

CHART = ROOT / "charts" / "canary-controller"
NAME = "crispline-canary-controller"
VALUES: Object = {"environment": "dev", "usecases": ["flights"]}
PROMETHEUS: Object = {
    **VALUES,
    "calls": {"source": "prometheus", "prometheus": {"url": "http://prometheus.monitoring.svc:9090", "selector": {"namespace": "flights-dev"}}},
}
EVERYTHING: Object = {
    **VALUES,
    "usecases": ["flights", "late_trains"],
    "argocd": {"enabled": True},
    "images": {"pullSecrets": [{"name": "registry"}], "pipeline": {"digest": "sha256:" + "0" * 64}},
    "objectStore": {"endpoint": "http://minio.minio.svc:9000", "existingSecret": "crispline-object-store"},
    "git": {"existingSecret": "gitops"},
    "scheduling": {"nodeSelector": {"pool": "small"}, "tolerations": [{"key": "x"}], "affinity": {"nodeAffinity": {}}, "priorityClassName": "low"},
    "commonLabels": {"team": "flights"},
    "podAnnotations": {"note": "here"},
    "networkPolicy": {"kubernetesApi": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "git": [{"podSelector": {}}], "gitPorts": [8080]},
    "monitoring": {"labels": {"release": "prometheus"}, "alerts": {"labels": {"team": "flights"}}},
}
VOLUME: Object = {**VALUES, "sharedVolume": {"existingClaim": "records"}}
CASES = {
    "default": VALUES,
    "prometheus": PROMETHEUS,
    "everything": EVERYTHING,
    "volume": VOLUME,
    "no-policies": {**VALUES, "networkPolicy": {"enabled": False}},
}


def options(objects: list[Object]) -> Any:
    return json.loads(one(objects, "ConfigMap")["data"]["controller.json"])


@pytest.mark.parametrize("case", CASES)
def test_it_is_clean_and_fits_the_schemas(helm: Helm, kubeconform: Kubeconform, case: str) -> None:
    helm.lint(CHART, CASES[case])
    kubeconform.check(helm.template(CHART, CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_rendering_twice_gives_the_same(helm: Helm, case: str) -> None:
    assert helm.template(CHART, CASES[case]) == helm.template(CHART, CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_as_the_level_restricted_asks(helm: Helm, case: str) -> None:
    found = {name: faults_under_restricted(spec) for name, spec in pod_specs(helm.objects(CHART, CASES[case]))}
    assert set(found) == {f"Deployment/{NAME}", f"Pod/{NAME}-test"}
    assert all(not faults for faults in found.values()), found


def test_there_is_one_controller_at_a_time(helm: Helm) -> None:
    spec = one(helm.objects(CHART, VALUES), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_default_rule_is_the_one_in_the_code(helm: Helm) -> None:
    """Read from the source, because this environment has no pydantic model of it: every default stands there once more."""
    rule = options(helm.objects(CHART, VALUES))["usecases"][0]["rule"]
    source = (ROOT / "components/deployment/canary/judgement.py").read_text()
    for name, value in rule.items():
        written = f'parse_duration("{value}")' if isinstance(value, str) else f"default={value}"
        line = next(line for line in source.splitlines() if line.strip().startswith(f"{name}: "))
        assert written in line, f"{name}: {value} in the chart, in the code: {line.strip()}"
        if isinstance(value, str):
            parse_duration(value)


def test_each_predictors_pods_are_read_by_their_own_addresses(helm: Helm) -> None:
    objects = helm.objects(CHART, VALUES)
    addresses = options(objects)["usecases"][0]["calls"]["addresses"]
    services = {name: each for name, each in of_kind(objects, "Service").items() if each["spec"].get("clusterIP") == "None"}
    assert set(addresses) == {"default", "canary", "shadow"}
    for predictor, address in addresses.items():
        name = f"{NAME}-flights-{predictor}"
        assert address == f"http://{name}.example.svc.cluster.local:8000/metrics"
        spec = services[name]["spec"]
        assert spec["publishNotReadyAddresses"] is True
        assert spec["selector"]["crispline.io/predictor"] == predictor and spec["selector"]["crispline.io/environment"] == "dev"


def test_the_model_servers_pods_are_selected(helm: Helm) -> None:
    """The labels are those that charts/model-server gives its pods."""
    canary = {"release": "b" * 64, "plan": [5, 100], "step": 0, "weight": 5, "shadow": False}
    served = {"usecase": "flights", "environment": "dev", "release": "a" * 64, "serving": {"mode": "deployment"}, "splitter": {"kind": "haproxy"}}
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"]
        for name, each in of_kind(helm.objects("model-server", {**served, "canary": canary}), "Deployment").items()
    }
    objects = helm.objects(CHART, VALUES)
    for predictor in ("default", "canary"):
        selector = of_kind(objects, "Service")[f"{NAME}-flights-{predictor}"]["spec"]["selector"]
        matching = [name for name, found in labels.items() if selector.items() <= found.items()]
        assert matching == [f"flights-model-{predictor}"]
    (policy,) = [each for name, each in of_kind(objects, "NetworkPolicy").items() if name.endswith("-metrics")]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels["flights-model-canary"].items()


def test_prometheus_needs_no_services_of_the_pods(helm: Helm) -> None:
    objects = helm.objects(CHART, PROMETHEUS)
    assert set(of_kind(objects, "Service")) == {NAME}
    assert options(objects)["usecases"][0]["calls"] == {
        "kind": "prometheus",
        "histogram": "forwarder",
        "url": "http://prometheus.monitoring.svc:9090",
        "selector": {"namespace": "flights-dev"},
    }
    assert {"port": 9090, "protocol": "TCP"} in [port for rule in _egress(objects) for port in rule["ports"]]


def test_with_seldons_executor_the_deployment_is_selected_by_its_name(helm: Helm) -> None:
    values = {**PROMETHEUS, "usecases": ["late_trains"], "calls": {**PROMETHEUS["calls"], "histogram": "executor"}}
    assert options(helm.objects(CHART, values))["usecases"][0]["calls"]["selector"]["deployment_name"] == "late-trains-model"


def test_without_argo_cd_it_has_no_right_in_the_cluster_and_no_token(helm: Helm) -> None:
    objects = helm.objects(CHART, VALUES)
    assert not [each for each in objects if each["kind"] in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")]
    assert not any("projected" in volume for _, spec in pod_specs(objects) for volume in spec["volumes"])
    assert not any(port["port"] == 6443 for rule in _egress(objects) for port in rule["ports"])


def test_with_argo_cd_it_may_patch_the_named_applications_and_nothing_else(helm: Helm) -> None:
    objects = helm.objects(CHART, EVERYTHING)
    role, binding = one(objects, "Role"), one(objects, "RoleBinding")
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "argocd"
    names = ["flights-dev", "late-trains-dev"]
    assert role["rules"] == [{"apiGroups": ["argoproj.io"], "resources": ["applications"], "resourceNames": names, "verbs": ["patch"]}]
    assert [each["argocd"]["application"] for each in options(objects)["usecases"]] == names
    assert not of_kind(objects, "ClusterRole")


def test_credentials_come_from_existing_secrets_only(helm: Helm) -> None:
    objects = helm.objects(CHART, EVERYTHING)
    assert not of_kind(objects, "Secret")
    for _, spec in pod_specs(objects):
        assert [each["secretRef"]["name"] for each in spec["containers"][0]["envFrom"]] == ["crispline-object-store", "gitops"]


def test_a_new_rule_makes_a_new_pod(helm: Helm) -> None:
    def pod(values: Object) -> Any:
        return one(helm.objects(CHART, values), "Deployment")["spec"]["template"]["metadata"]["annotations"]

    assert pod(VALUES) != pod({**VALUES, "rule": {"first_look": 100}})


def test_the_test_pod_sees_what_the_controller_sees(helm: Helm) -> None:
    objects = helm.objects(CHART, EVERYTHING)
    controller, test = one(objects, "Deployment")["spec"]["template"]["spec"], one(objects, "Pod")["spec"]
    for key in ("volumes", "securityContext", "serviceAccountName", "nodeSelector"):
        assert controller[key] == test[key]
    assert "--check" in test["containers"][0]["args"] and one(objects, "Pod")["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_everything_is_denied_but_what_is_needed(helm: Helm) -> None:
    objects = helm.objects(CHART, VALUES)
    deny = of_kind(objects, "NetworkPolicy")[f"{NAME}-deny"]["spec"]
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"} and "ingress" not in deny and "egress" not in deny
    assert sorted(port["port"] for rule in _egress(objects) for port in rule["ports"]) == [53, 53, 443, 443, 8000, 8080]
    assert not of_kind(helm.objects(CHART, CASES["no-policies"]), "NetworkPolicy")


def test_records_on_a_volume_need_no_object_store(helm: Helm) -> None:
    objects = helm.objects(CHART, VOLUME)
    assert sorted(port["port"] for rule in _egress(objects) for port in rule["ports"]) == [53, 53, 443, 8000, 8080]
    assert all({"name": "shared", "mountPath": "/var/lib/crispline"} in spec["containers"][0]["volumeMounts"] for _, spec in pod_specs(objects))


def test_every_alert_has_a_page(helm: Helm) -> None:
    rules = [rule for group in one(helm.objects(CHART, VALUES), "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules} == {"CrisplineCanaryRolledBack", "CrisplineCanaryNotJudged", "CrisplineCanaryControllerDown"}
    for rule in rules:
        page = rule["annotations"]["runbook_url"].rsplit("/", 1)[1]
        assert (ROOT / "docs" / "runbooks" / page).is_file(), page


def test_without_prometheus_operator_its_kinds_are_left_out(helm: Helm) -> None:
    apis = [api for api in CUSTOM_APIS if not api.startswith("monitoring")]
    objects = helm.objects(CHART, VALUES, apis=apis)
    assert not [each for each in objects if each["kind"] in ("ServiceMonitor", "PrometheusRule")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"usecases": ["flights"]}, "environment is empty"),
        ({"environment": "dev"}, "usecases is empty"),
        ({**VALUES, "calls": {"source": "prometheus"}}, "calls.prometheus.url is empty"),
        ({**VALUES, "rule": {"minimum_requests": 20}}, "less than rule.first_look"),
        ({**VALUES, "rule": {"slow_seconds": 0.3}}, "slow_seconds"),
        ({**VALUES, "rule": {"patience": "7 days"}}, "patience"),
        ({**VALUES, "rule": {"unknown": 1}}, "unknown"),
        ({**VALUES, "replicas": 2}, "replicas"),
        ({**VALUES, "usecases": ["a" * 40], "nameOverride": "b" * 40}, "longer than 63"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(helm: Helm, values: Object, message: str) -> None:
    with pytest.raises(ChartRefused, match=message):
        helm.template(CHART, values)


def test_readme_and_schema_are_those_of_the_values() -> None:
    ended = subprocess.run([sys.executable, "-m", "pipelines.chart_pages", "--check", str(CHART)], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_no_value_is_a_secret() -> None:
    values = YAML(typ="safe").load((CHART / "values.yaml").read_text())
    assert not [name for name in json.dumps(values).lower().split('"') if "password" in name or "token" in name]


def _egress(objects: list[Object]) -> list[Object]:
    rules: list[Object] = of_kind(objects, "NetworkPolicy")[NAME]["spec"]["egress"]
    return rules
