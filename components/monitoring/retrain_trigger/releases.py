"""Which model is in service: the release file of an environment, as the last promotion left it."""

from __future__ import annotations

from upath import UPath

from components.contracts.artifacts import Release
from components.contracts.platform import Platform


def current_release(platform: Platform, usecase: str) -> Release | None:
    """The released model of the platform's environment; None before the first promotion."""
    path = UPath(platform.gitops_repository) / "manifests" / "environments" / platform.environment / usecase / "release.json"
    return Release.model_validate_json(path.read_text()) if path.exists() else None
