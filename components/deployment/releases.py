"""What is, and was, released: the commits of `manifests/environments/<environment>/<usecase>/release.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from components.contracts.artifacts import Release
from components.contracts.errors import IntegrityError
from components.contracts.platform import Platform
from components.deployment.gitops import BRANCH, FileVersion, GitRepository

Kind = Literal["promotion", "rollback"]
KIND_TRAILER = "Crispline-Kind"


@dataclass(frozen=True)
class Deployed:
    """One commit that put a release into force, or on a branch proposed to."""

    commit: str
    kind: Kind
    release: Release


def release_path(usecase: str, environment: str) -> str:
    """Path of the release file inside the GitOps repository."""
    return f"manifests/environments/{environment}/{usecase}/release.json"


def current_release(platform: Platform, usecase: str, environment: str) -> Release | None:
    """The committed release of an environment; None before the first promotion. Raises IntegrityError when the file is none of ours."""
    path = release_path(usecase, environment)
    content = GitRepository(platform.gitops_repository).read_file(path)
    return None if content is None else _parse(content, path)


def release_history(platform: Platform, usecase: str, environment: str, branch: str = BRANCH) -> list[Deployed]:
    """Every promotion and rollback of an environment, newest first."""
    path = release_path(usecase, environment)
    return [_deployed(version, path) for version in GitRepository(platform.gitops_repository).history(path, branch)]


def _deployed(version: FileVersion, path: str) -> Deployed:
    kind: Kind = "rollback" if version.trailers.get(KIND_TRAILER) == "rollback" else "promotion"
    return Deployed(version.commit, kind, _parse(version.content, path))


def _parse(content: bytes, path: str) -> Release:
    try:
        return Release.model_validate_json(content)
    except ValidationError as error:
        raise IntegrityError(f"{path} in the GitOps repository is not a release ({error.error_count()} faults); restore it from its history") from error


def release_content(release: Release) -> bytes:
    """The file's bytes: one value a line, so that a review shows what changes."""
    return (release.model_dump_json(indent=2) + "\n").encode()
