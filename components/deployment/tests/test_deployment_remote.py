"""The GitOps repository is a remote one: commits are pushed without force, and what came too late is decided again."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from components.contracts.artifacts import Release
from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.deployment import promotion
from components.deployment.gitops import GitRepository, NotFastForward, PushDeclined, is_remote
from components.deployment.promotion import promote, promote_release
from components.deployment.releases import current_release, parse_release, release_history, release_path
from components.deployment.rollback import roll_back
from components.deployment.tests.example_release import CREATED
from components.deployment.tests.gitops_remote import bare_repository, git, person

pytestmark = pytest.mark.pipeline
DAY = timedelta(days=1)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return bare_repository(tmp_path)[0]


@pytest.fixture
def remote(platform: Platform, bare: Path) -> Platform:
    return platform.model_copy(update={"gitops_repository": f"file://{bare}"})


@pytest.fixture
def clone(bare: Path) -> Path:
    return bare.parent.parent / "clone"


def released(bare: Path, environment: str = "dev", revision: str = "main") -> Release:
    return parse_release(git(bare, "show", f"{revision}:{release_path('flights', environment)}").encode(), "release.json")


def test_an_address_is_told_from_a_folder() -> None:
    assert all(is_remote(address) for address in ("https://h/o/n.git", "ssh://git@h/o/n", "file:///srv/n.git", "git@github.com:o/n.git"))
    assert not any(is_remote(folder) for folder in ("/srv/n.git", "state/gitops", Path("/a:b/c"), "C"))


def test_a_promotion_is_a_commit_on_the_remotes_main_branch(remote: Platform, bare: Path, make_release: Callable[..., str]) -> None:
    release = make_release()
    assert current_release(remote, "flights", "dev") is None
    commit = promote(remote, "flights", "dev", release, "first", CREATED)
    assert git(bare, "rev-parse", "main") == commit
    assert git(bare, "show", "--name-only", "--format=", commit) == release_path("flights", "dev")
    assert git(bare, "show", "main:README.md") == "ours"
    assert released(bare).release == release and (current := current_release(remote, "flights", "dev")) is not None and current.release == release
    assert promote(remote, "flights", "dev", release, "first", CREATED + DAY) == commit


def test_what_somebody_else_pushed_is_seen(remote: Platform, bare: Path, clone: Path, make_release: Callable[..., str]) -> None:
    promote(remote, "flights", "dev", make_release(), "first", CREATED)
    person(clone, "values.yaml", "replicas: 3\n")
    promote(remote, "flights", "dev", make_release(2), "second", CREATED + DAY)
    assert git(bare, "show", "main:values.yaml") == "replicas: 3"
    assert [each.release.cause for each in release_history(remote, "flights", "dev")] == ["second", "first"]


def test_a_push_that_is_not_a_fast_forward_is_decided_again(
    remote: Platform, bare: Path, clone: Path, make_release: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another promotion comes between the look and the push: the second decision sees it as the previous release."""
    first, other, ours = make_release(1), make_release(2), make_release(3)
    promote(remote, "flights", "dev", first, "first", CREATED)
    between = released(bare).model_copy(update={"release": other, "previous": first, "cause": "between"})
    push, seen = GitRepository._push, []

    def slow(repository: GitRepository, commit: str, branch: str) -> None:
        if not seen:
            seen.append(person(clone, release_path("flights", "dev"), between.model_dump_json(indent=2)))
        push(repository, commit, branch)

    monkeypatch.setattr(GitRepository, "_push", slow)
    commit = promote(remote, "flights", "dev", ours, "ours", CREATED + DAY)
    assert (released(bare).release, released(bare).previous) == (ours, other)
    assert git(bare, "rev-parse", f"{commit}^") == seen[0]
    assert [record.details["previous"] for record in RecordStore(remote.records_uri).list("promotion")] == ["", other]


def test_a_repository_that_never_rests_is_given_up_on(
    remote: Platform, bare: Path, clone: Path, make_release: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release, push, count = make_release(), GitRepository._push, iter(range(100))

    def late(repository: GitRepository, commit: str, branch: str) -> None:
        person(clone, "busy.txt", str(next(count)))
        push(repository, commit, branch)

    monkeypatch.setattr(GitRepository, "_push", late)
    with pytest.raises(CrisplineError, match="5 times in a row another commit came first"):
        promote(remote, "flights", "dev", release, "first", CREATED)
    assert current_release(remote, "flights", "dev") is None and list(RecordStore(remote.records_uri).list("promotion")) == []


def test_a_branch_that_moved_is_told_from_one_that_is_protected(remote: Platform, bare: Path, clone: Path) -> None:
    repository = GitRepository(remote.gitops_repository)
    with pytest.raises(NotFastForward), repository.locked():
        person(clone, "between.txt", "x")
        repository.commit_file("a", b"a", "message", CREATED)
    hook = bare / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'main is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    before = git(bare, "rev-parse", "main")
    with pytest.raises(PushDeclined, match="main is protected") as declined, repository.locked():
        repository.commit_file("a", b"a", "message", CREATED)
    assert "pull request" in str(declined.value) and git(bare, "rev-parse", "main") == before
    with repository.locked():
        assert repository.read_file("a") is None


def test_a_server_that_refuses_the_lock_is_a_branch_that_moved(remote: Platform, bare: Path) -> None:
    (bare / "refs" / "heads" / "main.lock").write_text("")
    repository = GitRepository(remote.gitops_repository)
    with pytest.raises(NotFastForward), repository.locked():
        repository.commit_file("a", b"a", "message", CREATED)


def test_a_proposal_is_a_branch_and_is_replaced_when_its_ground_moved(remote: Platform, bare: Path, clone: Path, make_release: Callable[..., str]) -> None:
    first, second = make_release(1), make_release(2)
    one = promote_release(remote, "flights", "prod", first, "one", CREATED)
    assert one.proposal == f"promote/prod/flights/{first[:12]}" and git(bare, "rev-parse", one.proposal) == one.commit
    assert promote_release(remote, "flights", "prod", first, "one", CREATED + DAY).commit == one.commit
    two = promote_release(remote, "flights", "prod", second, "two", CREATED)
    git(clone, "fetch", "--quiet", "origin", two.proposal)
    git(clone, "merge", "--quiet", "--ff-only", "FETCH_HEAD")
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    again = promote_release(remote, "flights", "prod", first, "one", CREATED + 2 * DAY)
    assert again.commit != one.commit and again.release.previous == second and git(bare, "rev-parse", one.proposal) == again.commit
    merged = promote_release(remote, "flights", "prod", second, "two", CREATED + DAY)
    assert (merged.commit, merged.proposal) == (two.commit, "")
    outcomes = sorted((record.lineage.release, record.outcome) for record in RecordStore(remote.records_uri).list("promotion"))
    assert outcomes == sorted([(first, "proposed"), (first, "proposed"), (second, "proposed"), (second, "promoted")])


def test_a_rollback_is_pushed_at_once_or_proposed(remote: Platform, bare: Path, make_release: Callable[..., str]) -> None:
    first, second = make_release(1), make_release(2)
    promote(remote, "flights", "dev", first, "first", CREATED)
    promote(remote, "flights", "dev", second, "second", CREATED + DAY)
    proposed = roll_back(remote, "flights", "dev", "previous", "worse", CREATED + DAY, proposed=True)
    assert proposed.proposal == f"rollback/dev/flights/{first[:12]}" and released(bare).release == second
    assert released(bare, revision=proposed.proposal).release == first
    done = roll_back(remote, "flights", "dev", "previous", "worse", CREATED + DAY)
    assert git(bare, "rev-parse", "main") == done.commit and released(bare).release == first
    assert [record.outcome for record in RecordStore(remote.records_uri).list("rollback")].count("rolled_back") == 1


def test_a_rollback_ends_the_canary_beside_it(remote: Platform, bare: Path, clone: Path, make_release: Callable[..., str]) -> None:
    first, second = make_release(1), make_release(2)
    promote(remote, "flights", "dev", first, "first", CREATED)
    promote(remote, "flights", "dev", second, "second", CREATED + DAY)
    path = "manifests/environments/dev/flights/canary.yaml"
    person(clone, path, f"canary: {{release: {make_release(3)}, plan: [5, 100], step: 0, weight: 5, shadow: false}}\n")
    roll_back(remote, "flights", "dev", "previous", "worse", CREATED + 2 * DAY)
    assert git(bare, "show", f"main:{path}") == "canary: {}" and released(bare).release == first


def test_another_release_is_not_promoted_over_a_canary(remote: Platform, clone: Path, make_release: Callable[..., str]) -> None:
    first, challenger, third = make_release(1), make_release(2), make_release(3)
    promote(remote, "flights", "dev", first, "first", CREATED)
    person(clone, "manifests/environments/dev/flights/canary.yaml", f"canary: {{release: {challenger}, plan: [5, 100], step: 0, weight: 5, shadow: false}}\n")
    with pytest.raises(CrisplineError, match=r"the canary of .* is at step 1 of 2 .*nothing else is promoted meanwhile"):
        promote(remote, "flights", "dev", third, "third", CREATED + DAY)
    with pytest.raises(CrisplineError, match="has not passed its whole plan"):
        promote(remote, "flights", "dev", challenger, "challenger", CREATED + DAY)
    assert promote(remote, "flights", "dev", first, "first", CREATED + DAY)


def test_a_repository_without_the_branch_or_out_of_reach_says_so(remote: Platform, tmp_path: Path, bare: Path) -> None:
    with pytest.raises(CrisplineError, match="has no branch trunk"):
        current_release(remote.model_copy(update={"gitops_branch": "trunk"}), "flights", "dev")
    with pytest.raises(CrisplineError, match="remedy: check the address and the credentials"):
        current_release(remote.model_copy(update={"gitops_repository": f"file://{tmp_path}/nowhere.git"}), "flights", "dev")


def test_a_password_in_the_address_is_refused(remote: Platform) -> None:
    with pytest.raises(CrisplineError, match="holds a password") as refused:
        GitRepository("https://bot:s3cret@example.org/acme/models.git")
    assert "s3cret" not in str(refused.value)


def test_the_callers_git_environment_redirects_nothing(
    remote: Platform, bare: Path, clone: Path, make_release: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [git(clone, *command) for command in (("rev-parse", "HEAD"), ("status", "--porcelain"), ("for-each-ref",), ("config", "--list", "--local"))]
    release = make_release()
    for name, value in {"GIT_DIR": str(clone / ".git"), "GIT_WORK_TREE": str(clone), "GIT_INDEX_FILE": str(clone / ".git" / "index")}.items():
        monkeypatch.setenv(name, value)
    promote(remote, "flights", "dev", release, "first", CREATED)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    after = [git(clone, *command) for command in (("rev-parse", "HEAD"), ("status", "--porcelain"), ("for-each-ref",), ("config", "--list", "--local"))]
    assert after == before and released(bare).release == release


def test_credentials_come_by_gits_own_means(remote: Platform, monkeypatch: pytest.MonkeyPatch, make_release: Callable[..., str], bare: Path) -> None:
    """Settings in the environment reach Git where it uses the network: here one that gives the address another meaning."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{bare.parent}/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://git.example.org/")
    elsewhere = remote.model_copy(update={"gitops_repository": "https://git.example.org/models.git"})
    release = make_release()
    promote(elsewhere, "flights", "dev", release, "first", CREATED)
    assert released(bare).release == release


def test_a_decision_is_only_repeated_for_a_branch_that_moved() -> None:
    def fails() -> str:
        raise CrisplineError("something else")

    with pytest.raises(CrisplineError, match="something else"):
        promotion.decided_again_when_moved(fails)
