"""Continuous integration refuses what did not pass, does not match, or moves out of order; and says what it looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.deployment.bundle import read_manifest
from components.deployment.gitops import GitRepository
from components.deployment.promotion import Stores, promote
from components.deployment.release_policy import Checked, ReleaseCheck
from components.deployment.releases import release_path
from components.deployment.rollback import roll_back
from components.deployment.tests.example_release import CREATED
from components.deployment.tests.gitops_remote import bare_repository, git, person

pytestmark = pytest.mark.pipeline
RELEASE, CANARY = release_path("flights", "dev"), "manifests/environments/dev/flights/canary.yaml"
CONTROLLER = "crispline-canary <crispline-canary@localhost>"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return bare_repository(tmp_path)[1]


@pytest.fixture
def remote(platform: Platform, clone: Path) -> Platform:
    return platform.model_copy(update={"gitops_repository": f"file://{clone.parent / 'acme' / 'models.git'}"})


@pytest.fixture
def check(platform: Platform, clone: Path) -> Callable[..., Checked]:
    """What the check says about everything after `base` in the clone, brought up to date."""

    def look(base: str, **options: object) -> Checked:
        git(clone, "pull", "--quiet", "--rebase", "origin", "main")
        stores = options.pop("stores", lambda _: Stores.of(platform))
        return ReleaseCheck(GitRepository(clone), stores, frozenset({"dev"}), **options).changes(base, "HEAD")  # type: ignore[arg-type]

    return look


@pytest.fixture
def first(remote: Platform, make_release: Callable[..., str]) -> str:
    release = make_release(1)
    promote(remote, "flights", "dev", release, "first", CREATED)
    return release


def head(clone: Path) -> str:
    git(clone, "pull", "--quiet", "--rebase", "origin", "main")
    return git(clone, "rev-parse", "HEAD")


def edited(clone: Path, **changes: object) -> str:
    """The release file in force with some keys changed."""
    git(clone, "pull", "--quiet", "--rebase", "origin", "main")
    return json.dumps({**json.loads((clone / RELEASE).read_text()), **changes}, indent=2)


def canary(release: str, step: int, plan: tuple[int, ...] = (5, 25, 100), weight: int | None = None) -> str:
    return f"canary: {{release: {release}, plan: {list(plan)}, step: {step}, weight: {plan[step] if weight is None else weight}, shadow: false}}\n"


def reasons(checked: Checked) -> str:
    return "\n".join(str(fault) for fault in checked.faults)


def test_promotions_and_rollbacks_pass(remote: Platform, clone: Path, check: Callable[..., Checked], make_release: Callable[..., str]) -> None:
    base = head(clone)
    promote(remote, "flights", "dev", make_release(1), "first", CREATED)
    promote(remote, "flights", "dev", make_release(2), "second", CREATED)
    roll_back(remote, "flights", "dev", "previous", "worse", CREATED)
    checked = check(base)
    assert (checked.releases, checked.faults) == (3, ())


def test_other_files_are_none_of_its_business(clone: Path, check: Callable[..., Checked]) -> None:
    base = head(clone)
    person(clone, "manifests/environments/dev/flights/values.yaml", "replicas: 3\n")
    person(clone, "README.md", "changed\n")
    assert check(base) == Checked(0, 0, ())


def test_before_the_first_promotion_there_is_nothing_to_refuse(clone: Path, check: Callable[..., Checked], first: str) -> None:
    base = head(clone)
    person(clone, release_path("flights", "dev").replace("flights", "trains"), "{}\n")
    person(clone, CANARY, "canary: {}\n")
    assert check(base).faults == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_version": "model-9"}, "model_version is 'model-9', but the bundle says 'model-1'"),
        ({"data_version": "data-9"}, "data_version is 'data-9'"),
        ({"gates_record": "gates-9"}, "gates_record is 'gates-9'"),
        ({"evaluation": "another"}, "evaluation is 'another', but the gates judged"),
        ({"environment": "prod"}, "it is about flights in prod, not about flights in dev"),
        ({"release": "f" * 64}, "no blob"),
        ({"images": {"serving": {"digest": "latest"}}}, "is not a release"),
        ({"surprise": 1}, "is not a release"),
        ({"source": "staging"}, "it says that it comes from staging, where release"),
    ],
)
def test_a_release_file_that_does_not_fit_its_bundle_is_refused(
    clone: Path, check: Callable[..., Checked], first: str, changes: dict[str, object], said: str
) -> None:
    base = head(clone)
    commit = person(clone, RELEASE, edited(clone, **changes))
    checked = check(base)
    assert said in reasons(checked) and {fault.commit for fault in checked.faults} == {commit}


@pytest.mark.parametrize(
    ("how", "said"),
    [({"outcome": "failed"}, "did not pass its gates"), ({"stored": "failed"}, "says 'failed'"), ({"stored": "nothing"}, "not among the records")],
)
def test_a_release_whose_record_did_not_pass_is_refused(
    clone: Path, check: Callable[..., Checked], first: str, make_release: Callable[..., str], how: dict[str, str], said: str
) -> None:
    base, refused = head(clone), make_release(2, **how)
    person(clone, RELEASE, edited(clone, release=refused, previous=first))
    assert said in reasons(check(base))


def test_a_release_whose_hash_does_not_match_is_refused(
    platform: Platform, clone: Path, check: Callable[..., Checked], first: str, make_release: Callable[..., str]
) -> None:
    base, second = head(clone), make_release(2)
    digest = read_manifest(platform.bundles_uri, second).files["model.ubj"]
    (Path(platform.bundles_uri) / digest[:2] / digest).write_bytes(b"another model")
    person(clone, RELEASE, edited(clone, release=second, previous=first))
    assert "does not match its hash" in reasons(check(base))


def test_a_release_decided_about_another_state_is_refused(clone: Path, check: Callable[..., Checked], first: str, make_release: Callable[..., str]) -> None:
    base, second = head(clone), make_release(2)
    person(clone, RELEASE, edited(clone, release=second, model_version="model-2", gates_record="gates-model-2", previous="f" * 64))
    assert "was in force" in reasons(check(base)) and "promote again" in reasons(check(base))


def test_removing_or_emptying_the_release_file_is_refused(clone: Path, check: Callable[..., Checked], first: str) -> None:
    base = head(clone)
    person(clone, RELEASE, "{}\n")
    assert "removed or emptied" in reasons(check(base))
    base = head(clone)
    person(clone, RELEASE, None)
    assert check(base).faults == ()  # it says nothing any more, so nothing is lost


def test_what_cannot_be_checked_is_refused(clone: Path, check: Callable[..., Checked], first: str, make_release: Callable[..., str], remote: Platform) -> None:
    base = head(clone)
    promote(remote, "flights", "dev", make_release(2), "second", CREATED)

    def away(_: str) -> Stores:
        raise CrisplineError("the store does not answer")

    def broken(_: str) -> Stores:
        raise ConnectionError("no route")

    assert "the store does not answer" in reasons(check(base, stores=away))
    assert "cannot be checked: ConnectionError: no route" in reasons(check(base, stores=broken))


def test_the_state_as_a_whole_is_checked_too(platform: Platform, clone: Path, first: str) -> None:
    """A bundle that was damaged after its promotion shows without any commit."""
    policy = ReleaseCheck(GitRepository(clone), lambda _: Stores.of(platform), frozenset({"dev"}))
    assert (policy.state(head(clone)).releases, policy.state("HEAD").faults) == (1, ())
    digest = read_manifest(platform.bundles_uri, first).files["model.ubj"]
    (Path(platform.bundles_uri) / digest[:2] / digest).write_bytes(b"another model")
    again = ReleaseCheck(GitRepository(clone), lambda _: Stores.of(platform), frozenset({"dev"})).state("HEAD")
    assert "does not match its hash" in reasons(again)
    assert ReleaseCheck(GitRepository(clone), lambda _: Stores.of(platform), frozenset({"prod"})).state("HEAD") == Checked(0, 0, ())


# --- canaries --------------------------------------------------------------------------------------------------------------------------------


def test_a_canary_that_goes_by_its_plan_passes(clone: Path, check: Callable[..., Checked], first: str, make_release: Callable[..., str]) -> None:
    base, challenger = head(clone), make_release(2)
    person(clone, CANARY, canary(challenger, 0))
    for step in (1, 2):
        person(clone, CANARY, canary(challenger, step), "Crispline-Kind: canary-step", author=CONTROLLER)
    person(clone, CANARY, "canary: {}\n", "Crispline-Kind: canary-rollback", author=CONTROLLER)
    checked = check(base)
    assert (checked.canaries, checked.faults) == (4, ())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda release: canary(release, 2), "is not the next step of the plan"),
        (lambda release: canary(release, 1, weight=100), "is not step 1 of plan"),
        (lambda release: canary(release, 1, plan=(5, 50, 100)), "the plan is [5, 50, 100], approved was [5, 25, 100]"),
        (lambda _: canary("f" * 64, 1), "is not the next step of the plan"),
    ],
)
def test_a_step_out_of_order_is_refused(
    clone: Path, check: Callable[..., Checked], first: str, make_release: Callable[..., str], content: Callable[[str], str], said: str
) -> None:
    challenger = make_release(2)
    person(clone, CANARY, canary(challenger, 0))
    base = head(clone)
    person(clone, CANARY, content(challenger), "Crispline-Kind: canary-step", author=CONTROLLER)
    assert said in reasons(check(base))


@pytest.mark.parametrize("trailer", ["Crispline-Kind: canary-step", "By: nobody"])
def test_the_controller_may_change_no_other_file(clone: Path, check: Callable[..., Checked], first: str, trailer: str) -> None:
    """Whether the commit says of itself that it is the controller's, or only its author does."""
    base = head(clone)
    author = CONTROLLER if trailer == "By: nobody" else "person <person@localhost>"
    person(clone, "manifests/environments/dev/flights/values.yaml", "replicas: 0\n", trailer, author=author)
    assert "it may change only one manifests/environments/<environment>/<usecase>/canary.yaml" in reasons(check(base))


def test_the_controller_starts_nothing(clone: Path, check: Callable[..., Checked], first: str, make_release: Callable[..., str]) -> None:
    base = head(clone)
    person(clone, CANARY, canary(make_release(2), 0), "Crispline-Kind: canary-step", author=CONTROLLER)
    assert "started a canary; only a reviewed change may" in reasons(check(base))


def test_a_review_starts_a_canary_at_its_beginning_with_a_judged_challenger(
    clone: Path, check: Callable[..., Checked], first: str, make_release: Callable[..., str], platform: Platform
) -> None:
    base = head(clone)
    person(clone, CANARY, canary(make_release(2), 1))
    assert "a canary begins with step 1 of 3" in reasons(check(base))
    person(clone, CANARY, "canary: {}\n")
    base = head(clone)
    person(clone, CANARY, canary(make_release(3, outcome="failed"), 0))
    assert "did not pass its gates" in reasons(check(base))
    assert len(list(RecordStore(platform.records_uri).list("promotion"))) == 1
