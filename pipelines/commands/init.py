"""`crispline init`: a fresh clone becomes a team's own.

What is replaced is exactly what `manifests/organisation.yaml` says, in the files listed here; that file is written last, so that an
interrupted run is completed by the next one, and a run that changes nothing writes nothing.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.markup import escape
from ruamel.yaml import YAML

from components.contracts.errors import CrisplineError
from components.contracts.storage import write_atomically
from components.deployment.gitops import GitRepository, is_remote
from pipelines.commands.choices import WrongUsage
from pipelines.flux_manifests import out_of_date
from pipelines.runners.environments import ROOT

EXAMPLE = "flights"
ORGANISATION_FILE = "manifests/organisation.yaml"
# Every file that names the organisation, its repository or its registry.
NAMED_FILES = ("manifests/environments/**/*.yaml", "manifests/argocd/*.yaml", "manifests/flux/**/*.yaml", ".github/workflows/*.yaml", ".github/CODEOWNERS")
WORKFLOWS = ("ci.yaml", "images.yaml", "releases.yaml")
_NAME_ENDS = r"(?![\w.-])"


class Organisation(BaseModel):
    """Whose installation it is: owner at the forge, address of the repository, registry of the images."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    organisation: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,38}$")
    repository: str
    registry: str = Field(pattern=r"^[a-z0-9][a-z0-9.:-]*(/[a-z0-9._-]+)*$")


def initialise(organisation: str, repository: str, registry: str, ci: str, remove_example: bool, root: Path = ROOT) -> int:
    """Change what is asked for, say on stdout which files changed, return 0. Raises WrongUsage or CrisplineError; then nothing has changed."""
    if not (organisation or repository or registry or ci or remove_example):
        raise WrongUsage("say what to set: --organisation, --repository, --registry, --ci, --remove-example")
    if ci not in ("", "github", "none"):
        raise WrongUsage(f"--ci {ci}: there are github and none")
    before = read_organisation(root)
    after = _wanted(before, organisation, repository, registry)
    if remove_example:
        _other_usecases(root)
    if ci == "github" and (missing := [name for name in WORKFLOWS if not (root / ".github" / "workflows" / name).is_file()]):
        raise CrisplineError(f".github/workflows/{missing[0]} is not there; take it back from the history: git checkout <commit> -- .github/workflows")
    changed = [*_replaced(before, after, root)]
    if ci == "none":
        changed.extend(_removed([root / ".github" / "workflows" / name for name in WORKFLOWS], root))
    if remove_example:
        changed.extend(_without_example(root))
    _tell(changed)
    return 0


def read_organisation(root: Path = ROOT) -> Organisation:
    """What the files say now. Raises CrisplineError when the file is none of ours."""
    file = root / ORGANISATION_FILE
    try:
        return Organisation.model_validate(YAML(typ="safe").load(file.read_text()))
    except (OSError, ValidationError) as error:
        raise CrisplineError(f"{ORGANISATION_FILE} cannot be read ({error}); take it back from the history") from error


def _wanted(before: Organisation, organisation: str, repository: str, registry: str) -> Organisation:
    owner = organisation or before.organisation
    values = {
        "organisation": owner,
        "repository": repository or before.repository.replace(f"/{before.organisation}/", f"/{owner}/").replace(f":{before.organisation}/", f":{owner}/"),
        "registry": registry or re.sub(rf"(?<=/){re.escape(before.organisation)}$", owner.lower(), before.registry),
    }
    try:
        after = Organisation.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        raise WrongUsage(f"--{fault['loc'][0]} {fault['input']!r}: {fault['msg']}") from None
    if not is_remote(after.repository):
        raise WrongUsage(f"--repository {after.repository!r} is no address; write https://github.com/acme/models.git or git@github.com:acme/models.git")
    GitRepository(after.repository)  # refuses a password in the address
    return after


def _replaced(before: Organisation, after: Organisation, root: Path) -> Iterator[str]:
    for file in sorted({path for pattern in NAMED_FILES for path in root.glob(pattern)}):
        text = file.read_text()
        new = _with(text, before, after)
        if new != text:
            write_atomically(file, new.encode())
            yield str(file.relative_to(root))
    file = root / ORGANISATION_FILE
    text = file.read_text()
    new = text
    for key, value in after.model_dump().items():
        new = re.sub(rf"^{key}: .*$", f"{key}: {value}", new, flags=re.MULTILINE)
    if new != text:
        write_atomically(file, new.encode())
        yield ORGANISATION_FILE


def _with(text: str, before: Organisation, after: Organisation) -> str:
    text = text.replace(before.repository, after.repository)
    text = re.sub(re.escape(before.registry) + _NAME_ENDS, after.registry, text)
    return re.sub(rf"@{re.escape(before.organisation)}/", f"@{after.organisation}/", text)


# --- the example ---------------------------------------------------------------------------------------------------------------------------


def _other_usecases(root: Path) -> list[str]:
    others = sorted(file.parent.name for file in (root / "usecases").glob("*/usecase.yaml") if file.parent.name != EXAMPLE)
    if not others:
        raise CrisplineError(f"there is no use case beside the example; copy usecases/{EXAMPLE} to usecases/<name>, make it yours, then remove the example")
    return others


def _without_example(root: Path) -> Iterator[str]:
    """The use case, its manifests, and every line of an environment's files that speaks of it."""
    others = _other_usecases(root)
    folders = [folder for part in ("environments", "pipelines") for folder in sorted((root / "manifests" / part).glob(f"*/{EXAMPLE}"))]
    yield from _removed([root / "usecases" / EXAMPLE, *folders], root)
    for file in sorted((root / "manifests" / "environments").glob("*/*.yaml")):
        text = file.read_text()
        new = "".join(line for line in text.splitlines(keepends=True) if f"usecase: {EXAMPLE}," not in line)
        new = new.replace("  runs:\n", "  runs: []\n") if "  runs:\n" in new and "    - {name:" not in new else new
        new = new.replace(f"usecases: [{EXAMPLE}]", f"usecases: [{', '.join(others)}]")
        if new != text:
            write_atomically(file, new.encode())
            yield str(file.relative_to(root))
    if (root / "manifests" / "flux").is_dir():
        for path, content in out_of_date(root).items():
            if content is None:
                (root / path).unlink()
            else:
                write_atomically(root / path, content.encode())
            yield path


def _removed(paths: list[Path], root: Path) -> Iterator[str]:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            continue
        yield f"{path.relative_to(root)} (removed)"


def _tell(changed: list[str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for path in changed:
        console.print(f"[green]✓[/] {escape(path)}")
    console.print("nothing to change" if not changed else f"{len(changed)} files; look at them with `git diff` and commit them")
