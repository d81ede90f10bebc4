"""`crispline doctor --env`: every endpoint, permission and version, each with what to do; one fault hides no other.

kubectl is a program of the test's own that answers from a file, MLflow and Kubeflow Pipelines are recording servers; what a real cluster says
is tested in tests/cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.deployment.tests.gitops_remote import bare_repository
from pipelines.commands.environment_checks import environment_findings
from pipelines.commands.findings import Finding, tell
from tests.kfp_recording_server import RecordingKfp

pytestmark = pytest.mark.pipeline
ROOT = Path(__file__).resolve().parents[1]
APIS = ["apps/v1", "machinelearning.seldon.io/v1", "monitoring.coreos.com/v1", "argoproj.io/v1alpha1", "gateway.networking.k8s.io/v1", "keda.sh/v1alpha1"]


class Mlflow:
    """Three answers of a tracking server."""

    def __init__(self) -> None:
        self.version, self.status, self.hosts = "3.17.2", 200, []  # type: str, int, list[str]
        mlflow = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mlflow.hosts.append(self.headers["Host"])
                content = mlflow.version.encode() if self.path == "/version" else b"{}"
                self.send_response(mlflow.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def mlflow() -> Iterator[Mlflow]:
    server = Mlflow()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What kubectl answers, by what its arguments contain; changed in place, written when the doctor looks."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "kubectl").write_text(
        f"""#!{sys.executable}
import json, sys
answers = json.load(open({str(folder / "answers.json")!r}))
said = " ".join(sys.argv[1:])
for key, answer in answers.items():
    if key in said:
        print(answer if isinstance(answer, str) else json.dumps(answer))
        sys.exit(0)
sys.exit("Error from server (Forbidden): " + said)
"""
    )
    (folder / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    application = {"metadata": {"name": "flights-dev"}, "status": {"sync": {"status": "Synced"}, "health": {"status": "Healthy"}}}
    return {
        "version -o json": {"serverVersion": {"major": "1", "minor": "36+", "gitVersion": "v1.36.4"}},
        "get namespace": {"metadata": {"labels": labels}},
        "auth can-i": "yes",
        "api-versions": "\n".join(APIS),
        "get secret crispline-object-store": {"data": {"AWS_ACCESS_KEY_ID": "eA==", "AWS_SECRET_ACCESS_KEY": "eA=="}},
        "get secret crispline-git": {"data": {"GIT_CONFIG_COUNT": "MQ==", "GIT_CONFIG_KEY_0": "eA==", "GIT_CONFIG_VALUE_0": "eA=="}},
        "get applications.argoproj.io": {"items": [application]},
    }


@pytest.fixture
def root(tmp_path: Path, mlflow: Mlflow, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The manifests of this tree with addresses of this machine."""
    assert answers
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("GITHUB_TOKEN", "MLFLOW_TRACKING_USERNAME", "CRISPLINE_KFP_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    bare, _ = bare_repository(tmp_path)
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    with RecordingKfp() as kfp:
        changed(
            tmp_path,
            platform={
                "gitops_repository": f"file://{bare}",
                "pipelines_url": kfp.url,
                "tracking_uri": mlflow.url,
                "feature_server_url": "",
                "trigger_url": "",
                "online_store": str(tmp_path / "online.db"),
                **{name: str(tmp_path / name) for name in ("records_uri", "bundles_uri", "prediction_log_uri", "labels_uri", "lake_uri", "feature_store_uri")},
            },
        )
        yield tmp_path


def changed(root: Path, **sections: dict[str, Any]) -> None:
    file = root / "manifests" / "environments" / "dev" / "platform.yaml"
    document = YAML(typ="safe").load(file.read_text())
    for section, values in sections.items():
        document[section].update(values)
    with file.open("w") as out:
        YAML().dump(document, out)


def look(root: Path, answers: dict[str, Any]) -> dict[str, Finding]:
    (root / "bin" / "answers.json").write_text(json.dumps(answers))
    return {finding.subject: finding for finding in environment_findings("dev", root)}


def test_what_is_good_is_said_with_its_version(root: Path, answers: dict[str, Any], mlflow: Mlflow) -> None:
    found = look(root, answers)
    assert {name: found[name].found for name in ("Kubernetes", "namespace", "MLflow")} == {
        "Kubernetes": "v1.36.4",
        "namespace": "crispline-dev, enforces restricted",
        "MLflow": "3.17.2",
    }
    good = {name for name, finding in found.items() if finding.good}
    assert {
        "permissions",
        "Secret crispline-git",
        "Kubeflow Pipelines",
        "may list pipelines",
        "may read experiments",
        "Git, read",
        "Git, push",
        "Argo CD flights-dev",
    } <= good
    assert set(mlflow.hosts) == {mlflow.url.removeprefix("http://")}


@pytest.mark.parametrize(
    ("key", "answer", "subject", "said", "remedy", "needed"),
    [
        ("version -o json", {"serverVersion": {"major": "1", "minor": "28", "gitVersion": "v1.28.3"}}, "Kubernetes", "v1.28.3", "1.30 or newer", True),
        ("get namespace", None, "namespace", "Forbidden", "kubectl apply -k manifests/namespaces/dev", True),
        ("get namespace", {"metadata": {"labels": {}}}, "pod security", "enforces none", "manifests/namespaces/dev", False),
        ("auth can-i", None, "permissions", "create deployments.apps", "Argo CD or Flux", False),
        ("get secret crispline-git", None, "Secret crispline-git", "Forbidden", "ask somebody", False),
        (
            "get secret crispline-git",
            {"data": {"GIT_CONFIG_COUNT": "MQ=="}},
            "Secret crispline-git",
            "lacks GIT_CONFIG_KEY_0, GIT_CONFIG_VALUE_0",
            "#credentials",
            True,
        ),
        ("api-versions", "apps/v1", "keda.sh", "not installed", "`hpa` needs nothing", False),
        ("get applications.argoproj.io", {"items": []}, "Argo CD", "no Application of dev", "kubectl apply -k manifests/argocd", False),
    ],
)
def test_what_the_cluster_lacks_is_said_with_what_to_do(
    root: Path, answers: dict[str, Any], key: str, answer: Any, subject: str, said: str, remedy: str, needed: bool
) -> None:
    if answer is None:
        del answers[key]
    else:
        answers[key] = answer
    finding = look(root, answers)[subject]
    assert not finding.good and said in finding.found and remedy in finding.remedy and finding.needed == needed


@pytest.mark.parametrize(
    ("platform", "subject", "said", "remedy"),
    [
        ({"pipelines_url": "http://127.0.0.1:1"}, "Kubeflow Pipelines", "gave no answer", "see the message"),
        ({"pipelines_namespace": "team-a"}, "pipelines_namespace", "'team-a'", "leave pipelines_namespace empty"),
        ({"tracking_uri": "http://127.0.0.1:1"}, "MLflow", "ConnectError", "see the message"),
        ({"tracking_uri": "sqlite:///mlflow.db"}, "MLflow", "tracking_uri is sqlite", "pods do not share a file"),
        ({"gitops_repository": "file:///nowhere.git"}, "Git", "git fetch from file:///nowhere.git failed", "check the address"),
        ({"gitops_repository": "/srv/gitops"}, "Git", "is a folder", "name the repository's address"),
        ({"gitops_branch": "trunk"}, "Git", "has no branch trunk", "see the message"),
        ({"online_store": "redis://127.0.0.1:1/0"}, "online store", "ConnectionRefusedError", "see the message"),
    ],
)
def test_an_endpoint_that_is_wrong_is_said_and_hides_no_other(
    root: Path, answers: dict[str, Any], platform: dict[str, str], subject: str, said: str, remedy: str
) -> None:
    changed(root, platform=platform)
    found = look(root, answers)
    assert not found[subject].good and found[subject].needed and said in found[subject].found and remedy in found[subject].remedy
    assert found["Argo CD flights-dev"].good


@pytest.mark.parametrize(("status", "subject", "remedy"), [(403, "MLflow", "--allowed-hosts"), (401, "may read experiments", "MLFLOW_TRACKING_USERNAME")])
def test_mlflow_that_refuses_us_says_why(root: Path, answers: dict[str, Any], mlflow: Mlflow, status: int, subject: str, remedy: str) -> None:
    mlflow.status = status
    finding = look(root, answers)[subject]
    assert not finding.good and remedy in finding.remedy


def test_an_old_mlflow_is_too_old(root: Path, answers: dict[str, Any], mlflow: Mlflow) -> None:
    mlflow.version = "2.20.1"
    assert not look(root, answers)["MLflow"].good


def test_seldons_operator_is_needed_only_where_a_use_case_uses_it(root: Path, answers: dict[str, Any]) -> None:
    answers["api-versions"] = "apps/v1"
    assert "Seldon" not in look(root, answers)
    values = root / "manifests" / "environments" / "dev" / "flights" / "values.yaml"
    values.write_text(values.read_text().replace("mode: deployment", "mode: seldon"))
    finding = look(root, answers)["Seldon"]
    assert not finding.good and finding.needed and finding.found == "needed by flights"


def test_a_platform_file_that_is_none_is_the_first_finding(root: Path, answers: dict[str, Any]) -> None:
    changed(root, access={"colour": "blue"})
    (finding,) = look(root, answers).values()
    assert not finding.good and "access.colour: the key is unknown" in finding.found


def test_exit_code_1_when_something_needed_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    good, optional, needed = Finding("a", True, "x", ""), Finding("b", False, "y", "do b", needed=False), Finding("c", False, "z", "do c")
    assert tell([good, optional]) == 0 and tell([good, needed, optional]) == 1
    assert "do c" in capsys.readouterr().out
