"""Promotion and rollback are commits: once for a cause, of what was judged, in the GitOps repository alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.deployment.bundle import read_manifest
from components.deployment.gitops import GitRepository
from components.deployment.promotion import current_release, promote, release_history
from components.deployment.rollback import roll_back
from components.deployment.tests.example_release import CREATED

pytestmark = pytest.mark.pipeline
FILE = "manifests/environments/dev/flights/release.json"
DAY = timedelta(days=1)


def git(folder: Path | str, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout.strip()


def commits(platform: Platform) -> int:
    return int(git(platform.gitops_repository, "rev-list", "--count", "HEAD"))


def records(platform: Platform, kind: str) -> list[tuple[str, str]]:
    return [(record.outcome, record.lineage.release) for record in RecordStore(platform.records_uri).list(kind)]  # type: ignore[arg-type]


def test_before_the_first_promotion_nothing_is_released(platform: Platform) -> None:
    assert current_release(platform, "flights", "dev") is None
    assert release_history(platform, "flights", "dev") == []
    assert not Path(platform.gitops_repository).exists()


def test_the_first_promotion_works_without_a_champion(platform: Platform, make_release: Callable[..., str]) -> None:
    release = make_release()
    commit = promote(platform, "flights", "dev", release, "first", CREATED)
    current = current_release(platform, "flights", "dev")
    assert current is not None and (current.release, current.previous, current.cause) == (release, "", "first")
    assert git(platform.gitops_repository, "show", "--name-only", "--format=", commit) == FILE
    assert (Path(platform.gitops_repository) / FILE).read_text() == git(platform.gitops_repository, "show", f"{commit}:{FILE}") + "\n"
    assert git(platform.gitops_repository, "status", "--porcelain") == ""
    assert records(platform, "promotion") == [("promoted", release)]
    checks = [record for record in RecordStore(platform.records_uri).list("check") if record.details["check"] == "release_integrity"]
    assert [check.outcome for check in checks] == ["passed"]


def test_the_commit_says_why_and_what(platform: Platform, make_release: Callable[..., str]) -> None:
    commit = promote(platform, "flights", "dev", make_release(), "alert-42", CREATED)
    message = git(platform.gitops_repository, "show", "-s", "--format=%B", commit)
    for line in ("Cause: alert-42", "Model: model-1", "Gates: gates-model-1", "Data: data-1"):
        assert line in message.splitlines()
    assert git(platform.gitops_repository, "show", "-s", "--format=%an %at", commit) == f"crispline {int(CREATED.timestamp())}"


def test_one_cause_promotes_once(platform: Platform, make_release: Callable[..., str]) -> None:
    first, second = make_release(1), make_release(2)
    commit = promote(platform, "flights", "dev", first, "alert-1", CREATED)
    before = commits(platform)
    assert promote(platform, "flights", "dev", first, "alert-1", CREATED + DAY) == commit
    with pytest.raises(CrisplineError, match="one cause promotes one release"):
        promote(platform, "flights", "dev", second, "alert-1", CREATED + DAY)
    assert commits(platform) == before and len(records(platform, "promotion")) == 1


def test_two_processes_at_once_promote_once(platform: Platform, make_release: Callable[..., str]) -> None:
    release = make_release()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: promote(platform, "flights", "dev", release, "alert-1", CREATED), range(4)))
    assert len(set(done)) == 1 and commits(platform) == 2


def test_a_crash_between_commit_and_record_is_made_good(platform: Platform, make_release: Callable[..., str]) -> None:
    release = make_release()
    commit = promote(platform, "flights", "dev", release, "alert-1", CREATED)
    for file in (Path(platform.records_uri) / "promotion").iterdir():
        file.unlink()
    assert promote(platform, "flights", "dev", release, "alert-1", CREATED + DAY) == commit
    assert records(platform, "promotion") == [("promoted", release)] and commits(platform) == 2


def test_an_edited_work_tree_does_not_change_what_is_released(platform: Platform, make_release: Callable[..., str]) -> None:
    first, second = make_release(1), make_release(2)
    promote(platform, "flights", "dev", first, "first", CREATED)
    values = Path(platform.gitops_repository) / "manifests" / "environments" / "dev" / "flights" / "values.yaml"
    values.write_text("replicas: 3\n")
    (Path(platform.gitops_repository) / FILE).write_text("scribbled")
    assert (current := current_release(platform, "flights", "dev")) is not None and current.release == first
    promote(platform, "flights", "dev", second, "second", CREATED + DAY)
    assert values.read_text() == "replicas: 3\n"
    assert git(platform.gitops_repository, "status", "--porcelain") == "?? manifests/environments/dev/flights/values.yaml"


@pytest.mark.parametrize(
    ("how", "message"),
    [({"outcome": "failed"}, "did not pass its gates"), ({"stored": "failed"}, "says 'failed'"), ({"stored": "nothing"}, "not among the records")],
)
@pytest.mark.ml_test("infrastructure-4")
def test_what_did_not_pass_its_gates_is_not_promoted(platform: Platform, make_release: Callable[..., str], how: dict[str, str], message: str) -> None:
    release = make_release(**how)
    with pytest.raises(IntegrityError, match=message):
        promote(platform, "flights", "dev", release, "first", CREATED)
    assert current_release(platform, "flights", "dev") is None and records(platform, "promotion") == []
    assert ("failed", release) in records(platform, "check")


def test_a_tampered_release_is_not_promoted(platform: Platform, make_release: Callable[..., str]) -> None:
    release = make_release()
    digest = read_manifest(platform.bundles_uri, release).files["model.ubj"]
    (Path(platform.bundles_uri) / digest[:2] / digest).write_bytes(b"another model")
    with pytest.raises(IntegrityError, match=r"model\.ubj"):
        promote(platform, "flights", "dev", release, "first", CREATED)
    assert current_release(platform, "flights", "dev") is None
    integrity = [record for record in RecordStore(platform.records_uri).list("check") if record.details["check"] == "release_integrity"]
    assert [(record.outcome, record.lineage.release) for record in integrity] == [("failed", release)]


def test_an_undeclared_environment_is_refused(platform: Platform, make_release: Callable[..., str]) -> None:
    with pytest.raises(CrisplineError, match="dev, staging, prod"):
        promote(platform, "flights", "production", make_release(), "first", CREATED)


def test_a_pull_request_proposes_on_a_branch_and_is_in_force_once_merged(platform: Platform, make_release: Callable[..., str]) -> None:
    release = make_release()
    commit = promote(platform, "flights", "prod", release, "first", CREATED)
    assert promote(platform, "flights", "prod", release, "first", CREATED) == commit
    assert current_release(platform, "flights", "prod") is None and records(platform, "promotion") == [("proposed", release)]
    branch = f"promote/prod/flights/{release[:12]}"
    assert git(platform.gitops_repository, "rev-parse", branch) == commit
    git(platform.gitops_repository, "merge", "--quiet", branch)
    assert (current := current_release(platform, "flights", "prod")) is not None and current.release == release


@pytest.mark.ml_test("infrastructure-7")
def test_rollback_goes_to_any_earlier_release(platform: Platform, make_release: Callable[..., str]) -> None:
    releases = [make_release(seed) for seed in (1, 2, 3)]
    for number, release in enumerate(releases):
        promote(platform, "flights", "dev", release, f"cause-{number}", CREATED + number * DAY)
    back = roll_back(platform, "flights", "dev", "previous", "worse on Mondays", CREATED + 4 * DAY)
    assert (current := current_release(platform, "flights", "dev")) is not None
    assert (current.release, current.previous, back.release) == (releases[1], releases[2], current)
    further = roll_back(platform, "flights", "dev", releases[0][:12], "worse still", CREATED + 5 * DAY)
    assert roll_back(platform, "flights", "dev", releases[0], "again", CREATED + 5 * DAY).commit == further.commit
    history = release_history(platform, "flights", "dev")
    assert [(each.kind, each.release.release) for each in history] == [
        ("rollback", releases[0]),
        ("rollback", releases[1]),
        *[("promotion", release) for release in reversed(releases)],
    ]
    assert [outcome for outcome, _ in records(platform, "rollback")] == ["rolled_back", "rolled_back"]
    assert commits(platform) == 6


def test_rollback_refuses_what_was_never_in_force(platform: Platform, make_release: Callable[..., str]) -> None:
    with pytest.raises(CrisplineError, match="nothing was ever promoted"):
        roll_back(platform, "flights", "dev", "previous", "why", CREATED)
    first, other = make_release(1), make_release(2)
    promote(platform, "flights", "dev", first, "first", CREATED)
    with pytest.raises(CrisplineError, match="no earlier release"):
        roll_back(platform, "flights", "dev", "previous", "why", CREATED)
    with pytest.raises(CrisplineError, match="names no release"):
        roll_back(platform, "flights", "dev", other, "why", CREATED)


def test_rollback_refuses_a_release_whose_bundle_was_changed(platform: Platform, make_release: Callable[..., str]) -> None:
    first, second = make_release(1), make_release(2)
    promote(platform, "flights", "dev", first, "first", CREATED)
    promote(platform, "flights", "dev", second, "second", CREATED + DAY)
    digest = read_manifest(platform.bundles_uri, first).files["model.ubj"]
    (Path(platform.bundles_uri) / digest[:2] / digest).write_bytes(b"another model")
    with pytest.raises(IntegrityError):
        roll_back(platform, "flights", "dev", "previous", "why", CREATED + 2 * DAY)
    assert (current := current_release(platform, "flights", "dev")) is not None and current.release == second


def test_the_users_clone_is_left_alone(tmp_path: Path, make_release: Callable[..., str], platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "init", "--quiet", "clone")
    (clone / ".gitignore").write_text("state/\n")
    git(clone, "add", ".gitignore")
    git(clone, "-c", "user.name=user", "-c", "user.email=user@localhost", "commit", "--quiet", "-m", "mine")
    (clone / "edited.txt").write_text("not committed yet")
    inside = platform.model_copy(update={"gitops_repository": str(clone / "state" / "gitops")})
    before = [git(clone, *command) for command in (("rev-parse", "HEAD"), ("status", "--porcelain"), ("for-each-ref",), ("config", "--list", "--local"))]
    release, second = make_release(1), make_release(2)
    monkeypatch.chdir(clone)
    for name, value in {"GIT_DIR": str(clone / ".git"), "GIT_WORK_TREE": str(clone), "GIT_INDEX_FILE": str(clone / ".git" / "index")}.items():
        monkeypatch.setenv(name, value)
    promote(inside, "flights", "dev", release, "first", CREATED)
    promote(inside, "flights", "dev", second, "second", CREATED + DAY)
    roll_back(inside, "flights", "dev", "previous", "why", CREATED + 2 * DAY)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    after = [git(clone, *command) for command in (("rev-parse", "HEAD"), ("status", "--porcelain"), ("for-each-ref",), ("config", "--list", "--local"))]
    assert after == before
    assert int(git(clone / "state" / "gitops", "rev-list", "--count", "HEAD")) == 4


def test_gits_own_words_reach_the_reader(tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "repository")
    with repository.locked():
        repository.commit_file("file", b"", "message", CREATED)
    (tmp_path / "repository" / ".git" / "HEAD").write_text("damaged")
    with pytest.raises(CrisplineError, match="not a git repository"), repository.locked():
        repository.commit_file("file", b"", "message", CREATED)
