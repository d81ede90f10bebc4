"""The chart model-server: what it renders, what Kubernetes, the CRDs and Seldon's webhook would say to it, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.charts.helm import ROOT, ChartRefused, Helm, Kubeconform, Object, faults_under_restricted, of_kind, one, parse, pod_specs
from tests.charts.predictor_stand_in import ask, free_port, predictor_stand_in, wait_for_port, wait_until
from tests.charts.seldon_webhook import refusals

CHART = ROOT / "charts" / "model-server"
CI = {name: CHART / "ci" / f"{name}-values.yaml" for name in ("deployment", "seldon")}
CHAMPION, CHALLENGER = "1" * 64, "2" * 64
MINIMAL = {"usecase": "flights", "environment": "dev", "release": CHAMPION}


def values(mode: str, **more: Any) -> dict[str, Any]:
    return {**MINIMAL, "serving": {"mode": mode}, **more}


def canary(weight: int = 25, shadow: bool = False) -> dict[str, Any]:
    return {"release": CHALLENGER, "plan": [5, 25, 50, 100], "step": 1, "weight": weight, "shadow": shadow}


VARIANTS: dict[str, dict[str, Any]] = {
    "seldon": values("seldon"),
    "seldon, canary through Istio": values("seldon", canary=canary(5), splitter={"kind": "istio"}),
    "seldon, shadow through Ambassador": values("seldon", canary=canary(0, True), splitter={"kind": "ambassador"}),
    "seldon, HPA": values("seldon", autoscaling={"kind": "hpa"}),
    "seldon, KEDA": values(
        "seldon", autoscaling={"kind": "keda", "keda": {"triggers": [{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}}]}}
    ),
    "deployment": values("deployment"),
    "deployment, canary through HAProxy": values("deployment", canary=canary(), splitter={"kind": "haproxy"}),
    "deployment, canary through the Gateway API": values(
        "deployment",
        canary=canary(),
        splitter={"kind": "gateway-api", "gatewayApi": {"parentRefs": [{"name": "gateway"}], "hostnames": ["flights.example.org"]}},
    ),
    "deployment, shadow": values("deployment", canary=canary(0, True)),
    "deployment, KEDA, a volume": values(
        "deployment",
        autoscaling={"kind": "keda", "keda": {"triggers": [{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}}]}},
        sharedVolume={"existingClaim": "crispline"},
    ),
    "deployment, no sidecar": values("deployment", sidecar={"enabled": False}),
}
variant = pytest.mark.parametrize("given", VARIANTS.values(), ids=VARIANTS.keys())


@pytest.mark.parametrize("name", CI)
def test_lint_is_clean(helm: Helm, name: str) -> None:
    helm.lint(CHART, files=[CI[name]])


@variant
def test_kubernetes_and_the_crds_take_everything(helm: Helm, kubeconform: Kubeconform, given: dict[str, Any]) -> None:
    kubeconform.check(helm.template(CHART, given))


@variant
def test_rendering_is_deterministic(helm: Helm, given: dict[str, Any]) -> None:
    assert helm.template(CHART, given) == helm.template(CHART, given)


@variant
def test_every_pod_fits_the_level_restricted_and_has_no_token(helm: Helm, given: dict[str, Any]) -> None:
    found = list(pod_specs(helm.objects(CHART, given)))
    assert len(found) >= 2
    assert {name: faults_under_restricted(spec) for name, spec in found if faults_under_restricted(spec)} == {}


@variant
def test_every_object_lies_in_the_namespace_and_has_the_common_labels(helm: Helm, given: dict[str, Any]) -> None:
    for each in helm.objects(CHART, given, namespace="crispline-dev"):
        if not each["kind"].startswith("MutatingAdmissionPolicy"):
            assert each["metadata"]["namespace"] == "crispline-dev", each["kind"]
        labels = each["metadata"]["labels"]
        assert (
            labels["app.kubernetes.io/part-of"] == "crispline" and labels["crispline.io/usecase"] == "flights" and labels["crispline.io/environment"] == "dev"
        )


@variant
def test_values_in_the_chart_are_complete_without_a_cluster(helm: Helm, given: dict[str, Any]) -> None:
    """`helm template` without API versions, as in a pipeline: no custom kinds but Seldon's own and those that were asked for."""
    kinds = {each["kind"] for each in helm.objects(CHART, given, apis=())}
    assert not kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule"}


# What Seldon's webhook checks


@pytest.mark.parametrize("given", [given for name, given in VARIANTS.items() if name.startswith("seldon")])
def test_seldons_webhook_has_nothing_to_say(helm: Helm, given: dict[str, Any]) -> None:
    assert refusals(one(helm.objects(CHART, given), "SeldonDeployment")) == []


@pytest.mark.parametrize("weight", [0, 5, 50, 100])
def test_weights_sum_to_100(helm: Helm, weight: int) -> None:
    found = one(helm.objects(CHART, values("seldon", canary=canary(weight), splitter={"kind": "istio"})), "SeldonDeployment")
    assert refusals(found) == []
    assert {each["name"]: each["traffic"] for each in found["spec"]["predictors"]} == {"default": 100 - weight, "canary": weight}


def seldon(helm: Helm, **more: Any) -> Object:
    return one(helm.objects(CHART, values("seldon", **more)), "SeldonDeployment")


def containers(spec: Object) -> dict[str, Object]:
    return {each["name"]: each for each in spec["containers"]}


def test_the_executor_logs_to_the_sidecar_in_its_pod(helm: Helm) -> None:
    (predictor,) = seldon(helm)["spec"]["predictors"]
    spec = predictor["componentSpecs"][0]["spec"]
    port = containers(spec)["sidecar"]["ports"][0]["containerPort"]
    assert predictor["graph"]["logger"] == {"mode": "all", "url": f"http://localhost:{port}/"}
    assert f"--port={port}" in containers(spec)["sidecar"]["args"]


def test_ports_stand_clear_of_the_operators_numbering_and_of_the_executor(helm: Helm) -> None:
    """It numbers 9000, 9001, ... in the order of the containers; the executor has 8000 and 5001."""
    spec = seldon(helm)["spec"]["predictors"][0]["componentSpecs"][0]["spec"]
    assert [each["name"] for each in spec["containers"]] == ["model", "sidecar"]
    assert spec["containers"][0]["ports"] == [{"name": "http", "containerPort": 9000, "protocol": "TCP"}]
    assert not {port["containerPort"] for each in spec["containers"] for port in each["ports"]} & {8000, 5001, 9500, 6000}


def test_the_deployments_name_does_not_hang_on_the_containers(helm: Helm) -> None:
    found = seldon(helm)
    for predictor in found["spec"]["predictors"]:
        name = f"{found['metadata']['name']}-{predictor['name']}-0-{predictor['componentSpecs'][0]['metadata']['name']}"
        assert len(name) <= 63


def test_one_disruption_budget_only_because_the_operators_selects_every_predictor(helm: Helm) -> None:
    champion, challenger = seldon(helm, canary=canary(), splitter={"kind": "istio"})["spec"]["predictors"]
    assert champion["componentSpecs"][0]["pdbSpec"] == {"maxUnavailable": 1}
    assert "pdbSpec" not in challenger["componentSpecs"][0]


def test_replicas_are_left_to_the_autoscaler(helm: Helm) -> None:
    for kind, key in (("hpa", "hpaSpec"), ("keda", "kedaSpec")):
        (predictor,) = seldon(helm, autoscaling={"kind": kind, "keda": {"triggers": [{"type": "cpu", "metadata": {"value": "70"}}]}})["spec"]["predictors"]
        assert "replicas" not in predictor and key in predictor["componentSpecs"][0]
    assert seldon(helm, replicas=3)["spec"]["predictors"][0]["replicas"] == 3


def test_with_the_operator_no_object_of_ours_fights_it(helm: Helm) -> None:
    kinds = {each["kind"] for each in helm.objects(CHART, files=[CI["seldon"]])}
    assert not kinds & {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "ScaledObject", "HTTPRoute"}


def test_the_champion_answers_under_the_same_name_in_both_modes(helm: Helm) -> None:
    assert seldon(helm)["spec"]["predictors"][0]["annotations"]["seldon.io/svc-name"] == "flights-model"
    services = of_kind(helm.objects(CHART, values("deployment")), "Service")
    assert services["flights-model"]["spec"]["ports"][0]["port"] == 8000


# One pod, two modes


def test_both_modes_make_the_same_pod_but_for_what_stands_in_front(helm: Helm) -> None:
    same = {"forwarder": {"lameDuckSeconds": 8}, "seldon": {"executor": {"preStopSeconds": 8}}}
    ours = one(helm.objects(CHART, values("deployment", **same)), "Deployment")["spec"]["template"]["spec"]
    theirs = seldon(helm, **same)["spec"]["predictors"][0]["componentSpecs"][0]["spec"]
    assert [each["name"] for each in ours["containers"]] == ["model", "forwarder", "sidecar"]
    assert {**ours, "containers": [each for each in ours["containers"] if each["name"] != "forwarder"]} == theirs


@variant
def test_each_predictor_fetches_and_serves_its_own_release(helm: Helm, given: dict[str, Any]) -> None:
    for name, spec in pod_specs(helm.objects(CHART, given)):
        if "initContainers" not in spec:
            continue
        release = CHALLENGER if re.search(r"canary|shadow", name) else CHAMPION
        assert f"--release={release}" in spec["initContainers"][0]["args"] and f"--release-folder=/release/{release}" in containers(spec)["model"]["args"]
        mounts = {each["name"]: each for each in containers(spec)["model"]["volumeMounts"]}
        assert mounts["release"]["readOnly"] is True


def test_the_model_outlives_what_stands_in_front_and_the_sidecar_outlives_both(helm: Helm) -> None:
    spec = one(helm.objects(CHART, values("deployment")), "Deployment")["spec"]["template"]["spec"]
    found = containers(spec)
    duck = int(next(each for each in found["forwarder"]["args"] if "lame-duck" in each).split("=")[1])
    model, sidecar = (int(found[name]["lifecycle"]["preStop"]["exec"]["command"][1]) for name in ("model", "sidecar"))
    assert duck < model < sidecar < spec["terminationGracePeriodSeconds"]


def test_the_sidecars_readiness_says_only_that_its_port_is_open(helm: Helm) -> None:
    sidecar = containers(one(helm.objects(CHART, values("deployment")), "Deployment")["spec"]["template"]["spec"])["sidecar"]
    assert set(sidecar["readinessProbe"]) & {"httpGet", "tcpSocket", "exec"} == {"tcpSocket"}
    assert "livenessProbe" not in sidecar
    assert sidecar["command"] == ["python", "-m"] and sidecar["args"][0] == "components.monitoring.sidecar.supervised", "the first process is the supervisor"


def test_credentials_come_by_name_and_only_where_they_are_needed(helm: Helm) -> None:
    objects = helm.objects(CHART, values("deployment", objectStore={"endpoint": "http://minio.minio.svc:9000", "existingSecret": "store"}))
    spec = one(objects, "Deployment")["spec"]["template"]["spec"]
    secrets = {name: each.get("envFrom") for name, each in {**containers(spec), "fetch": spec["initContainers"][0]}.items()}
    wanted = [{"secretRef": {"name": "store"}}]
    assert secrets == {"model": None, "forwarder": None, "sidecar": wanted, "fetch": wanted}
    assert not of_kind(objects, "Secret")
    environment = {each["name"]: each.get("value") for each in containers(spec)["sidecar"]["env"]}
    assert (environment["AWS_ENDPOINT_URL"], environment["AWS_ALLOW_HTTP"]) == ("http://minio.minio.svc:9000", "true")


def test_a_digest_wins_over_a_tag(helm: Helm) -> None:
    digest = "sha256:" + "a" * 64
    images = {"registry": "registry.example.org/team", "tag": "v1", "serving": {"digest": digest}, "monitoring": {"tag": "v2"}}
    found = containers(one(helm.objects(CHART, values("deployment", images=images)), "Deployment")["spec"]["template"]["spec"])
    assert found["model"]["image"] == f"registry.example.org/team/crispline-serving@{digest}"
    assert found["sidecar"]["image"] == "registry.example.org/team/crispline-monitoring:v2"


def test_the_release_of_a_promotion_and_the_canarys_file_are_values(helm: Helm, tmp_path: Path) -> None:
    promoted = {
        **MINIMAL,
        "model_version": "m",
        "data_version": "d",
        "gates_record": "g",
        "cause": "c",
        "promoted": "2013-04-01T00:00:00Z",
        "previous": "",
        "evaluation": "e",
        "source": "staging",
        "images": {"serving": {"digest": "sha256:" + "a" * 64}},
    }
    (tmp_path / "release.json").write_text(json.dumps(promoted))
    for text, predictors in (
        ("canary: {}\n", ["default"]),
        ('canary: {release: ""}\n', ["default"]),
        (f"canary: {canary()}\n".replace("False", "false"), ["default", "canary"]),
    ):
        (tmp_path / "canary.yaml").write_text(text)
        given = {"serving": {"mode": "seldon"}, "splitter": {"kind": "istio"}}
        found = one(helm.objects(CHART, given, files=[tmp_path / "release.json", tmp_path / "canary.yaml"]), "SeldonDeployment")
        assert [each["name"] for each in found["spec"]["predictors"]] == predictors
        image = containers(found["spec"]["predictors"][0]["componentSpecs"][0]["spec"])["model"]["image"]
        assert image == "localhost:5000/crispline-serving@sha256:" + "a" * 64


# Deployment mode: dividing and copying requests


def test_the_proxy_draws_each_request_and_names_who_answered(helm: Helm) -> None:
    objects = helm.objects(CHART, values("deployment", canary=canary(25), splitter={"kind": "haproxy"}))
    config = one(objects, "ConfigMap", "flights-model-splitter")["data"]["haproxy.cfg"]
    assert "use_backend canary if { rand(100) lt 25 }" in config and "http-response set-header X-Crispline-Predictor default" in config
    service = one(objects, "Service", "flights-model")["spec"]["selector"]
    assert service["app.kubernetes.io/component"] == "splitter"
    for name in ("default", "canary"):
        selector = one(objects, "Service", f"flights-model-{name}")["spec"]["selector"]
        labels = one(objects, "Deployment", f"flights-model-{name}")["spec"]["template"]["metadata"]["labels"]
        assert selector["crispline.io/predictor"] == name and selector.items() <= labels.items()


def test_another_weight_makes_other_proxies_and_leaves_the_models_alone(helm: Helm) -> None:
    def templates(weight: int) -> dict[str, Object]:
        found = helm.objects(CHART, values("deployment", canary=canary(weight), splitter={"kind": "haproxy"}))
        return {name: each["spec"]["template"] for name, each in of_kind(found, "Deployment").items()}

    before, after = templates(5), templates(25)
    assert {name for name in before if before[name] != after[name]} == {"flights-model-splitter"}


needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not on PATH; apt-get install haproxy to have its configuration tried")


def local_configuration(helm: Helm, canary_values: dict[str, Any], ports: dict[str, int]) -> str:
    """The rendered configuration with ports of this machine in the place of the cluster's Services."""
    objects = helm.objects(CHART, values("deployment", canary=canary_values, splitter={"kind": "haproxy"}))
    config = one(objects, "ConfigMap", "flights-model-splitter")["data"]["haproxy.cfg"]
    for name in ("default", "canary"):
        config = config.replace(f"flights-model-{name}.example.svc.cluster.local:8000", f"127.0.0.1:{ports.get(name, 1)}")
    return config.replace("bind :8000", f"bind 127.0.0.1:{ports.get('front', 8000)}").replace("bind :8404", f"bind 127.0.0.1:{ports.get('health', 8404)}")


@needs_haproxy
@pytest.mark.parametrize("canary_values", [{}, canary(25), canary(0, True)])
def test_haproxy_takes_its_configuration(helm: Helm, canary_values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(local_configuration(helm, canary_values, {}))
    ended = subprocess.run(["haproxy", "-c", "-f", str(file)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert "warning" not in (ended.stderr + ended.stdout).lower()


@needs_haproxy
def test_the_running_proxy_divides_by_weight_names_who_answered_and_gives_every_request_an_id(helm: Helm, tmp_path: Path) -> None:
    with predictor_stand_in("default") as first, predictor_stand_in("canary") as second:
        ports = {"default": first.port, "canary": second.port, "front": free_port(), "health": free_port()}
        (tmp_path / "haproxy.cfg").write_text(local_configuration(helm, canary(25), ports))
        with subprocess.Popen(["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")]) as proxy:
            try:
                wait_for_port(ports["front"])
                answers = [ask(ports["front"]) for _ in range(600)]
                low, high = 150 - 4 * 10.7, 150 + 4 * 10.7  # four standard deviations of a binomial
                assert low < answers.count("canary") < high
                assert answers.count("canary") == len(second.ids) and answers.count("default") == len(first.ids)
                assert len(set(first.ids) | set(second.ids)) == 600, "each request has an id of its own"
                assert {ask(ports["front"], {"X-Crispline-Predictor": name}) for name in ("canary",) for _ in range(20)} == {"canary"}
                ask(ports["front"], {"Seldon-Puid": "mine"})
                assert "mine" in first.ids + second.ids
                with urllib.request.urlopen(f"http://127.0.0.1:{ports['health']}/metrics") as exported:
                    metrics = exported.read().decode()
                dashboard = (CHART / "files" / "dashboards" / "serving.json").read_text()
                asked = set(re.findall(r"haproxy_[a-z_]+", dashboard))
                assert asked and all(f"\n{name}{{" in metrics for name in asked)
                first.break_next = second.break_next = 1  # the connection closes before an answer began
                assert all(ask(ports["front"]) in ("default", "canary") for _ in range(80))
                assert first.break_next == second.break_next == 0
                tried = first.ids + second.ids
                assert len(tried) - len(set(tried)) == 2, "what was sent once more kept its id"
            finally:
                proxy.terminate()


@needs_haproxy
def test_the_champion_answers_for_a_canary_that_is_not_there_yet_or_no_more(helm: Helm, tmp_path: Path) -> None:
    ports = {"canary": free_port(), "front": free_port()}
    with predictor_stand_in("default") as champion:
        (tmp_path / "haproxy.cfg").write_text(local_configuration(helm, canary(50), ports | {"default": champion.port, "health": free_port()}))
        with subprocess.Popen(["haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")]) as proxy:
            try:
                wait_for_port(ports["front"])
                assert {ask(ports["front"]) for _ in range(40)} == {"default"}
                with predictor_stand_in("canary", ports["canary"]):
                    wait_until(lambda: "canary" in {ask(ports["front"]) for _ in range(10)})
                assert {ask(ports["front"]) for _ in range(40)} == {"default"}
            finally:
                proxy.terminate()


def test_the_gateways_route_has_the_weights(helm: Helm) -> None:
    given = values("deployment", canary=canary(25), splitter={"kind": "gateway-api", "gatewayApi": {"parentRefs": [{"name": "gateway"}]}})
    rules = one(helm.objects(CHART, given), "HTTPRoute")["spec"]["rules"]
    assert {each["name"]: each["weight"] for each in rules[-1]["backendRefs"]} == {"flights-model-default": 75, "flights-model-canary": 25}


def test_the_champion_copies_to_the_shadow_and_the_shadow_to_nobody(helm: Helm) -> None:
    deployments = of_kind(helm.objects(CHART, values("deployment", canary=canary(0, True))), "Deployment")
    copies = {
        name: [each for each in containers(d["spec"]["template"]["spec"])["forwarder"]["args"] if each.startswith("--shadow=")]
        for name, d in deployments.items()
    }
    assert copies == {"flights-model-default": ["--shadow=http://flights-model-shadow.example.svc.cluster.local:8000"], "flights-model-shadow": []}


@pytest.mark.parametrize("mode", ["deployment", "seldon"])
def test_budgets_exist_only_where_a_pod_can_be_spared(helm: Helm, mode: str) -> None:
    alone = helm.objects(CHART, values(mode, replicas=1))
    assert not of_kind(alone, "PodDisruptionBudget")
    if mode == "seldon":
        assert "pdbSpec" not in one(alone, "SeldonDeployment")["spec"]["predictors"][0]["componentSpecs"][0]
    else:
        assert set(of_kind(helm.objects(CHART, values(mode)), "PodDisruptionBudget")) == {"flights-model-default"}


# Refusals


@pytest.mark.parametrize("mode", ["deployment", "seldon"])
def test_before_the_first_promotion_nothing_is_rendered_and_an_upgrade_takes_nothing_away(helm: Helm, mode: str, tmp_path: Path) -> None:
    """Nothing at all, so that a reconciler finds the environment in order; a forgotten release.json must not end what is served."""
    nothing = {
        "usecase": "flights",
        "serving": {"mode": mode},
        "autoscaling": {"kind": "hpa"},
        "splitter": {"kind": "istio" if mode == "seldon" else "haproxy"},
    }
    (tmp_path / "release.json").write_text("{}")
    assert helm.objects(CHART, nothing, files=[tmp_path / "release.json"]) == []
    assert "Nothing is released" in helm.notes(CHART, nothing)
    with pytest.raises(ChartRefused, match="release is empty: there is nothing to serve"):
        helm.template(CHART, nothing, upgrade=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "usecase is empty; pass the promotion's file"),
        ({"usecase": "flights", "canary": canary(25), "splitter": {"kind": "haproxy"}}, "release is empty: there is nothing to serve"),
        (
            values("deployment", canary=canary(25)),
            "canary.weight asks for 25% of the requests, but nothing here divides them: splitter.kind is none; set it to haproxy or gateway-api",
        ),
        (values("seldon", canary=canary(5)), "nothing here divides them: splitter.kind is none; set it to istio or ambassador"),
        (values("seldon", canary=canary(0, True)), "canary.shadow needs a splitter that mirrors requests"),
        (values("seldon", splitter={"kind": "haproxy"}), "splits in deployment mode only"),
        (values("deployment", splitter={"kind": "istio"}), "needs Seldon's operator"),
        (values("deployment", splitter={"kind": "haproxy"}, canary=canary(25, True)), "a shadow answers nobody"),
        (values("deployment", splitter={"kind": "haproxy"}, canary={**canary(), "release": CHAMPION}), "canary.release is the champion's release"),
        (values("deployment", splitter={"kind": "gateway-api"}), "needs splitter.gatewayApi.parentRefs"),
        (values("deployment", autoscaling={"kind": "keda"}), "needs autoscaling.keda.triggers"),
        (values("deployment", terminationGracePeriodSeconds=10), "terminationGracePeriodSeconds must be at least 18"),
        (values("deployment", canary={"relaese": CHALLENGER}), "relaese"),
        (values("knative"), "must be one of 'seldon', 'deployment'"),
        ({**values("deployment"), "release": "newest"}, "release"),
        (values("deployment", canary=canary(101)), "101"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_remedy(helm: Helm, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ChartRefused) as refused:
        helm.template(CHART, given)
    assert message in str(refused.value)


def test_an_older_kubernetes_is_refused(helm: Helm) -> None:
    with pytest.raises(ChartRefused, match="kubeVersion"):
        helm.template(CHART, MINIMAL, kubernetes="1.29.0")


# The executor under `restricted`


def test_the_executors_policy_needs_kubernetes_1_36_and_touches_this_release_only(helm: Helm) -> None:
    assert not of_kind(helm.objects(CHART, values("seldon"), kubernetes="1.35.2"), "MutatingAdmissionPolicy")
    assert not of_kind(helm.objects(CHART, values("deployment")), "MutatingAdmissionPolicy")
    objects = helm.objects(CHART, values("seldon"))
    policy = one(objects, "MutatingAdmissionPolicy")
    matched = policy["spec"]["matchConstraints"]
    assert matched["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "example"}}
    labels = seldon(helm)["spec"]["predictors"][0]["componentSpecs"][0]["metadata"]["labels"]
    assert matched["objectSelector"]["matchLabels"].items() <= labels.items()
    assert one(objects, "MutatingAdmissionPolicyBinding")["spec"] == {"policyName": policy["metadata"]["name"]}


# Network


def test_everything_is_denied_and_the_flows_are_few(helm: Helm) -> None:
    policies = of_kind(helm.objects(CHART, files=[CI["deployment"]]), "NetworkPolicy")
    denied = policies["flights-model-deny"]["spec"]
    assert denied["policyTypes"] == ["Ingress", "Egress"] and not denied.get("ingress") and not denied.get("egress")
    deployments = of_kind(helm.objects(CHART, files=[CI["deployment"]]), "Deployment")
    for each in deployments.values():
        assert denied["podSelector"]["matchLabels"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
    allowed = {port["port"] for rule in policies["flights-model-predictors"]["spec"]["egress"] for port in rule["ports"]}
    assert allowed == {6566, 8080, 8000}
    assert policies["flights-model-object-store"]["spec"]["egress"][0]["ports"] == [{"port": 9000, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("endpoint", "port"), [("", 443), ("https://s3.example.org", 443), ("http://s3.example.org", 80), ("http://minio.minio.svc:9000", 9000)]
)
def test_the_object_stores_port_follows_its_endpoint(helm: Helm, endpoint: str, port: int) -> None:
    policy = one(helm.objects(CHART, values("deployment", objectStore={"endpoint": endpoint})), "NetworkPolicy", "flights-model-object-store")
    assert policy["spec"]["egress"][0]["ports"][0]["port"] == port


# Metrics, alerts, dashboards


def exported_metrics() -> set[str]:
    """Names of all series that the code exports, as Prometheus knows them, read from the sources."""
    found: set[str] = set()
    for file in [*(ROOT / "components" / "model_server").rglob("*.py"), *(ROOT / "components" / "monitoring").rglob("*.py")]:
        text = file.read_text()
        for kind, name in re.findall(r"(Counter|Gauge|Histogram)\(\s*f?\"(crispline_[a-z_]+)\"", text):
            found |= {f"{name}_total"} if kind == "Counter" else {name, f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "Histogram" else {name}
    sidecar = (ROOT / "components" / "monitoring" / "metrics.py").read_text()
    found |= {f"crispline_sidecar_{name}_total" for name in re.findall(r"counter\(\s*\"([a-z_]+)\"", sidecar)}
    found |= {f"crispline_{name}" for name in re.findall(r"gauge\(\s*\"([a-z_]+)\"", sidecar)}
    gauges = (ROOT / "components" / "monitoring" / "performance_gauges.py").read_text()
    return found | {f"crispline_performance{name}" for name in re.findall(r"= gauge\(\s*\"([a-z_]*)\"", gauges)}


def metrics_in(text: str) -> set[str]:
    return {name for name in re.findall(r"\bcrispline_[a-z_]+", text) if not name.startswith("crispline_io_")}


@pytest.mark.parametrize("name", CI)
def test_rules_ask_only_for_series_that_the_code_exports(helm: Helm, name: str) -> None:
    rule = one(helm.objects(CHART, files=[CI[name]]), "PrometheusRule")
    asked = {metric for group in rule["spec"]["groups"] for each in group["rules"] for metric in metrics_in(each["expr"])}
    assert len(asked) >= 10 and asked <= exported_metrics(), asked - exported_metrics()


def test_dashboards_ask_only_for_series_that_the_code_exports(helm: Helm) -> None:
    boards = [
        each for each in of_kind(helm.objects(CHART, files=[CI["deployment"]]), "ConfigMap").values() if "grafana_dashboard" in each["metadata"]["labels"]
    ]
    assert len(boards) == 2
    for each in boards:
        (text,) = each["data"].values()
        board = json.loads(text)
        asked = {metric for panel in board["panels"] for target in panel["targets"] for metric in metrics_in(target["expr"])}
        assert asked and asked <= exported_metrics(), asked - exported_metrics()
        assert "@" not in board["title"] and "flights" in board["title"]
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("name", CI)
def test_every_alert_has_a_runbook_that_exists(helm: Helm, name: str) -> None:
    rule = one(helm.objects(CHART, files=[CI[name]]), "PrometheusRule")
    alerts = [each for group in rule["spec"]["groups"] for each in group["rules"]]
    wanted = {
        "Drift",
        "PerformanceBelowThreshold",
        "FeaturesStale",
        "ErrorRate",
        "Latency",
        "SidecarSilent",
        "EventsLost",
        "WindowOverdue",
        "AlertsUndelivered",
    }
    assert {each["alert"].removeprefix("Crispline") for each in alerts} == wanted
    for each in alerts:
        page = re.sub(r"(?<!^)(?=[A-Z])", "-", each["alert"].removeprefix("Crispline")).lower()
        assert each["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{page}.md")
        text = (ROOT / "docs" / "runbooks" / f"{page}.md").read_text()
        assert "**What.**" in text and "**How bad.**" in text
        assert each["labels"]["severity"] in ("critical", "warning")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH; apt-get install prometheus to have the rules evaluated")
@pytest.mark.parametrize("name", CI)
def test_the_rules_fire_when_they_should_and_only_then(helm: Helm, name: str, tmp_path: Path) -> None:
    from tests.charts.rule_cases import cases

    rule = one(helm.objects(CHART, files=[CI[name]], namespace="crispline"), "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": rule["spec"]["groups"]}))
    # What takes days is evaluated by the hour: by the minute it takes minutes.
    of_days = [each for each in cases(name) if each["promql_expr_test"][0]["eval_time"].endswith("d")]
    others = [each for each in cases(name) if each not in of_days]
    for file, interval, tests in (("days.yaml", "1h", of_days), ("cases.yaml", "1m", others)):
        assert tests
        (tmp_path / file).write_text(json.dumps({"rule_files": ["rules.yaml"], "evaluation_interval": interval, "tests": tests}))
    ended = subprocess.run(["promtool", "test", "rules", "days.yaml", "cases.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_monitors_find_what_the_chart_and_the_operator_make(helm: Helm) -> None:
    objects = helm.objects(CHART, files=[CI["deployment"]])
    services = of_kind(objects, "Service").values()
    for monitor in of_kind(objects, "ServiceMonitor").values():
        found = [each for each in services if monitor["spec"]["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()]
        assert {each["metadata"]["name"] for each in found} == {"flights-model-default", "flights-model-canary"}
        ports = {port["name"] for each in found for port in each["spec"]["ports"]}
        assert {each["port"] for each in monitor["spec"]["endpoints"]} <= ports
    sidecar = one(objects, "PodMonitor", "flights-model-sidecar")["spec"]
    template = one(objects, "Deployment", "flights-model-default")["spec"]["template"]
    assert sidecar["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert sidecar["podMetricsEndpoints"][0]["port"] in {port["name"] for each in template["spec"]["containers"] for port in each["ports"]}


# Notes and help


@pytest.mark.parametrize("name", CI)
def test_notes_tell_the_next_command_and_what_stays(helm: Helm, name: str) -> None:
    notes = helm.notes(CHART, files=[CI[name]], release="flights", namespace="crispline")
    assert "helm -n crispline test flights" in notes and "port-forward service/flights-model 8000" in notes
    assert "makes no PersistentVolumeClaim" in notes
    assert "kubectl -n crispline delete pvc data" in helm.notes(CHART, values("deployment", sharedVolume={"existingClaim": "data"}), namespace="crispline")


def test_notes_say_what_an_older_cluster_cannot_do(helm: Helm) -> None:
    assert "enforce=baseline" in helm.notes(CHART, values("seldon"), kubernetes="1.34.0")
    assert "enforce=baseline" not in helm.notes(CHART, values("seldon"))


def test_helm_test_asks_through_the_service_for_the_releases_in_service(helm: Helm) -> None:
    pod = one(helm.objects(CHART, values("deployment", canary=canary(), splitter={"kind": "haproxy"})), "Pod")
    arguments = pod["spec"]["containers"][0]["args"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test" and arguments[0] == "components.model_server.check_service"
    assert [each for each in arguments if each.startswith("--release=")] == [f"--release={CHAMPION}", f"--release={CHALLENGER}"]
    assert parse(helm.template(CHART, values("deployment"), tests=False)) and not of_kind(parse(helm.template(CHART, values("deployment"), tests=False)), "Pod")
