"""How a person's machine reaches an environment: addresses that resolve are asked directly, Services of the cluster through port-forwards."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest

from components.contracts.platform import Platform
from components.deployment.environment_file import Access, EnvironmentFile, ObjectStore
from pipelines.reach import ClusterService, NotReachable, cluster_service, reached

pytestmark = pytest.mark.pipeline
MINIO = "http://minio.minio.svc:9000"


def environment(tmp_path: Path, endpoint: str = "", secret: str = "", profile: str = "", context: str = "") -> EnvironmentFile:
    platform = Platform.embedded(tmp_path / "state").model_copy(
        update={"bundles_uri": "s3://crispline/dev/bundles", "records_uri": "s3://crispline/dev/records"}
    )
    store = ObjectStore.model_validate({"endpoint": endpoint, "existingSecret": secret})
    access = Access.model_validate({"namespace": "crispline-dev", "registry": "localhost:5000", "profile": profile, "context": context})
    return EnvironmentFile.model_validate({"platform": platform, "objectStore": store, "access": access})


@pytest.fixture(autouse=True)
def nobodys_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called kubectl that is none: it writes down how it was called, and answers as `answers.json` says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "kubectl"
    program.write_text(
        f"""#!{sys.executable}
import json, os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
with open(here + "/calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
answers = json.load(open(here + "/answers.json")) if os.path.exists(here + "/answers.json") else {{}}
if "port-forward" in sys.argv:
    if "refuse" in answers:
        sys.exit(answers["refuse"])
    print("Forwarding from 127.0.0.1:45678 -> 9000", flush=True)
    open(here + "/pid", "w").write(str(os.getpid()))
    time.sleep(60)
for key, answer in answers.items():
    if key in " ".join(sys.argv):
        print(answer)
        sys.exit(0)
sys.exit("Error from server (NotFound): not found")
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def calls(kubectl: Path) -> list[list[str]]:
    return [json.loads(line) for line in (kubectl / "calls").read_text().splitlines()]


@pytest.mark.parametrize(
    ("address", "service"),
    [
        ("http://crispline-mlflow:5000", ClusterService("crispline-mlflow", "crispline-dev", 5000)),
        ("http://ml-pipeline.kubeflow:8888", ClusterService("ml-pipeline", "kubeflow", 8888)),
        ("http://minio.minio.svc", ClusterService("minio", "minio", 80)),
        ("redis://crispline-redis.crispline-dev.svc.cluster.local/0", ClusterService("crispline-redis", "crispline-dev", 6379)),
        ("https://mlflow.ml.example.org", None),
        ("http://10.0.0.7:9000", None),
        ("sqlite:///mlflow.db", None),
    ],
)
def test_a_services_address_is_told_from_any_other(address: str, service: ClusterService | None) -> None:
    assert cluster_service(address, "crispline-dev") == service


def test_an_address_that_resolves_is_asked_directly(tmp_path: Path, kubectl: Path) -> None:
    with reached(environment(tmp_path)) as there:
        assert there.url("http://localhost:9000/x") == "http://localhost:9000/x"
    assert not (kubectl / "calls").exists()


def test_a_service_is_forwarded_once_and_let_go(tmp_path: Path, kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _unknown)
    with reached(environment(tmp_path, context="kind")) as there:
        assert there.url(f"{MINIO}/bucket?x=1") == "http://127.0.0.1:45678/bucket?x=1" and there.url(MINIO) == "http://127.0.0.1:45678"
        process = int((kubectl / "pid").read_text())
    assert calls(kubectl) == [["--context", "kind", "-n", "minio", "port-forward", "--address", "127.0.0.1", "svc/minio", ":9000"]]
    deadline = time.monotonic() + 5
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{process}").exists()


def test_a_service_that_cannot_be_forwarded_says_what_to_do(tmp_path: Path, kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _unknown)
    (kubectl / "answers.json").write_text(json.dumps({"refuse": 'Error from server (NotFound): services "minio" not found'}))
    with reached(environment(tmp_path)) as there, pytest.raises(NotReachable, match=r"services .minio. not found\n    remedy: check that it runs"):
        there.url(MINIO)


def test_without_kubectl_the_reader_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _unknown)
    monkeypatch.setenv("PATH", str(tmp_path))
    with reached(environment(tmp_path)) as there, pytest.raises(NotReachable, match="kubectl is not installed"):
        there.url(MINIO)


# --- credentials -----------------------------------------------------------------------------------------------------------------------------


def options(file: EnvironmentFile) -> dict[str, object]:
    with reached(file) as there:
        return dict(there.path(file.platform.bundles_uri).storage_options)


def test_a_profile_comes_first_and_may_know_the_endpoint_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    file = environment(tmp_path, "http://localhost:9000", "store", "crispline-dev")
    Path(os.environ["AWS_CONFIG_FILE"]).write_text("[profile crispline-dev]\nregion = eu-central-1\n")
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text("[crispline-dev]\naws_access_key_id = mine\naws_secret_access_key = secret\n")
    assert options(file) == {"client_kwargs": {"region_name": "us-east-1"}, "profile": "crispline-dev", "endpoint_url": "http://localhost:9000"}
    Path(os.environ["AWS_CONFIG_FILE"]).write_text("[profile crispline-dev]\nendpoint_url = http://localhost:9001\n")
    assert "endpoint_url" not in options(file)
    with reached(file) as there:
        found = there.store_variables()
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_ENDPOINT_URL"]) == ("mine", "http://localhost:9001")


def test_then_the_variables_of_the_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kubectl: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    assert options(environment(tmp_path, secret="store", profile="crispline-dev")) == {"client_kwargs": {"region_name": "us-east-1"}}
    assert not (kubectl / "calls").exists()


def test_then_the_secret_of_the_pods(tmp_path: Path, kubectl: Path) -> None:
    data = {name: b64encode(value.encode()).decode() for name, value in (("AWS_ACCESS_KEY_ID", "pods"), ("AWS_SECRET_ACCESS_KEY", "secret"))}
    (kubectl / "answers.json").write_text(json.dumps({"get secret store": json.dumps({"data": data})}))
    found = options(environment(tmp_path, secret="store"))
    assert (found["key"], found["secret"]) == ("pods", "secret")
    assert calls(kubectl) == [["-n", "crispline-dev", "get", "secret", "store", "-o", "json"]]


def test_without_any_the_reader_is_told_all_three_ways(tmp_path: Path, kubectl: Path) -> None:
    with pytest.raises(NotReachable, match=r"no AWS profile crispline-dev, no AWS_ACCESS_KEY_ID, and the Secret crispline-dev/store cannot be read") as refused:
        options(environment(tmp_path, secret="store", profile="crispline-dev"))
    assert "aws configure --profile crispline-dev" in str(refused.value)


def test_a_path_of_files_needs_no_credentials(tmp_path: Path) -> None:
    with reached(environment(tmp_path, secret="store")) as there:
        assert str(there.path(str(tmp_path))) == str(tmp_path)


def _unknown(*_: object, **__: object) -> list[object]:
    raise socket.gaierror("no such name")
