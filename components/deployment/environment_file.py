"""One environment of an installation: `manifests/environments/<environment>/platform.yaml`.

It holds the platform's endpoints and the names under which credentials are kept, never a credential. The file is Helm values of
charts/platform, too, which makes the pods' `platform.json` of `platform`; `access` is for people, for continuous integration and for
`crispline doctor`, and no chart reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError

from components.contracts.errors import InvalidUseCase, Problem
from components.contracts.platform import Platform
from components.deployment.releases import ENVIRONMENTS_FOLDER, PLATFORM_FILE

ROOT = Path(__file__).resolve().parents[2]


class InvalidEnvironment(InvalidUseCase):
    """platform.yaml breaks its contract; `problems` lists every breach with file, line, key and remedy."""


class Section(BaseModel):
    """A part of the file. Keys are written as in Helm values: `existingSecret`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)


class ObjectStore(Section):
    """The S3-compatible store behind the s3:// addresses. `existing_secret`: the Secret of the pods' keys; empty for the node's identity."""

    endpoint: str = ""
    region: str = "us-east-1"
    existing_secret: str = ""


class Access(Section):
    """How people and continuous integration reach the environment.

    `context`: of the kubeconfig; empty for the current one. `server`: the cluster as Argo CD knows it. `profile`: AWS profile for the object
    store. `registry`: where the images are. `secrets`: the Secrets that the environment's charts name, with the keys that each must hold.
    """

    context: str = ""
    namespace: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    server: str = "https://kubernetes.default.svc"
    profile: str = ""
    registry: str
    secrets: dict[str, list[str]] = Field(default_factory=dict)


class EnvironmentFile(Section):
    """The whole file."""

    platform: Platform
    object_store: ObjectStore = ObjectStore()
    access: Access

    @property
    def name(self) -> str:
        return self.platform.environment


def environment_path(environment: str, root: Path = ROOT) -> Path:
    return root / ENVIRONMENTS_FOLDER / environment / PLATFORM_FILE


def known_environments(root: Path = ROOT) -> list[str]:
    """Names of the environments that have a platform.yaml, in order of name."""
    return sorted(file.parent.name for file in (root / ENVIRONMENTS_FOLDER).glob(f"*/{PLATFORM_FILE}"))


def load_environment(environment: str, root: Path = ROOT) -> EnvironmentFile:
    """Read one environment's file. Raises InvalidEnvironment with every breach."""
    file = environment_path(environment, root)
    if not file.is_file():
        known = ", ".join(known_environments(root)) or "none"
        raise InvalidEnvironment([Problem(file, 0, PLATFORM_FILE, "the file does not exist", f"name an environment that has one: {known}")])
    return parse_environment(file.read_text(), file, environment)


def parse_environment(content: str, file: Path, environment: str) -> EnvironmentFile:
    """The content of one environment's file; `file` is for the messages. Raises InvalidEnvironment with every breach."""
    try:
        document = YAML(typ="rt").load(content)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise InvalidEnvironment([Problem(file, line, "yaml", str(error.problem), "correct the YAML syntax")]) from error
    if not isinstance(document, CommentedMap):
        raise InvalidEnvironment([Problem(file, 1, PLATFORM_FILE, "is not a mapping of sections", "start with `platform:`")])
    try:
        found = EnvironmentFile.model_validate(YAML(typ="safe").load(content))
    except ValidationError as error:
        raise InvalidEnvironment([_problem(file, document, dict(detail)) for detail in error.errors()]) from error
    problems = [
        Problem(file, _line(document, path), ".".join(path), message, remedy)
        for path, message, remedy in (
            *_wrong_name(found, environment),
            *_credentials(found),
        )
    ]
    if problems:
        raise InvalidEnvironment(problems)
    return found


def _wrong_name(found: EnvironmentFile, environment: str) -> list[tuple[tuple[str, ...], str, str]]:
    if found.name == environment:
        return []
    return [(("platform", "environment"), f"is {found.name!r} in the folder of {environment!r}", f"write `environment: {environment}`")]


def _credentials(found: EnvironmentFile) -> list[tuple[tuple[str, ...], str, str]]:
    """An address with a user's password in it: `scheme://user:password@host`."""
    from urllib.parse import urlsplit

    values = found.platform.model_dump()
    wrong = [name for name, value in values.items() if isinstance(value, str) and "://" in value and urlsplit(value).password]
    return [(("platform", name), "holds a password", "keep it in a Secret, and name the Secret under `access.secrets`") for name in wrong]


def _problem(file: Path, document: CommentedMap, detail: dict[str, Any]) -> Problem:
    path = [str(part) for part in detail["loc"]]
    key = ".".join(path)
    if detail["type"] == "extra_forbidden":
        return Problem(file, _line(document, path), key, "the key is unknown", "remove it; charts/platform has values of its own in values.yaml")
    if detail["type"] == "missing":
        return Problem(file, _line(document, path), key, "the key is missing", f"add `{path[-1]}:` under `{'.'.join(path[:-1]) or 'the top level'}`")
    return Problem(file, _line(document, path), key, f"{detail['msg']} (found {detail['input']!r})", "see docs/how-to/kubernetes.md")


def _line(document: Any, path: list[str] | tuple[str, ...]) -> int:
    """The line (from 1) of the deepest part of `path` that the document has."""
    node, line = document, 1
    for part in path:
        if not isinstance(node, CommentedMap) or part not in node:
            break
        line = int(node.lc.key(part)[0]) + 1
        node = node[part]
    return line
