"""`crispline promote --from`, `rollback --env` and `check-releases` as a person meets them: what is printed where, and with which exit code."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore
from components.deployment.environment_file import EnvironmentFile, load_environment
from components.deployment.promotion import promote
from components.deployment.releases import current_release
from components.deployment.tests.example_release import CREATED, judged_release
from components.deployment.tests.gitops_remote import bare_repository, git, merge, person
from pipelines.commands import release as release_command
from pipelines.commands.release_check import check
from pipelines.served_images import image_references

pytestmark = pytest.mark.pipeline
NOW = "2013-04-02T00:00:00Z"
DIGESTS = {"serving": "sha256:" + "a" * 64, "monitoring": "sha256:" + "b" * 64}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a team's repository with three environments whose stores are folders, and the commands looking at it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bare, clone = bare_repository(tmp_path)
    for name in ("dev", "staging", "prod"):
        platform = Platform.embedded(tmp_path / name).model_copy(update={"environment": name, "gitops_repository": f"file://{bare}", "tracking_uri": ""})
        access = {"namespace": f"crispline-{name}", "registry": "localhost:5000"}
        file = clone / "manifests" / "environments" / name / "platform.yaml"
        file.parent.mkdir(parents=True)
        with file.open("w") as out:
            YAML().dump({"platform": platform.model_dump(), "access": access}, out)
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "-m", "Environments")
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    monkeypatch.setattr(release_command, "load_environment", lambda name: load_environment(name, clone))
    return clone


def platform_of(root: Path, environment: str) -> Platform:
    file: EnvironmentFile = load_environment(environment, root)
    return file.platform


@pytest.fixture
def in_dev(root: Path) -> str:
    release = judged_release(platform_of(root, "dev"))
    promote(platform_of(root, "dev"), "flights", "dev", release, "first", CREATED)
    return release


def between(**changes: Any) -> dict[str, Any]:
    given = {"command": "promote_between", "usecase": "flights", "source": "dev", "target": "staging", "release": "", "cause": "", "as_of": NOW}
    return {**given, "unchecked": "nothing is served in this test", "canary": False, "shadow": False, "images": DIGESTS, **changes}


def test_a_promotion_says_its_commit_on_stdout_and_the_rest_on_stderr(root: Path, in_dev: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert release_command.change_release(between()) == 0
    said = capsys.readouterr()
    assert said.out.strip() == git(root.parent / "acme" / "models.git", "rev-parse", f"promote/staging/flights/{in_dev[:12]}")
    assert "every hash verified" in said.err and f"image serving {DIGESTS['serving']}" in said.err and "it is in force in staging once it is merged" in said.err


def test_nothing_goes_on_that_was_served_with_other_features_or_that_nobody_checked(root: Path, in_dev: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CrisplineError, match=r"nobody has compared.*\n    remedy: .*crispline replay --env dev"):
        release_command.change_release(between(unchecked=""))
    check = Record(
        kind="check",
        id="skew-1",
        usecase="flights",
        event_time=CREATED,
        outcome="failed",
        reason="40 of 200 served rows differ from the training join",
        details={"check": "serving_skew", "release": in_dev},
        lineage=Lineage(),
    )
    RecordStore(platform_of(root, "dev").records_uri).append(check)
    with pytest.raises(CrisplineError, match="40 of 200 served rows differ"):
        release_command.change_release(between(unchecked="no reason is good enough for a failed check"))
    passed = check.model_copy(update={"id": "skew-2", "event_time": CREATED + timedelta(days=1), "outcome": "passed", "reason": "0 of 200 differ"})
    RecordStore(platform_of(root, "dev").records_uri).append(passed)
    assert release_command.change_release(between(unchecked="")) == 0
    assert "0 of 200 differ" in capsys.readouterr().err
    assert RecordStore(platform_of(root, "staging").records_uri).get("check", "skew-2") == passed


def test_a_canary_is_proposed_with_its_plan(root: Path, in_dev: str, capsys: pytest.CaptureFixture[str]) -> None:
    release_command.change_release(between())
    merge(root, f"promote/staging/flights/{in_dev[:12]}")
    second = judged_release(platform_of(root, "dev"), 8)
    promote(platform_of(root, "dev"), "flights", "dev", second, "second", CREATED)
    capsys.readouterr()
    release_command.change_release(between(canary=True))
    said = capsys.readouterr()
    assert "step 1 of 4 (5 %), plan [5, 25, 50, 100]" in said.err and f"promote/staging/flights/canary-{second[:12]}" in said.err


def test_a_rollback_takes_effect_at_once_or_is_proposed(root: Path, in_dev: str, capsys: pytest.CaptureFixture[str]) -> None:
    second = judged_release(platform_of(root, "dev"), 8)
    promote(platform_of(root, "dev"), "flights", "dev", second, "second", CREATED)
    request = {"command": "rollback_in", "usecase": "flights", "target": "dev", "release": "previous", "reason": "worse", "as_of": NOW}
    release_command.change_release({**request, "propose": True})
    assert "proposed on the branch rollback/dev/flights" in capsys.readouterr().err
    release_command.change_release({**request, "propose": False})
    assert "in force in dev as soon as Argo CD or Flux has seen it" in capsys.readouterr().err
    assert (current := current_release(platform_of(root, "dev"), "flights", "dev")) is not None and current.release == in_dev


def test_images_that_nobody_names_are_those_of_the_release_or_of_the_values(root: Path, in_dev: str) -> None:
    with pytest.raises(CrisplineError, match=r"its digest is not known.*\n    remedy: set images.serving.digest in its values.yaml, or give --image serving="):
        release_command.change_release(between(images={}))
    values = "images: {serving: {digest: %s}, monitoring: {digest: %s}}\n" % (DIGESTS["serving"], DIGESTS["monitoring"])  # noqa: UP031
    person(root, "manifests/environments/dev/flights/values.yaml", values)
    release_command.change_release(between(images={}))
    merge(root, f"promote/staging/flights/{in_dev[:12]}")
    current = current_release(platform_of(root, "staging"), "flights", "staging")
    assert current is not None and {name: pin.digest for name, pin in current.images.items()} == DIGESTS
    with pytest.raises(CrisplineError, match="there is no such image"):
        release_command.change_release(between(images={"redis": DIGESTS["serving"]}))
    with pytest.raises(CrisplineError, match="'latest' is no digest"):
        release_command.change_release(between(images={**DIGESTS, "serving": "latest"}, cause="again"))


def test_an_images_reference_is_made_as_the_chart_makes_it() -> None:
    defaults = {"registry": "localhost:5000", "tag": "dev", **{name: {"repository": f"crispline-{name}", "tag": "", "digest": ""} for name in DIGESTS}}
    values = {"registry": "ghcr.io/acme", "tag": "t1", "serving": {"tag": "t2"}, "monitoring": {"digest": DIGESTS["monitoring"]}}
    assert image_references(defaults, values) == {
        "serving": "ghcr.io/acme/crispline-serving:t2",
        "monitoring": f"ghcr.io/acme/crispline-monitoring@{DIGESTS['monitoring']}",
    }
    assert image_references(defaults, {}) == {name: f"localhost:5000/crispline-{name}:dev" for name in DIGESTS}


# --- check-releases --------------------------------------------------------------------------------------------------------------------------


def checked(root: Path, base: str = "", **changes: Any) -> int:
    git(root, "pull", "--quiet", "--rebase", "origin", "main")
    given = {"base": base, "head": "HEAD", "environments": [], "controller": "", "record": False, "repository": str(root)}
    return check({**given, **changes})


def test_the_check_says_what_it_looked_at_and_what_it_refuses(root: Path, in_dev: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = git(root, "rev-parse", "HEAD")
    assert checked(root, base) == 0
    assert capsys.readouterr().out.strip() == "changed: 1 releases, 0 canaries; in force: 1 releases, 0 canaries"
    file = "manifests/environments/dev/flights/release.json"
    commit = person(root, file, (root / file).read_text().replace('"model-7"', '"model-9"'))
    assert checked(root, base) == 1
    said = capsys.readouterr()
    assert f"refused: {file} in {commit[:12]}: model_version is 'model-9', but the bundle says 'model-7'" in said.err
    assert checked(root) == 1 and checked(root, "0" * 40) == 1
    assert checked(root, base, environments=["prod"]) == 0


def test_a_change_cannot_bring_a_store_of_its_own_to_be_judged_by(root: Path, in_dev: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pull request that names another bundle store is judged by the store that main names."""
    git(root, "pull", "--quiet", "--rebase", "origin", "main")
    base = git(root, "rev-parse", "HEAD")
    planted = Platform.embedded(tmp_path / "planted")
    forged = judged_release(planted, 9)
    file = "manifests/environments/dev/platform.yaml"
    text = (root / file).read_text()
    person(root, file, text.replace(str(tmp_path / "dev" / "bundles"), planted.bundles_uri).replace(str(tmp_path / "dev" / "records"), planted.records_uri))
    name = "manifests/environments/dev/flights/release.json"
    person(
        root, name, (root / name).read_text().replace(f'"release": "{in_dev}"', f'"release": "{forged}"').replace('"previous": ""', f'"previous": "{in_dev}"')
    )
    assert checked(root, base) == 1
    assert "no blob" in capsys.readouterr().err


def test_a_merged_promotion_leaves_its_record(root: Path, in_dev: str) -> None:
    git(root, "pull", "--quiet", "--rebase", "origin", "main")
    base = git(root, "rev-parse", "HEAD")
    release_command.change_release(between())
    merge(root, f"promote/staging/flights/{in_dev[:12]}")
    records = RecordStore(platform_of(root, "staging").records_uri)
    assert [record.outcome for record in records.list("promotion")] == ["proposed"]
    for _ in range(2):
        assert checked(root, base, record=True) == 0
    assert sorted(record.outcome for record in records.list("promotion")) == ["promoted", "proposed"]
