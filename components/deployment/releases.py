"""What is, and was, released: the commits of `manifests/environments/<environment>/<usecase>/release.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from components.contracts.artifacts import Release
from components.contracts.errors import IntegrityError
from components.contracts.platform import Platform
from components.deployment.gitops import FileVersion, GitRepository

Kind = Literal["promotion", "rollback"]
KIND_TRAILER = "Crispline-Kind"
ENVIRONMENTS_FOLDER = "manifests/environments"
RELEASE_FILE, CANARY_FILE, PLATFORM_FILE = "release.json", "canary.yaml", "platform.yaml"
NOTHING_RELEASED = b"{}\n"  # what an environment's file holds before the first promotion, so that it can be named to Helm


@dataclass(frozen=True)
class Deployed:
    """One commit that put a release into force, or on a branch proposed to. `proposal`: that branch; `pull_request`: its page at the forge."""

    commit: str
    kind: Kind
    release: Release
    proposal: str = ""
    pull_request: str = ""


def repository_of(platform: Platform) -> GitRepository:
    """The GitOps repository of a platform."""
    return GitRepository(platform.gitops_repository, platform.gitops_branch)


def usecase_folder(usecase: str, environment: str) -> str:
    """Folder of a use case in an environment inside the GitOps repository: the only files that promotion and canary touch."""
    return f"{ENVIRONMENTS_FOLDER}/{environment}/{usecase}"


def release_path(usecase: str, environment: str) -> str:
    """Path of the release file inside the GitOps repository."""
    return f"{usecase_folder(usecase, environment)}/{RELEASE_FILE}"


def current_release(platform: Platform, usecase: str, environment: str) -> Release | None:
    """The committed release of an environment; None before the first promotion. Raises IntegrityError when the file is none of ours."""
    return release_in(repository_of(platform), usecase, environment)


def release_history(platform: Platform, usecase: str, environment: str, branch: str = "") -> list[Deployed]:
    """Every promotion and rollback of an environment, newest first."""
    return history_in(repository_of(platform), usecase, environment, branch)


def release_in(repository: GitRepository, usecase: str, environment: str) -> Release | None:
    """`current_release` as a repository has it."""
    path = release_path(usecase, environment)
    return released(repository.read_file(path), path)


def history_in(repository: GitRepository, usecase: str, environment: str, branch: str = "") -> list[Deployed]:
    """`release_history` as a repository has it; with `branch`, that of a proposal."""
    path = release_path(usecase, environment)
    return [_deployed(version, path, branch) for version in repository.history(path, branch) if released(version.content, path)]


def _deployed(version: FileVersion, path: str, branch: str) -> Deployed:
    kind: Kind = "rollback" if version.trailers.get(KIND_TRAILER) == "rollback" else "promotion"
    return Deployed(version.commit, kind, parse_release(version.content, path), branch)


def released(content: bytes | None, path: str) -> Release | None:
    """The release that a file names; None for no file, and for one that says that nothing is released. Raises IntegrityError as `parse_release`."""
    return None if content is None or content.strip() in (b"", NOTHING_RELEASED.strip()) else parse_release(content, path)


def parse_release(content: bytes, path: str) -> Release:
    """A release file's content. Raises IntegrityError when it is none of ours; `path` is for the message."""
    try:
        return Release.model_validate_json(content)
    except ValidationError as error:
        raise IntegrityError(f"{path} in the GitOps repository is not a release ({error.error_count()} faults); restore it from its history") from error


def release_content(release: Release) -> bytes:
    """The file's bytes: one value a line, so that a review shows what changes."""
    return (release.model_dump_json(indent=2) + "\n").encode()
