"""Promotions, rollbacks and changes by hand, reconciled by a real Argo CD from a bare Git repository: the manifests of this tree, for one environment.

The repository is a folder of this machine (file://), so Argo CD's repo server has to see it: where Argo CD runs in the cluster's own pods it does
not, and the tests skip and say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.contracts.artifacts import ImagePin
from components.contracts.platform import Platform
from components.contracts.serving import ServingContract
from components.contracts.storage import storage_path
from components.deployment.between_environments import Side, promote_between, release_to_promote
from components.deployment.bundle import read_file, verify_bundle
from components.deployment.canary import argocd
from components.deployment.canary.options import ArgoCD
from components.deployment.environment_file import Access, EnvironmentFile, ObjectStore
from components.deployment.gitops import GitRepository
from components.deployment.promotion import Stores, promote_release
from components.deployment.release_policy import Checked, ReleaseCheck
from components.deployment.rollback import roll_back
from components.deployment.tests.example_release import CREATED, judged_release
from components.deployment.tests.gitops_remote import bare_repository, merge
from components.deployment.transfer import transfer
from pipelines.commands.environment_checks import environment_findings
from pipelines.commands.init import initialise
from pipelines.reach import reached
from pipelines.runners.environments import ROOT
from tests.cluster.access import Cluster, Object
from tests.cluster.conftest import Images
from tests.cluster.object_store import Bucket, bucket_of
from tests.cluster.served_model import USECASE, ServedModel, platform_of_files, put_on_volume, values_of_test

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster]
ENVIRONMENT, APPLICATION, PROJECT = "dev", "flights-dev", "crispline-dev"
DEPLOYMENT = "flights-model-default"
ARGO = {"api_version": "argoproj.io/v1alpha1"}
LOOK = ArgoCD(application=APPLICATION)


@dataclass
class GitOps:
    """A bare repository with this tree's charts and manifests, one environment of it in a namespace of its own, and the platform that promotes there."""

    kube: Cluster
    clone: Path
    bare: Path
    namespace: str
    platform: Platform
    releases: list[str]

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", "-C", str(self.clone), *arguments], check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str, **files: str) -> None:
        """Somebody changes files of the use case in the environment, by name without its ending's dot (`values_yaml`), and pushes."""
        self.git("pull", "--quiet", "--rebase", "origin", "main")
        for name, content in files.items():
            (self.clone / "manifests" / "environments" / ENVIRONMENT / USECASE / name.replace("_", ".")).write_text(content)
        self.git("add", "-A")
        self.git("commit", "--quiet", "-m", message)
        self.git("push", "--quiet", "origin", "HEAD:main")

    def promote(self, number: int, cause: str) -> None:
        promote_release(self.platform, USECASE, ENVIRONMENT, self.releases[number], cause, CREATED)

    def deployment(self) -> Object | None:
        return self.kube.get("apps/v1", "Deployment", DEPLOYMENT, self.namespace)

    def served(self) -> str:
        """The release that the Deployment's pods fetch; empty where there is none."""
        found = self.deployment()
        arguments = found["spec"]["template"]["spec"]["initContainers"][0]["args"] if found else []
        return next((each.removeprefix("--release=") for each in arguments if each.startswith("--release=")), "")

    def application(self) -> Object:
        found = self.kube.get(ARGO["api_version"], "Application", APPLICATION, "argocd")
        return found or {"status": {}}


def copy_of_the_manifests(folder: Path, address: str, namespace: str, values: Object) -> None:
    """Charts and manifests as a team would have them, by `crispline init`, with one environment and in a namespace of the test's own."""
    for part in ("charts", "manifests", ".github", "usecases"):
        shutil.copytree(ROOT / part, folder / part)
    for environment in ("staging", "prod"):
        for part in ("environments", "namespaces", "flux"):
            shutil.rmtree(folder / "manifests" / part / environment)
    initialise("", address, "", "", remove_example=False, root=folder)
    for file in (folder / "manifests").rglob("*.yaml"):
        text = file.read_text().replace("namespace: crispline-dev", f"namespace: {namespace}")
        file.write_text(text.replace("name: crispline-dev\n", f"name: {namespace}\n") if file.name == "namespace.yaml" else text)
    file = folder / "manifests" / "environments" / ENVIRONMENT / USECASE / "values.yaml"
    with file.open("w") as out:
        YAML().dump({**YAML(typ="safe").load((ROOT / file.relative_to(folder)).read_text()), **values}, out)


@pytest.fixture(scope="module")
def gitops(kube: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitOps]:
    """Argo CD's sets for namespaces and model servers, applied; removed with all that they made."""
    if kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "applicationsets.argoproj.io") is None:
        pytest.skip("Argo CD is not installed: there is no ApplicationSet; install it with its ApplicationSet controller (https://argo-cd.readthedocs.io)")
    root, namespace = tmp_path_factory.mktemp("gitops"), f"crispline-gitops-{secrets.token_hex(3)}"
    for folder in (root, *root.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)  # Argo CD's repo server may be another user
    bare, clone = root / "acme" / "models.git", root / "clone"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(bare)], check=True)
    copy_of_the_manifests(clone, f"file://{bare}", namespace, {"replicas": 1, "splitter": {"kind": "none"}})
    platform = Platform.embedded(root / "state").model_copy(update={"environment": ENVIRONMENT, "gitops_repository": f"file://{bare}"})
    found = GitOps(kube, clone, bare, namespace, platform, [judged_release(platform, seed) for seed in (7, 8, 9)])
    for arguments in (("init", "--quiet", "--initial-branch=main"), ("remote", "add", "origin", str(bare))):
        found.git(*arguments)
    for name, value in (("user.name", "person"), ("user.email", "person@localhost"), ("commit.gpgsign", "false")):
        found.git("config", name, value)
    found.git("add", "-A")
    found.git("commit", "--quiet", "-m", "Start")
    found.git("push", "--quiet", "origin", "HEAD:main")
    files = ("projects.yaml", "namespaces.yaml", "model-servers.yaml")
    objects = [document for name in files for document in YAML(typ="safe").load_all((clone / "manifests" / "argocd" / name).read_text())]
    objects = [each for each in objects if each["kind"] != "AppProject" or each["metadata"]["name"] == PROJECT]
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    try:
        kube.apply(*objects)
        try:
            kube.wait_for(f"Application {APPLICATION} compared with {bare}", lambda: compared(found))
        except AssertionError as error:
            pytest.skip(f"Argo CD cannot take a repository from a folder of this machine, or its controllers do not run: {error}")
        yield found
    finally:
        os.environ.pop("XDG_CACHE_HOME") if before is None else os.environ.update(XDG_CACHE_HOME=before)
        for each in [each for each in reversed(objects) if each["kind"] != "AppProject"]:
            kube.delete(each["apiVersion"], each["kind"], each["metadata"]["name"], "argocd")
        # An Application takes its objects away with it as long as its project is there.
        with contextlib.suppress(AssertionError):
            kube.wait_for("the Applications' end", lambda: not _applications(kube))
        kube.delete(ARGO["api_version"], "AppProject", PROJECT, "argocd")
        kube.delete("v1", "Namespace", namespace)


def _applications(kube: Cluster) -> list[str]:
    """Those of the test's environment that are still there."""
    found = kube.custom.list_namespaced_custom_object(
        "argoproj.io", "v1alpha1", "argocd", "applications", label_selector=f"crispline.io/environment={ENVIRONMENT}"
    )
    return [each["metadata"]["name"] for each in found["items"]]


def compared(found: GitOps) -> bool:
    return found.application()["status"].get("sync", {}).get("status") == "Synced"


def in_seconds(kube: Cluster, what: str, look: Callable[[], bool], began: float) -> float:
    kube.wait_for(what, look)
    return time.monotonic() - began


def test_before_the_first_promotion_the_namespace_is_there_and_nothing_is_served(gitops: GitOps) -> None:
    found = gitops.kube.wait_for("the namespace", lambda: gitops.kube.get("v1", "Namespace", gitops.namespace))
    assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    gitops.kube.wait_for("its quota", lambda: gitops.kube.get("v1", "ResourceQuota", "crispline", gitops.namespace))
    assert gitops.deployment() is None
    application = gitops.application()
    assert application["spec"]["project"] == PROJECT and application["spec"]["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True}


def test_the_doctor_sees_the_cluster_as_it_is(gitops: GitOps) -> None:
    """A real API server's answers: version, namespace, APIs, permissions, Argo CD; what was not installed here is said, and each with a remedy."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on PATH; see https://kubernetes.io/docs/tasks/tools/")
    found = {finding.subject: finding for finding in environment_findings(ENVIRONMENT, gitops.clone)}
    good = {name for name, finding in found.items() if finding.good}
    assert {"platform.yaml", "Kubernetes", "namespace", "permissions", "argoproj.io", "Git, read", "Git, push", f"Argo CD {APPLICATION}"} <= good
    assert found["Kubernetes"].found.startswith("v1.") and found["namespace"].found.endswith("enforces restricted")
    missing = found["Secret crispline-git"]
    assert not missing.good and missing.needed and "not found" in missing.found and "GIT_CONFIG_COUNT" in missing.remedy
    assert all(finding.remedy for finding in found.values() if not finding.good)


def test_a_promotion_commit_is_reconciled_into_the_cluster(gitops: GitOps, record_property: Callable[[str, object], None]) -> None:
    """At Argo CD's own polling, then asked to look at once, as the canary controller asks."""
    gitops.promote(0, "first")
    polled = in_seconds(gitops.kube, "the first release", lambda: gitops.served() == gitops.releases[0], time.monotonic())
    began = time.monotonic()
    gitops.promote(1, "second")
    argocd.refresh(LOOK)
    asked = in_seconds(gitops.kube, "the second release", lambda: gitops.served() == gitops.releases[1], began)
    revision = gitops.application()["status"]["sync"]["revision"]
    assert revision == subprocess.run(["git", "-C", str(gitops.bare), "rev-parse", "main"], check=True, capture_output=True, text=True).stdout.strip()
    record_property("seconds from commit to Deployment, at polling", round(polled, 1))
    record_property("seconds from commit to Deployment, asked to look", round(asked, 1))
    print(f"from commit to Deployment: {polled:.1f} s at polling, {asked:.1f} s when asked to look")


def test_a_rollback_is_a_commit_too(gitops: GitOps, record_property: Callable[[str, object], None]) -> None:
    gitops.promote(0, "first")
    gitops.promote(1, "second")
    argocd.refresh(LOOK)
    gitops.kube.wait_for("the second release", lambda: gitops.served() == gitops.releases[1])
    began = time.monotonic()
    roll_back(gitops.platform, USECASE, ENVIRONMENT, "previous", "worse", datetime.now(UTC))
    argocd.refresh(LOOK)
    took = in_seconds(gitops.kube, "the first release again", lambda: gitops.served() == gitops.releases[0], began)
    record_property("seconds from rollback to Deployment, asked to look", round(took, 1))
    print(f"from rollback to Deployment: {took:.1f} s when asked to look")


def test_a_change_by_hand_is_undone_and_what_git_takes_away_goes(gitops: GitOps) -> None:
    gitops.promote(2, "third")
    argocd.refresh(LOOK)
    gitops.kube.wait_for("the third release", lambda: gitops.served() == gitops.releases[2])
    gitops.kube.apps.patch_namespaced_deployment(DEPLOYMENT, gitops.namespace, {"spec": {"replicas": 0}})
    gitops.kube.wait_for("the replicas that Git says", lambda: (gitops.deployment() or {"spec": {}})["spec"].get("replicas") == 1)
    values = (gitops.clone / "manifests" / "environments" / ENVIRONMENT / USECASE / "values.yaml").read_text()
    gitops.git("pull", "--quiet", "--rebase", "origin", "main")
    gitops.git("rm", "--quiet", f"manifests/environments/{ENVIRONMENT}/{USECASE}/values.yaml")
    gitops.git("commit", "--quiet", "-m", "Serve no longer")
    gitops.git("push", "--quiet", "origin", "HEAD:main")
    gitops.kube.apply({"apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", **_asked_again(gitops)})
    gitops.kube.wait_for("the Deployment's end", lambda: gitops.deployment() is None)
    gitops.commit("Serve again", values_yaml=values)
    gitops.kube.apply({"apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet", **_asked_again(gitops)})
    gitops.kube.wait_for("the Deployment again", lambda: gitops.served() == gitops.releases[2])


def _asked_again(gitops: GitOps) -> Object:
    """The set of model servers as it is, with the annotation that lets its controller look at Git at once."""
    document = next(iter(YAML(typ="safe").load_all((gitops.clone / "manifests" / "argocd" / "model-servers.yaml").read_text())))
    annotations = {"argocd.argoproj.io/application-set-refresh": "true"}
    return {"metadata": {**document["metadata"], "annotations": annotations}, "spec": document["spec"]}


def test_a_promotion_is_answered_by_the_new_release(
    gitops: GitOps, images: Images, helm: Callable[..., str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """From the commit to the first answer of the new release, under load and without one failed request: reconciled, fetched, verified, rolled out."""
    bundles, old, new = tmp_path / "bundles", gitops.releases[0], gitops.releases[1]
    shutil.copytree(gitops.platform.bundles_uri, bundles)
    contract = ServingContract.model_validate_json(read_file(str(bundles), old, "serving.json"))
    served = ServedModel(gitops.kube, helm, gitops.namespace, images, gitops.releases, contract, {})  # type: ignore[arg-type]
    gitops.kube.apply(platform_of_files(), namespace=gitops.namespace)
    put_on_volume(served, tmp_path)
    values = {"usecase": USECASE, "environment": ENVIRONMENT, **values_of_test(images), "replicas": 1, "splitter": {"kind": "none"}}  # type: ignore[arg-type]
    gitops.commit("Real images", values_yaml=json.dumps(values))
    gitops.promote(0, "real")
    argocd.refresh(LOOK)
    gitops.kube.wait_for("the first release", lambda: gitops.served() == old and rolled_out(gitops))
    assert answers(served) == old
    with served.load(clients=2, pause=0.02, prefix="promoted") as load:
        began = time.monotonic()
        gitops.promote(1, "real-too")
        argocd.refresh(LOOK)
        took = in_seconds(gitops.kube, "an answer of the new release", lambda: answers(served) == new, began)
        gitops.kube.wait_for("the end of the roll-out", lambda: rolled_out(gitops))
        result = load.stop()
    assert result["failed"] == 0 and set(result["releases"]) == {old, new}, result
    record_property("seconds from commit to answer, asked to look", round(took, 1))
    print(f"from commit to the first answer of the new release: {took:.1f} s, {result['requests']} requests meanwhile, none failed")


def rolled_out(gitops: GitOps) -> bool:
    found = gitops.deployment()
    if found is None:
        return False
    status, wanted = found.get("status", {}), found["spec"]["replicas"]
    seen = status.get("observedGeneration") == found["metadata"]["generation"]
    return bool(seen and status.get("updatedReplicas") == status.get("replicas") == status.get("readyReplicas") == wanted)


def answers(served: ServedModel) -> str:
    """The release that answers a request through the Service; empty when nothing answers."""
    program = (
        "import json, urllib.request as u;"
        f"r = u.Request({served.url!r}, {served.request()!r}, {{'Content-Type': 'application/json'}});"
        "print(json.load(u.urlopen(r, timeout=10))['jsonData']['model']['release'])"
    )
    try:
        return served.python("reader", program).strip().splitlines()[-1]
    except AssertionError:
        return ""


# --- from one environment to the next, through a real object store -----------------------------------------------------------------------------


def environment_file(name: str, namespace: str, bucket: Bucket, bare: Path, folder: Path) -> EnvironmentFile:
    """An environment whose store is a Service of the cluster and whose keys are in a Secret of its namespace."""
    platform = Platform.embedded(folder / name).model_copy(
        update={
            "environment": name,
            "gitops_repository": f"file://{bare}",
            "bundles_uri": f"{bucket.uri}/{name}/bundles",
            "records_uri": f"{bucket.uri}/{name}/records",
        }
    )
    sections = {
        "platform": platform,
        "objectStore": ObjectStore.model_validate({"endpoint": bucket.endpoint, "existingSecret": "crispline-object-store"}),
        "access": Access.model_validate({"namespace": namespace, "registry": "localhost:5000"}),
    }
    return EnvironmentFile.model_validate(sections)


def test_a_release_goes_from_staging_to_prod_through_the_clusters_object_store(
    kube: Cluster,
    namespace: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """As a person with a kubeconfig does it: ports are forwarded, keys come from each environment's Secret, and the policy of CI agrees afterwards."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on PATH; see https://kubernetes.io/docs/tasks/tools/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bare, clone = bare_repository(tmp_path)
    local = Platform.embedded(tmp_path / "local")
    release = judged_release(local)
    with bucket_of(kube) as bucket:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        files = {}
        for name in ("staging", "prod"):
            place = namespace(f"store-{name}")
            kube.apply(bucket.secret("crispline-object-store"), namespace=place)
            files[name] = environment_file(name, place, bucket, bare, tmp_path)
        with reached(files["staging"]) as from_there, reached(files["prod"]) as to_there:
            source, target = (Side(there.environment.platform, there.stores) for there in (from_there, to_there))
            transfer(Stores.of(local), source.stores, release)
            merge(clone, promote_release(source.platform, USECASE, "staging", release, "first", CREATED, stores=source.stores).proposal)
            began = time.monotonic()
            images = {"serving": ImagePin(digest=f"sha256:{'a' * 64}"), "monitoring": ImagePin(digest=f"sha256:{'b' * 64}")}
            moved, deployed = promote_between(source, target, USECASE, release_to_promote(source, target, USECASE), "on", CREATED, images)  # type: ignore[arg-type]
            took = time.monotonic() - began
            assert moved.blobs == len(set(verify_bundle(target.stores.bundles, release).files.values())) + 1
            assert promote_between(source, target, USECASE, deployed.release, "on", CREATED, images)[0].blobs == 0  # type: ignore[arg-type]
            merge(clone, deployed.proposal)
            base = subprocess.run(["git", "-C", str(clone), "rev-list", "--max-parents=0", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
            sides = {"staging": source.stores, "prod": target.stores}
            policy = ReleaseCheck(GitRepository(clone), lambda name: sides[name], frozenset(sides))
            assert policy.changes(base, "HEAD") == Checked(2, 0, ()) and policy.state("HEAD") == Checked(2, 0, ())
            damaged = storage_path(target.stores.bundles) / release[:2] / release
            damaged.write_bytes(b"another manifest")
            again = ReleaseCheck(GitRepository(clone), lambda name: sides[name], frozenset(sides)).state("HEAD")
            assert ["does not match its hash" in str(fault) for fault in again.faults] == [True]
    record_property("bytes promoted", moved.bytes)
    print(f"{moved.blobs} blobs, {moved.bytes} bytes from staging to prod, judged twice and pushed, in {took:.1f} s")
