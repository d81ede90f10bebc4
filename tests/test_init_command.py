"""`crispline init` makes a fresh clone a team's own: every place that names the organisation, once, and the same again for nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError
from components.deployment.environment_file import load_environment
from pipelines.commands.choices import WrongUsage
from pipelines.commands.init import NAMED_FILES, Organisation, initialise, read_organisation
from pipelines.flux_manifests import out_of_date

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for part in ("manifests", ".github", "usecases"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def with_another_usecase(clone: Path) -> Path:
    shutil.copytree(clone / "usecases" / "flights", clone / "usecases" / "trains")
    for environment in ("dev", "staging", "prod"):
        folder = clone / "manifests" / "environments" / environment
        shutil.copytree(folder / "flights", folder / "trains")
    return clone


def test_every_named_place_becomes_the_teams(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert initialise("acme", "", "", "", False, root=clone) == 0
    assert read_organisation(clone) == Organisation(organisation="acme", repository="https://github.com/acme/crispline.git", registry="ghcr.io/acme")
    files = {path for pattern in NAMED_FILES for path in clone.glob(pattern)}
    assert len(files) > 30 and not [path for path in files if "example" in path.read_text()]
    for environment in ("dev", "staging", "prod"):
        file = load_environment(environment, clone)
        assert (file.platform.gitops_repository, file.access.registry) == ("https://github.com/acme/crispline.git", "ghcr.io/acme")
    assert out_of_date(clone) == {}
    said = capsys.readouterr().out
    assert "manifests/argocd/projects.yaml" in said and ".github/CODEOWNERS" in said


def test_doing_it_again_changes_nothing(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("acme", "git@git.acme.org:ml/models.git", "registry.acme.org:5000/ml", "github", False)
    initialise(*given, root=clone)
    before = contents(clone)
    capsys.readouterr()
    initialise(*given, root=clone)
    assert contents(clone) == before and capsys.readouterr().out.strip() == "nothing to change"
    assert "registry.acme.org:5000/ml" in before["manifests/environments/prod/flights/values.yaml"]
    assert "git@git.acme.org:ml/models.git" in before["manifests/argocd/model-servers.yaml"]


def test_an_interrupted_run_is_completed_by_the_next(clone: Path) -> None:
    """It stopped after some of the files: organisation.yaml still says the old words."""
    reference = clone.parent / "reference"
    shutil.copytree(clone, reference)
    initialise("acme", "", "", "", False, root=reference)
    for name in ("manifests/argocd/projects.yaml", "manifests/environments/dev/platform.yaml"):
        (clone / name).write_text((reference / name).read_text())
    initialise("acme", "", "", "", False, root=clone)
    assert contents(clone) == contents(reference)


def test_a_name_that_only_begins_like_the_old_one_is_left_alone(clone: Path) -> None:
    file = clone / "manifests" / "environments" / "dev" / "flights" / "values.yaml"
    file.write_text(file.read_text() + "# ghcr.io/example-mirror and ghcr.io/example.old stay\n")
    initialise("acme", "", "", "", False, root=clone)
    assert file.read_text().endswith("# ghcr.io/example-mirror and ghcr.io/example.old stay\n") and "registry: ghcr.io/acme\n" in file.read_text()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("", "", "", "", False), "say what to set"),
        (("ac me", "", "", "", False), "--organisation 'ac me'"),
        (("acme", "models", "", "", False), "is no address"),
        (("acme", "", "https://ghcr.io/acme", "", False), "--registry 'https://ghcr.io/acme'"),
        (("acme", "https://bot:secret@git.acme.org/m.git", "", "", False), "holds a password"),
        (("", "", "", "jenkins", False), "there are github and none"),
        (("acme", "", "", "", True), "there is no use case beside the example"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_has_changed(clone: Path, given: tuple[str, str, str, str, bool], said: str) -> None:
    before = contents(clone)
    with pytest.raises((WrongUsage, CrisplineError), match=said):
        initialise(*given, root=clone)
    assert contents(clone) == before


def test_ci_can_be_left_out_and_is_missed_when_it_is_asked_for_again(clone: Path) -> None:
    initialise("", "", "", "none", False, root=clone)
    assert not list((clone / ".github" / "workflows").glob("*.yaml"))
    with pytest.raises(CrisplineError, match="git checkout"):
        initialise("", "", "", "github", False, root=clone)


def test_the_example_goes_with_its_manifests_and_nothing_names_it(clone: Path) -> None:
    with_another_usecase(clone)
    initialise("", "", "", "", True, root=clone)
    assert not (clone / "usecases" / "flights").exists() and (clone / "usecases" / "trains").is_dir()
    left = {name: text for name, text in contents(clone / "manifests").items() if "flights" in text or "flights" in name}
    assert not [
        name for name in left if not name.startswith(("environments/dev/trains", "environments/staging/trains", "environments/prod/trains", "development"))
    ]
    assert "usecases: [trains]" in (clone / "manifests" / "environments" / "prod" / "canary-controller.yaml").read_text()
    assert "runs: []" in (clone / "manifests" / "environments" / "prod" / "platform-values.yaml").read_text()
    assert out_of_date(clone) == {} and (clone / "manifests" / "flux" / "dev" / "trains.yaml").is_file()
    before = contents(clone)
    initialise("", "", "", "", True, root=clone)
    assert contents(clone) == before
