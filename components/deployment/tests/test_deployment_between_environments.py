"""From one environment to the next: the bundle moves, whole and judged, and the target depends on nothing that it came from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from components.contracts.artifacts import ImagePin, Release
from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.deployment import between_environments
from components.deployment.between_environments import Side, promote_between, release_to_promote, start_canary
from components.deployment.bundle import read_manifest, verify_bundle
from components.deployment.canary.plan import parse
from components.deployment.canary.policy import ForbiddenChange
from components.deployment.gitops import GitRepository
from components.deployment.promotion import Stores, judged_manifest, promote, promote_release
from components.deployment.releases import current_release, parse_release, release_path
from components.deployment.rollback import roll_back
from components.deployment.tests.example_release import CREATED
from components.deployment.tests.gitops_remote import bare_repository, git, merge, person
from components.deployment.tests.recording_forge import RecordingForge, recording_forge

pytestmark = pytest.mark.pipeline
DAY = timedelta(days=1)
IMAGES = {"serving": ImagePin(digest="sha256:" + "a" * 64), "monitoring": ImagePin(digest="sha256:" + "b" * 64)}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return bare_repository(tmp_path)[1]


@pytest.fixture
def bare(clone: Path) -> Path:
    return clone.parent / "acme" / "models.git"


def side(platform: Platform, bare: Path, environment: str, folder: Path) -> Side:
    """An environment with stores of its own; all share the repository."""
    own = Platform.embedded(folder / environment).model_copy(update={"environment": environment, "gitops_repository": f"file://{bare}"})
    if environment == "dev":
        own = own.model_copy(update={"bundles_uri": platform.bundles_uri, "records_uri": platform.records_uri})
    return Side(own, Stores.of(own))


@pytest.fixture
def dev(platform: Platform, bare: Path, tmp_path: Path) -> Side:
    return side(platform, bare, "dev", tmp_path)


@pytest.fixture
def staging(platform: Platform, bare: Path, tmp_path: Path) -> Side:
    return side(platform, bare, "staging", tmp_path)


@pytest.fixture
def prod(platform: Platform, bare: Path, tmp_path: Path) -> Side:
    return side(platform, bare, "prod", tmp_path)


@pytest.fixture
def in_dev(dev: Side, make_release: Callable[..., str]) -> str:
    release = make_release()
    promote(dev.platform, "flights", "dev", release, "first", CREATED)
    return release


def at_main(bare: Path, environment: str) -> Release:
    return parse_release(git(bare, "show", f"main:{release_path('flights', environment)}").encode(), "release.json")


def test_a_release_goes_on_by_a_proposal_and_is_in_force_once_merged(dev: Side, staging: Side, clone: Path, bare: Path, in_dev: str) -> None:
    found = release_to_promote(dev, staging, "flights")
    moved, deployed = promote_between(dev, staging, "flights", found, "from-dev", CREATED + DAY, IMAGES)
    manifest = read_manifest(staging.stores.bundles, in_dev)
    assert moved.blobs == len(set(manifest.files.values())) + 1 and moved.bytes > 0
    assert deployed.proposal == f"promote/staging/flights/{in_dev[:12]}" and current_release(staging.platform, "flights", "staging") is None
    merge(clone, deployed.proposal)
    current = current_release(staging.platform, "flights", "staging")
    assert current is not None and (current.release, current.source, current.environment) == (in_dev, "dev", "staging")
    assert dict(current.images) == IMAGES and current.gates_record == manifest.gates_record
    assert [(record.outcome, record.inputs["source"]) for record in RecordStore(staging.stores.records).list("promotion")] == [("proposed", "dev")]


def test_the_target_judges_from_its_own_stores_alone(dev: Side, staging: Side, prod: Side, clone: Path, in_dev: str, tmp_path: Path) -> None:
    """After dev is gone, with its bundles, records and MLflow, staging's release is still whole, judged, and goes on to prod."""
    _, deployed = promote_between(dev, staging, "flights", release_to_promote(dev, staging, "flights"), "from-dev", CREATED, {})
    merge(clone, deployed.proposal)
    for uri in (dev.platform.bundles_uri, dev.platform.records_uri):
        shutil.rmtree(uri)
    assert not (tmp_path / "dev").exists() and not Path(dev.platform.tracking_uri.removeprefix("sqlite:///")).exists()
    assert judged_manifest(staging.stores, "flights", in_dev).gates_passed
    _, onward = promote_between(staging, prod, "flights", release_to_promote(staging, prod, "flights"), "from-staging", CREATED + DAY, {})
    verify_bundle(prod.stores.bundles, in_dev)
    assert onward.release.source == "staging" and not Path(prod.platform.tracking_uri.removeprefix("sqlite:///")).exists()


def test_a_second_transfer_sends_nothing_again(dev: Side, staging: Side, in_dev: str) -> None:
    found = release_to_promote(dev, staging, "flights")
    _, first = promote_between(dev, staging, "flights", found, "from-dev", CREATED, {})
    moved, second = promote_between(dev, staging, "flights", found, "from-dev", CREATED + DAY, {})
    assert (moved.blobs, second.commit) == (0, first.commit)


def test_a_transfer_that_was_interrupted_goes_on(dev: Side, staging: Side, in_dev: str) -> None:
    found = release_to_promote(dev, staging, "flights")
    between_environments.transfer(dev.stores, staging.stores, in_dev)
    digest = read_manifest(dev.stores.bundles, in_dev).files["model.ubj"]
    for name in (in_dev, digest):
        (Path(str(staging.stores.bundles)) / name[:2] / name).unlink()
    moved, _ = promote_between(dev, staging, "flights", found, "from-dev", CREATED, {})
    assert moved.blobs == 2


@pytest.mark.parametrize("where", ["source", "target"])
def test_a_blob_that_does_not_match_its_hash_is_not_promoted(dev: Side, staging: Side, bare: Path, in_dev: str, where: str) -> None:
    found = release_to_promote(dev, staging, "flights")
    store = dev.stores.bundles
    if where == "target":
        between_environments.transfer(dev.stores, staging.stores, in_dev)
        store = staging.stores.bundles
    digest = read_manifest(dev.stores.bundles, in_dev).files["model.ubj"]
    (Path(str(store)) / digest[:2] / digest).write_bytes(b"another model")
    before = git(bare, "for-each-ref")
    with pytest.raises(IntegrityError, match="does not match its hash"):
        promote_between(dev, staging, "flights", found, "from-dev", CREATED, {})
    assert git(bare, "for-each-ref") == before


def test_what_did_not_pass_its_gates_does_not_leave_its_environment(
    dev: Side, staging: Side, bare: Path, clone: Path, make_release: Callable[..., str]
) -> None:
    """Somebody put a refused model into dev's release file by hand."""
    good, refused = make_release(1), make_release(2, outcome="failed")
    promote(dev.platform, "flights", "dev", good, "first", CREATED)
    forged = at_main(bare, "dev").model_copy(update={"release": refused})
    person(clone, release_path("flights", "dev"), forged.model_dump_json(indent=2))
    with pytest.raises(IntegrityError, match="did not pass its gates"):
        release_to_promote(dev, staging, "flights")


def test_only_forwards_and_only_what_is_in_force(dev: Side, staging: Side, prod: Side, in_dev: str) -> None:
    with pytest.raises(CrisplineError, match="does not come after"):
        release_to_promote(staging, dev, "flights")
    with pytest.raises(CrisplineError, match="nothing is released to staging"):
        release_to_promote(staging, prod, "flights")
    with pytest.raises(CrisplineError, match=r"is in force in dev, not ffffffffffff"):
        release_to_promote(dev, staging, "flights", "f" * 64)


def test_a_release_that_was_rolled_back_meanwhile_is_not_promoted(dev: Side, staging: Side, in_dev: str, make_release: Callable[..., str]) -> None:
    second = make_release(2)
    promote(dev.platform, "flights", "dev", second, "second", CREATED)
    found = release_to_promote(dev, staging, "flights")
    roll_back(dev.platform, "flights", "dev", "previous", "worse", CREATED)
    with pytest.raises(CrisplineError, match=r"is no longer in force in dev"):
        promote_between(dev, staging, "flights", found, "from-dev", CREATED, {})


def test_a_push_that_came_too_late_is_judged_again_about_the_source_too(
    dev: Side, staging: Side, bare: Path, in_dev: str, make_release: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback in the source lands between the look and the push: the second look refuses the promotion."""
    second = make_release(2)
    promote(dev.platform, "flights", "dev", second, "second", CREATED)
    usecase = between_environments.load_usecase("flights")
    deployment = usecase.config.deployment.model_copy(update={"promotion": {"dev": "commit", "staging": "commit", "prod": "commit"}})
    changed = type(usecase)(usecase.folder, usecase.config.model_copy(update={"deployment": deployment}), usecase.features)
    for module in (between_environments, __import__("components.deployment.promotion", fromlist=["x"])):
        monkeypatch.setattr(module, "load_usecase", lambda _: changed)
    found, push, rolled = release_to_promote(dev, staging, "flights"), GitRepository._push, []

    def slow(repository: GitRepository, commit: str, branch: str) -> None:
        if not rolled:
            rolled.append(True)
            with pytest.MonkeyPatch.context() as quick:
                quick.setattr(GitRepository, "_push", push)
                quick.setenv("XDG_CACHE_HOME", str(bare.parent / "another-machine"))
                roll_back(dev.platform, "flights", "dev", "previous", "worse", CREATED)
        push(repository, commit, branch)

    monkeypatch.setattr(GitRepository, "_push", slow)
    with pytest.raises(CrisplineError, match="is no longer in force in dev"):
        promote_between(dev, staging, "flights", found, "from-dev", CREATED, {})
    assert rolled and current_release(staging.platform, "flights", "staging") is None


def test_going_there_again_after_a_rollback_needs_a_cause_of_its_own(
    dev: Side, staging: Side, clone: Path, in_dev: str, make_release: Callable[..., str]
) -> None:
    merge(clone, promote_between(dev, staging, "flights", release_to_promote(dev, staging, "flights"), "one", CREATED, {})[1].proposal)
    second = make_release(2)
    promote(dev.platform, "flights", "dev", second, "second", CREATED)
    merge(clone, promote_between(dev, staging, "flights", release_to_promote(dev, staging, "flights"), "two", CREATED, {})[1].proposal)
    roll_back(staging.platform, "flights", "staging", "previous", "worse", CREATED, stores=staging.stores)
    with pytest.raises(CrisplineError, match="one cause promotes once, so name another"):
        promote_between(dev, staging, "flights", release_to_promote(dev, staging, "flights"), "two", CREATED, {})
    _, again = promote_between(dev, staging, "flights", release_to_promote(dev, staging, "flights"), "feed-corrected", CREATED, {})
    assert again.proposal and again.release.previous == in_dev


# --- pull requests ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def forge(monkeypatch: pytest.MonkeyPatch) -> RecordingForge:
    monkeypatch.setenv("GITHUB_TOKEN", "t0ken")
    with recording_forge() as forge:
        yield forge  # type: ignore[misc]


def with_forge(side: Side, forge: RecordingForge) -> Side:
    return Side(side.platform.model_copy(update={"forge_url": forge.url}), side.stores)


def test_a_proposal_becomes_one_pull_request(dev: Side, staging: Side, bare: Path, in_dev: str, forge: RecordingForge) -> None:
    target = with_forge(staging, forge)
    found = release_to_promote(dev, target, "flights")
    urls = {promote_between(dev, target, "flights", found, "from-dev", CREATED + number * DAY, {})[1].pull_request for number in range(3)}
    assert urls == {"https://forge/acme/models/pull/1"} and len(forge.pulls) == 1
    method, path, _, headers, body = next(request for request in forge.requests if request[0] == "POST")
    assert (method, path) == ("POST", "/repos/acme/models/pulls") and set(body) == {"title", "head", "base", "body"}
    assert (body["head"], body["base"]) == (f"promote/staging/flights/{in_dev[:12]}", "main") and "All gates passed." in body["body"]
    assert headers["Authorization"] == "Bearer t0ken" and headers["Accept"] == "application/vnd.github+json" and headers["X-GitHub-Api-Version"] == "2022-11-28"
    assert body["title"] == git(bare, "show", "-s", "--format=%s", body["head"])


@pytest.mark.parametrize("status", [401, 403, 404, 422, 500])
def test_a_forge_that_refuses_is_quoted_and_asking_again_is_safe(dev: Side, staging: Side, bare: Path, in_dev: str, forge: RecordingForge, status: int) -> None:
    target, forge.refuse = with_forge(staging, forge), status
    found = release_to_promote(dev, target, "flights")
    with pytest.raises(CrisplineError, match=f"with {status}: Validation Failed; No commits between") as refused:
        promote_between(dev, target, "flights", found, "from-dev", CREATED, {})
    assert "remedy: " in str(refused.value) and "t0ken" not in str(refused.value)
    commit = git(bare, "rev-parse", f"promote/staging/flights/{in_dev[:12]}")
    forge.refuse = 0
    _, deployed = promote_between(dev, target, "flights", found, "from-dev", CREATED + DAY, {})
    assert deployed.commit == commit and deployed.pull_request and len(forge.pulls) == 1


def test_without_a_token_or_an_answer_the_reader_is_told_what_to_do(
    dev: Side, staging: Side, in_dev: str, forge: RecordingForge, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = release_to_promote(dev, staging, "flights")
    silent = Side(staging.platform.model_copy(update={"forge_url": "http://127.0.0.1:1"}), staging.stores)
    with pytest.raises(CrisplineError, match="does not answer"):
        promote_between(dev, silent, "flights", found, "from-dev", CREATED, {})
    monkeypatch.delenv("GITHUB_TOKEN")
    with pytest.raises(CrisplineError, match="GITHUB_TOKEN is not set"):
        promote_between(dev, with_forge(staging, forge), "flights", found, "from-dev", CREATED, {})


# --- canary ----------------------------------------------------------------------------------------------------------------------------------


def canary_at(bare: Path, revision: str) -> object:
    path = "manifests/environments/staging/flights/canary.yaml"
    return parse(git(bare, "show", f"{revision}:{path}").encode(), path)


@pytest.fixture
def champion(dev: Side, staging: Side, clone: Path, in_dev: str) -> str:
    merge(clone, promote_between(dev, staging, "flights", release_to_promote(dev, staging, "flights"), "one", CREATED, {})[1].proposal)
    return in_dev


@pytest.fixture
def challenger(dev: Side, champion: str, make_release: Callable[..., str]) -> str:
    release = make_release(2)
    promote(dev.platform, "flights", "dev", release, "second", CREATED)
    return release


def test_the_merge_that_starts_a_canary_approves_its_whole_plan(dev: Side, staging: Side, clone: Path, bare: Path, champion: str, challenger: str) -> None:
    found = release_to_promote(dev, staging, "flights")
    moved, started = start_canary(dev, staging, "flights", found, CREATED, shadow=False)
    assert moved.blobs and (started.canary.plan, started.canary.step, started.canary.weight) == ((5, 25, 50, 100), 0, 5)
    assert start_canary(dev, staging, "flights", found, CREATED + DAY, shadow=False)[1].commit == started.commit
    merge(clone, started.proposal)
    assert canary_at(bare, "main") == started.canary and at_main(bare, "staging").release == champion
    assert start_canary(dev, staging, "flights", found, CREATED + DAY, shadow=False)[1].proposal == ""
    outcomes = [record.outcome for record in RecordStore(staging.stores.records).list("promotion")]
    assert outcomes.count("canary_proposed") == 1
    with pytest.raises(CrisplineError, match="has not passed its whole plan"):
        promote_between(dev, staging, "flights", found, "two", CREATED, {})


def test_there_are_never_two_canaries_and_none_without_a_champion(
    dev: Side, staging: Side, prod: Side, clone: Path, champion: str, challenger: str, make_release: Callable[..., str]
) -> None:
    with pytest.raises(ForbiddenChange, match="nothing is released here"):
        start_canary(dev, prod, "flights", release_to_promote(dev, prod, "flights"), CREATED, shadow=False)
    merge(clone, start_canary(dev, staging, "flights", release_to_promote(dev, staging, "flights"), CREATED, shadow=True)[1].proposal)
    third = make_release(3)
    promote_release(dev.platform, "flights", "dev", third, "third", CREATED)
    with pytest.raises(ForbiddenChange, match="there are never two at once"):
        start_canary(dev, staging, "flights", release_to_promote(dev, staging, "flights"), CREATED, shadow=False)
