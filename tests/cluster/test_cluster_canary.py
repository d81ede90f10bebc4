"""Canaries on a real cluster: the controller's pod, real traffic through the proxy, commits to a Git server, a reconciler between.

Where Argo CD runs, it reconciles, with self-healing on; elsewhere a loop of `helm upgrade` does what a reconciler does, and the output says so.
The tests run in order on one installation.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.contracts.artifacts import Release
from components.contracts.durations import parse_moment
from components.contracts.platform import Platform
from components.contracts.serving import ServingContract
from components.deployment.bundle import read_file
from components.deployment.canary.lifecycle import beginning
from components.deployment.canary.plan import Canary, canary_path, parse
from components.deployment.canary.policy import approved, by_controller, check_change
from components.deployment.canary.trail import Place
from components.deployment.gitops import Author, GitRepository
from components.deployment.releases import release_content, release_path
from components.deployment.tests.example_release import build_release
from pipelines.runners.environments import ROOT
from tests.cluster.access import Cluster, Object
from tests.cluster.conftest import Images
from tests.cluster.served_model import CHART, DATA, PREDICTORS, USECASE, ServedModel, build_haproxy_image, put_on_volume, values_of_test
from tests.cluster.test_cluster_serving import interval

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster]
PLACE = Place(USECASE, "dev")
FOLDER = f"manifests/environments/dev/{USECASE}"
PATH = canary_path(USECASE, "dev")
TOKEN = "Basic " + base64.b64encode(b"crispline-canary:secret-of-the-test").decode()
CONTROLLER = "crispline-canary-controller"
# Small samples and wide margins, so that a test takes minutes: the rule itself is measured by benchmarks/canary_rule.py. A stage lasts long enough that
# the controller is killed in the middle of one.
RULE: Object = {
    "first_look": 25, "minimum_requests": 100, "error_margin": 0.1, "slow_seconds": 2.5, "slow_margin": 0.2, "drift_margin": 0.6, "minimum_hold": "20s",
}  # fmt: skip
ARGO = "argoproj.io/v1alpha1"


@dataclass
class World:
    """The namespace with model server, Git server and controller. `reconciler`: who brings commits into the cluster."""

    served: ServedModel
    repository: Callable[[], GitRepository]
    releases: dict[str, str]
    application: str
    reconciler: str

    # --- Git ---------------------------------------------------------------------------------------------------------------------------

    def commit(self, changes: dict[str, bytes | None], message: str) -> str:
        """A person's change, reviewed and merged."""
        repository = self.repository()
        with repository.locked():
            commit = repository.commit_files(changes, message, datetime.now(UTC))
        self.ask()
        return commit

    def begin(self, release: str, plan: list[int]) -> None:
        """A canary, reviewed and merged, once the one before has ended, if need be by hand, and its pods are gone."""
        if self.canary() is not None:
            self.commit({PATH: b"canary: {}\n"}, "End the canary by hand")
        self.wait_for_no_canary()
        repository = self.repository()
        with repository.locked():
            repository.commit_files(beginning(repository, PLACE, self.releases[release], plan), f"Begin the canary of {release}", datetime.now(UTC))
        self.ask()

    def ask(self) -> None:
        """What a webhook of the forge does after a merge."""
        if self.application:
            patch = {"metadata": {"annotations": {"argocd.argoproj.io/refresh": "normal"}}}
            self.served.kube.custom.patch_namespaced_custom_object("argoproj.io", "v1alpha1", "argocd", "applications", self.application, patch)

    def canary(self) -> Canary | None:
        return parse(self.repository().read_file(PATH), PATH)

    def wait_for_weight(self, weight: int) -> None:
        """Until that weight or a higher one is in Git: the next step may come between two looks."""

        def there() -> bool:
            found = self.canary()
            assert found is not None, f"the canary ended: {[record['reason'] for record in self.records('rollback')]}"
            return found.weight >= weight

        self.served.kube.wait_for(f"weight {weight} in Git", there)

    def wait_for_no_canary(self) -> None:
        selector = f"{PREDICTORS},crispline.io/predictor=canary"
        self.served.kube.wait_for("the end of the canary's pods", lambda: not self.served.kube.pods(self.served.namespace, selector))

    def wait_for_the_end(self, release: str) -> Object:
        """Until the canary of a release is no more in Git and its rollback is recorded; the record."""
        self.served.kube.wait_for("the canary's end in Git", lambda: self.canary() is None)

        def recorded() -> list[Object]:
            return [each for each in self.records("rollback") if each["lineage"]["release"] == self.releases[release]]

        return self.served.kube.wait_for("the record of the rollback", recorded)[-1]

    # --- records and log -----------------------------------------------------------------------------------------------------------------

    def records(self, kind: str) -> list[Object]:
        program = (
            "import json; from components.contracts.records import RecordStore;"
            f"print(json.dumps([each.model_dump(mode='json') for each in RecordStore({DATA + '/records'!r}).list({kind!r})]))"
        )
        found: list[Object] = json.loads(self.served.python("reader", program).strip().splitlines()[-1])
        return found

    def last_answer_of_the_canary(self, release: str) -> datetime | None:
        """When the log received the newest answer of a release as canary."""
        program = (
            "from datetime import UTC, datetime; from components.monitoring.prediction_log import PredictionLog;"
            f"rows = PredictionLog({DATA + '/prediction_log'!r}).received_since({USECASE!r}, datetime(2020, 1, 1, tzinfo=UTC));"
            f"rows = rows[(rows['predictor'] == 'canary') & (rows['release'] == {release!r})];"
            "print(rows['received'].max().isoformat() if len(rows) else '-')"
        )
        said = self.served.python("reader", program).strip().splitlines()[-1]
        return None if said == "-" else datetime.fromisoformat(said)

    def committed(self, commit: str) -> datetime:
        """The committer's date: the clock at the commit."""
        folder = self.repository().folder
        said = subprocess.run(["git", f"--git-dir={folder}", "show", "-s", "--format=%cI", commit], check=True, capture_output=True, text=True).stdout
        return parse_moment(said.strip())

    def seconds_to_effect(self, record: Object, release: str) -> float:
        """From the commit of a rollback to the last answer of the challenger; the log moves every two seconds."""
        committed = self.committed(str(record["details"]["commit"]))
        self.wait_for_no_canary()
        last = self.last_answer_of_the_canary(release)
        return 0.0 if last is None else max(0.0, (last - committed).total_seconds())


class HelmLoop:
    """What a reconciler does, where there is none: the newest commit's files, rendered and applied."""

    def __init__(self, served: ServedModel, repository: Callable[[], GitRepository], folder: Path) -> None:
        self._served, self._repository, self._folder = served, repository, folder
        self._stop, self._applied = threading.Event(), ""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> HelmLoop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)

    def _run(self) -> None:
        while not self._stop.wait(1):
            with contextlib.suppress(AssertionError, Exception):
                self._once()

    def _once(self) -> None:
        repository = self._repository()
        head = repository.head
        if head == self._applied:
            return
        files = []
        for name in ("values.yaml", "release.json", "canary.yaml"):
            content = repository.read_file(f"{FOLDER}/{name}", head)
            if content is not None:
                (self._folder / name).write_bytes(content)
                files += ["-f", str(self._folder / name)]
        self._served.helm("upgrade", "--install", USECASE, CHART, "-n", self._served.namespace, *files)
        self._applied = head


@pytest.fixture(scope="module")
def world(kube: Cluster, helm: Callable[..., str], images: Images, namespace: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, space = tmp_path_factory.mktemp("canary"), namespace("canary")
    known = {name: images[name] for name in ("serving", "monitoring", "pipeline")}
    releases = {
        "champion": build_release(folder / "bundles", seed=7),
        "good": build_release(folder / "bundles", seed=7, version="model-7-again"),
        "wrong": build_release(folder / "bundles", seed=8, version="model-8"),
        "refusing": build_release(folder / "bundles", seed=7, version="model-7-refusing", maximum_body_bytes=512),
    }
    contract = ServingContract.model_validate_json(read_file(str(folder / "bundles"), releases["champion"], "serving.json"))
    served = ServedModel(kube, helm, space, known, list(releases.values()), contract, values_of_test(known))
    put_on_volume(served, folder)
    with git_server(served) as (outside, inside), contextlib.ExitStack() as stack:
        environment = {"XDG_CACHE_HOME": str(folder / "cache"), "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.extraHeader"}
        environment["GIT_CONFIG_VALUE_0"] = f"Authorization: {TOKEN}"
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environment.items():
            patch.setenv(name, value)

        def repository() -> GitRepository:
            return GitRepository(outside, author=Author("A person", "person@localhost"))

        platform = Platform.embedded(Path(DATA)).model_copy(update={"environment": "dev", "gitops_repository": inside})
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "crispline-platform"}, "data": {"platform.json": platform.model_dump_json()}}
        kube.apply(config, namespace=space)
        argo = kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "applications.argoproj.io") is not None
        found = World(served, repository, releases, f"{space}" if argo else "", "Argo CD" if argo else "a loop of helm upgrade")
        put_into_git(found, build_haproxy_image())
        if argo:
            stack.callback(kube.delete, ARGO, "Application", found.application, "argocd")
            kube.apply(application(found, inside))
        else:
            stack.enter_context(HelmLoop(served, repository, tmp_path_factory.mktemp("helm-loop")))
        kube.ready(space, PREDICTORS, 1)
        install_controller(found)
        yield found


@contextlib.contextmanager
def git_server(served: ServedModel) -> Iterator[tuple[str, str]]:
    """The repository's address from here and from the cluster; Argo CD may run outside of it, so an address, no name."""
    script = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "git"},
        "data": {"git_over_http.py": (Path(__file__).parent / "git_over_http.py").read_text()},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "git"},
        "spec": {"selector": {"standing": "git"}, "ports": [{"port": 8080, "targetPort": 8080}]},
    }
    volumes: dict[str, Object] = {"/script": {"configMap": {"name": "git"}}, "/srv": {"emptyDir": {}}}
    pod = served.pod("git", "pipeline", ["python", "/script/git_over_http.py", "--folder", "/srv", "--port", "8080"], volumes, standing="git")
    pod["spec"]["containers"][0]["env"].append({"name": "GIT_PUSH_AUTHORIZATION", "value": TOKEN})
    pod["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    served.kube.apply(script, service, pod, namespace=served.namespace)
    served.kube.ready(served.namespace, "standing=git")
    address = served.kube.core.read_namespaced_service("git", served.namespace).spec.cluster_ip
    with served.kube.forward(served.namespace, "service/git", 8080) as url:
        yield f"{url}/models.git", f"http://{address}:8080/models.git"


def put_into_git(world: World, haproxy: str) -> None:
    """Charts and the environment's files, as a team's repository has them."""
    values = {
        "usecase": USECASE,
        "environment": "dev",
        **world.served.values,
        "replicas": 1,
        "splitter": {"kind": "haproxy", "haproxy": {"replicas": 1, "image": haproxy}},
    }
    release = Release(
        usecase=USECASE, environment="dev", release=world.releases["champion"], model_version="model-7", data_version="data-1", gates_record="gates-1",
        cause="first", promoted=datetime.now(UTC),
    )  # fmt: skip
    charts = ROOT / "charts" / "model-server"
    changes: dict[str, bytes | None] = {str(file.relative_to(ROOT)): file.read_bytes() for file in charts.rglob("*") if file.is_file()}
    changes |= {
        f"{FOLDER}/values.yaml": json.dumps(values).encode(),
        release_path(USECASE, "dev"): release_content(release),
        PATH: b"canary: {}\n",
    }
    repository = world.repository()
    with repository.locked():
        repository.commit_files(changes, "The first release", datetime.now(UTC))


def application(world: World, address: str) -> Object:
    files = [f"/{FOLDER}/{name}" for name in ("values.yaml", "release.json", "canary.yaml")]
    source = {"repoURL": address, "targetRevision": "main", "path": "charts/model-server", "helm": {"releaseName": USECASE, "valueFiles": files}}
    return {
        "apiVersion": ARGO,
        "kind": "Application",
        "metadata": {"name": world.application, "namespace": "argocd", "finalizers": ["resources-finalizer.argocd.argoproj.io"]},
        "spec": {
            "project": "default",
            "source": source,
            "destination": {"server": "https://kubernetes.default.svc", "namespace": world.served.namespace},
            "syncPolicy": {"automated": {"prune": True, "selfHeal": True}, "syncOptions": ["ServerSideApply=true"]},
        },
    }


def install_controller(world: World) -> None:
    served, reference = world.served, world.served.images["pipeline"]
    name, _, tag = reference.rpartition(":")
    credentials = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "gitops-push"},
        "stringData": {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.extraHeader", "GIT_CONFIG_VALUE_0": f"Authorization: {TOKEN}"},
    }
    served.kube.apply(credentials, namespace=served.namespace)
    values = {
        "environment": "dev",
        "usecases": [USECASE],
        "intervalSeconds": 2,
        "rule": RULE,
        "images": {"registry": name.rpartition("/")[0], "tag": tag, "pipeline": {"repository": name.rpartition("/")[2]}},
        "git": {"existingSecret": "gitops-push"},
        "sharedVolume": {"existingClaim": "data", "mountPath": DATA},
        "networkPolicy": {"gitPorts": [8080]},
        "argocd": {"enabled": bool(world.application), "application": world.application or "none"},
    }
    chart = str(ROOT / "charts" / "canary-controller")
    served.helm("upgrade", "--install", "canary", chart, "-n", served.namespace, "-f", "-", "--wait", "--timeout", "10m", input=json.dumps(values))


def test_helm_test_reaches_everything_that_the_controller_needs(world: World) -> None:
    said = world.served.helm("test", "canary", "-n", world.served.namespace, "--timeout", "10m")
    assert "Phase:          Succeeded" in said
    assert re.search(r"calls of flights in dev: \{.*'default': \{'[0-9.]+:8000': ", said) and "a wrong path of the controller: 404" in said, said
    assert world.served.kube.get("v1", "Pod", f"{CONTROLLER}-test", world.served.namespace) is None


def test_a_good_challenger_gets_its_weight_and_is_raised_on_live_evidence(world: World, record_property: Callable[[str, Any], None]) -> None:
    with world.served.load(clients=4, prefix="good") as load:
        world.begin("good", [25, 60, 100])
        world.wait_for_weight(60)
        advanced = world.served.kube.wait_for("the record of the step", lambda: [each for each in world.records("canary") if each["outcome"] == "advanced"])
        world.served.kube.wait_for("60 % in the traffic", lambda: 60 in effects(world))
        result = load.stop()
    share = advanced[0]["details"]["judged"]["share"]
    total = sum(advanced[0]["details"]["judged"][name]["total"] for name in ("challenger", "champion"))
    low, high = interval(0.25, total)
    assert low < share["observed"] < high, share
    assert result["failed"] == 0, result
    took = effects(world)
    record_property("seconds from a step's commit seen to its weight in the traffic", took[60])
    print(f"\n{world.reconciler}: 25 % measured as {share['observed']:.3f} in {total} calls; 60 % in the traffic {took[60]:.1f} s after its commit was seen")


def effects(world: World) -> dict[int, float]:
    """Seconds from a commit being seen to its weight in the traffic, by weight."""
    return {each["inputs"]["weight"]: each["details"]["seconds"] for each in world.records("canary") if each["outcome"] == "in_effect"}


def test_a_killed_controller_goes_on_where_it_stopped(world: World) -> None:
    kube, space = world.served.kube, world.served.namespace
    before = {each["id"] for each in world.records("canary")}
    kube.core.delete_namespaced_pod(kube.pods(space, "app.kubernetes.io/component=controller")[0].metadata.name, space, grace_period_seconds=0)
    kube.ready(space, "app.kubernetes.io/component=controller", 1)
    with world.served.load(clients=4, prefix="resumed") as load:
        world.wait_for_weight(100)
        kube.wait_for("100 % in the traffic", lambda: 100 in effects(world))
        result = load.stop()
    assert result["failed"] == 0, result
    assert before < {each["id"] for each in world.records("canary")}
    awaited = [each["inputs"]["weight"] for each in world.records("canary") if each["outcome"] == "awaited"]
    assert sorted(awaited) == [25, 60, 100], "each stage was begun once"


def test_self_healing_and_the_controller_do_not_fight(world: World) -> None:
    """Somebody changes a live weight by hand: Argo CD puts back what Git says, and the controller commits nothing about it."""
    if not world.application:
        pytest.skip("Argo CD is not installed: nobody heals; install it (https://argo-cd.readthedocs.io) to run this test")
    kube, space = world.served.kube, world.served.namespace
    head, name = (
        world.repository().head,
        next(each.metadata.name for each in kube.core.list_namespaced_config_map(space).items if "haproxy.cfg" in (each.data or {})),
    )
    said = kube.core.read_namespaced_config_map(name, space).data["haproxy.cfg"]
    changed = re.sub(r"rand\(100\) lt \d+", "rand(100) lt 1", said)
    assert changed != said
    kube.core.patch_namespaced_config_map(name, space, {"data": {"haproxy.cfg": changed}})
    kube.wait_for("the weight that Git says", lambda: kube.core.read_namespaced_config_map(name, space).data["haproxy.cfg"] == said)
    time.sleep(6)  # three rounds of the controller
    assert world.repository().head == head


@pytest.mark.cluster_long
def test_a_challenger_with_a_wrong_model_is_rolled_back_on_live_evidence(world: World, record_property: Callable[[str, Any], None]) -> None:
    """It answers everything, in time, with other predictions."""
    with world.served.load(clients=4, prefix="wrong") as load:
        world.begin("wrong", [25, 60, 100])
        world.served.kube.wait_for("the beginning", lambda: effects_of(world, "wrong"))
        record = world.wait_for_the_end("wrong")
        took = world.seconds_to_effect(record, world.releases["wrong"])
        result = load.stop()
    assert "predictions: distance" in record["reason"]
    assert result["failed"] == 0, result
    assert world.releases["wrong"] in result["releases"]
    record_property("seconds from a rollback's commit to the challenger's last answer", round(took, 1))
    print(
        f"\n{world.reconciler}: rolled back; the challenger's last answer came {took:.1f} s after the commit; {result['releases'][world.releases['wrong']]} answers in all"
    )


def test_a_challenger_that_refuses_what_the_champion_answers_is_rolled_back(world: World, record_property: Callable[[str, Any], None]) -> None:
    with world.served.load(clients=4, prefix="refusing") as load:
        world.begin("refusing", [25, 100])
        world.served.kube.wait_for("the beginning", lambda: effects_of(world, "refusing"))
        record = world.wait_for_the_end("refusing")
        world.seconds_to_effect(record, world.releases["refusing"])
        result = load.stop()
    assert record["reason"].startswith("Harmful: calls without an answer")
    failed = result["failed"]
    assert failed >= 25 and set(result["statuses"]) == {"200", "413"}, result
    record_property("requests that a refusing challenger cost", failed)
    print(f"\na challenger that refuses everything cost {failed} of {result['requests']} requests before its weight was gone")


def effects_of(world: World, release: str) -> list[Object]:
    return [each for each in world.records("canary") if each["outcome"] == "in_effect" and each["lineage"]["release"] == world.releases[release]]


def test_the_history_is_what_the_policy_allows(world: World) -> None:
    """The steps and rollbacks of the tests before this one."""
    repository = world.repository()
    history = repository.history(PATH)
    ours = [number for number, version in enumerate(history) if by_controller(version.trailers)]
    decided = [each for each in world.records("canary") if each["outcome"] == "advanced"] + world.records("rollback")
    assert len(ours) == len(decided) > 0
    for number in ours:
        before, after = history[number + 1], history[number]
        plan = approved(history[number + 1 :], PATH)
        assert plan is not None
        check_change({PATH: before.content}, {PATH: after.content}, plan.plan)
    log = subprocess.run(
        ["git", f"--git-dir={repository.folder}", "log", "--author=crispline-canary", "--name-only", "--format="], check=True, capture_output=True, text=True
    )
    assert set(log.stdout.split()) == {PATH}
