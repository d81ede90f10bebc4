"""The images that serve a release in an environment, by digest: what was seen working there is what goes on to the next one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from ruamel.yaml import YAML

from components.contracts.artifacts import ImagePin, Release
from components.contracts.errors import CrisplineError
from components.deployment.gitops import GitRepository
from components.deployment.promotion import ImageName
from components.deployment.releases import usecase_folder
from pipelines.commands.choices import WrongUsage
from pipelines.images import pinned
from pipelines.runners.environments import ROOT

NAMES: tuple[ImageName, ...] = get_args(ImageName)


def served_images(repository: GitRepository, release: Release, given: Mapping[str, str]) -> dict[ImageName, ImagePin]:
    """By name: the digest that the caller gives, else that of the release, else that of the environment's values, asked of the registry for a tag.

    Raises WrongUsage for a name or a digest that is none, and CrisplineError when the registry does not show an image.
    """
    unknown = sorted(set(given) - set(NAMES))
    if unknown:
        raise WrongUsage(f"--image {unknown[0]}: there is no such image; there are {', '.join(NAMES)}")
    known = {name: _pin(given[name]) if name in given else release.images.get(name) for name in NAMES}
    if all(known.values()):
        return {name: pin for name, pin in known.items() if pin}
    content = repository.read_file(f"{usecase_folder(release.usecase, release.environment)}/values.yaml")
    chart = (ROOT / "charts" / "model-server" / "values.yaml").read_bytes()
    references = image_references(_images(chart), _images(content or b""))
    return {name: pin or _asked(name, references[name], release.environment) for name, pin in known.items()}


def image_references(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[ImageName, str]:
    """References as charts/model-server makes them, from `images` of its own values and of an environment's: `<registry>/<repository>@<digest>` or `:<tag>`."""
    common = {**defaults, **values}
    found: dict[ImageName, str] = {}
    for name in NAMES:
        image = {**defaults[name], **values.get(name, {})}
        version = f"@{image['digest']}" if image["digest"] else f":{image['tag'] or common['tag']}"
        found[name] = f"{common['registry']}/{image['repository']}{version}"
    return found


def _asked(name: str, reference: str, environment: str) -> ImagePin:
    digest = reference.partition("@")[2]
    if digest:
        return _pin(digest)
    try:
        return _pin(pinned(reference).partition("@")[2])
    except CrisplineError as error:
        raise CrisplineError(
            f"{environment} serves {reference}, and its digest is not known: {error}\n    remedy: set images.{name}.digest in its values.yaml, or give --image {name}=sha256:..."
        ) from error


def _images(content: bytes) -> dict[str, Any]:
    document = YAML(typ="safe").load(content.decode()) or {}
    return dict(document.get("images") or {})


def _pin(digest: str) -> ImagePin:
    try:
        return ImagePin(digest=digest)
    except ValidationError:
        raise WrongUsage(f"{digest!r} is no digest; write sha256: and 64 hexadecimal digits") from None
