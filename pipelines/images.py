"""The images: what goes into each, the tag that follows from it, and the commands that build them.

A tag is `<use case>-<hash>`, the hash taken over every file of the image, the lock of its environment and the arguments of the build. An
image whose content did not change keeps its tag, so it is not built again, and Kubeflow Pipelines, which keys its cache by the image, goes
on using what it computed. Nothing here needs more than the command line's own environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from components.contracts.errors import CrisplineError
from components.environments.names import DEFAULT_REGISTRY, IMAGES, REGISTRY_VARIABLE, image_name, image_variable
from pipelines.runners.environments import ROOT

IMAGE_LOAD_VARIABLE: Final = "CRISPLINE_IMAGE_LOAD"
BUILD_AND_PUSH: Final = "docker build {context} -f {dockerfile} {arguments} -t {image} && docker push {image}"
DOCKERFILE: Final = "components/environments/Dockerfile"
STEP_IMAGES: Final = ("pipeline", "monitoring")

_HASH_DIGITS = 16
_CODE = ("components", "pipelines")
_LEFT_OUT = ("tests", "__pycache__")  # the same as .dockerignore; a test compares both with what an image holds
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


@dataclass(frozen=True)
class Recipe:
    """How the one Dockerfile makes an image. `groups`: dependency groups of the environment's uv project beside its dependencies."""

    environment: str
    groups: str = ""
    with_usecase: bool = True

    @property
    def target(self) -> str:
        return "usecase" if self.with_usecase else "bare"


RECIPES: Final[Mapping[str, Recipe]] = {
    "pipeline": Recipe("pipeline"),
    "serving": Recipe("serving"),
    "monitoring": Recipe("monitoring"),
    "tracking": Recipe("pipeline", groups="ui", with_usecase=False),
}


@dataclass(frozen=True)
class Layer:
    """A layer as a registry holds it; `size` in bytes, compressed."""

    digest: str
    size: int


def recipe_of(image: str) -> Recipe:
    """Raises CrisplineError for a name that is not in IMAGES."""
    if image not in RECIPES:
        raise CrisplineError(f"there is no image {image!r}; there are {', '.join(IMAGES)}")
    return RECIPES[image]


def image_files(image: str, usecase: str, root: Path = ROOT) -> list[str]:
    """What lies under /opt/crispline in an image, relative to the repository, in order. Raises CrisplineError for an unknown use case."""
    recipe = recipe_of(image)
    environments = root / "components" / "environments"
    found = [file for part in _CODE for file in _files(root / part) if not (file.is_relative_to(environments) and file.parent != environments)]
    found.extend(environments / recipe.environment / name for name in ("pyproject.toml", "uv.lock"))
    if recipe.with_usecase:
        folder = root / "usecases" / usecase
        if not usecase or not (folder / "usecase.yaml").is_file():
            raise CrisplineError(f"{folder / 'usecase.yaml'} does not exist; an image holds one use case out of usecases/, name it with --usecase")
        found.extend(_files(folder))
    return sorted(str(file.relative_to(root)) for file in found)


def image_tag(image: str, usecase: str, root: Path = ROOT) -> str:
    """`<use case>-<16 hex digits>`; of an image without a use case the digits alone."""
    recipe = recipe_of(image)
    digest = hashlib.sha256(json.dumps([image, recipe.environment, recipe.groups, usecase if recipe.with_usecase else ""]).encode())
    for name in [DOCKERFILE, ".dockerignore", *image_files(image, usecase, root)]:
        digest.update(f"{name}\0{hashlib.sha256((root / name).read_bytes()).hexdigest()}\n".encode())
    short = digest.hexdigest()[:_HASH_DIGITS]
    return f"{usecase}-{short}" if recipe.with_usecase else short


def image_reference_of(image: str, usecase: str, registry: str = "", root: Path = ROOT) -> str:
    """`<registry>/crispline-<image>:<tag>`. Without `registry` that of CRISPLINE_IMAGE_REGISTRY, else localhost:5000."""
    return f"{registry or os.environ.get(REGISTRY_VARIABLE, '') or DEFAULT_REGISTRY}/{image_name(image)}:{image_tag(image, usecase, root)}"


def step_image_variables(usecase: str, registry: str = "", digests: bool = False) -> dict[str, str]:
    """The variables under which a pipeline compiles for a use case: the images of its steps by tag, or by digest as the registry has them.

    They must be set before a component's module is imported. Raises CrisplineError when a digest is asked for of an image that is not there.
    """
    references = {image: image_reference_of(image, usecase, registry) for image in STEP_IMAGES}
    return {image_variable(image): pinned(reference) if digests else reference for image, reference in references.items()}


def build_arguments(image: str, usecase: str, root: Path = ROOT) -> list[str]:
    """What `docker build` and `buildah bud` take beside context, file and name."""
    recipe = recipe_of(image)
    values = {
        "ENVIRONMENT": recipe.environment,
        "GROUPS": recipe.groups,
        "USECASE": usecase if recipe.with_usecase else "",
        "NAME": image_name(image),
        "VERSION": image_tag(image, usecase, root),
        "REVISION": _git(root, "rev-parse", "HEAD"),
        "SOURCE": _git(root, "config", "--get", "remote.origin.url"),
    }
    return [*(part for name, value in values.items() if value for part in ("--build-arg", f"{name}={value}")), "--target", recipe.target]


def build(image: str, usecase: str, registry: str = "", template: str = "", again: bool = False, root: Path = ROOT) -> str:
    """Build an image with the command `template` and return its reference; one that the registry already has is left as it is.

    `template` (default: CRISPLINE_IMAGE_LOAD, else docker build and docker push) is a line for bash with the placeholders {context},
    {dockerfile}, {arguments} and {image}. `again`: build in any case. Raises CrisplineError when the command fails.
    """
    reference = image_reference_of(image, usecase, registry, root)
    if not again and manifest(reference) is not None:
        return reference
    line = (template or os.environ.get(IMAGE_LOAD_VARIABLE, "") or BUILD_AND_PUSH).format(
        context=shlex.quote(str(root)),
        dockerfile=shlex.quote(str(root / DOCKERFILE)),
        arguments=shlex.join(build_arguments(image, usecase, root)),
        image=shlex.quote(reference),
    )
    done = subprocess.run(["bash", "-c", line], cwd=root, check=False)
    if done.returncode != 0:
        raise CrisplineError(f"{image_name(image)} was not built: exit code {done.returncode} of\n    {line}")
    return reference


def manifest(reference: str) -> dict[str, Any] | None:
    """The manifest of an image as its registry holds it; None where there is none, or where the registry cannot be asked without credentials.

    A registry on this machine is asked by HTTP, any other by HTTPS. Of an index the manifest for linux/amd64 is read.
    """
    found = _get_manifest(reference)
    if found is None:
        return None
    document, digest = found
    if "manifests" in document:
        wanted = [each for each in document["manifests"] if each.get("platform", {}).get("architecture") == "amd64"]
        nested = _get_manifest(f"{reference.rsplit(':', 1)[0]}@{wanted[0]['digest']}") if wanted else None
        if nested is None:
            return None
        document = nested[0]
    return {**document, "digest": digest}


def pinned(reference: str) -> str:
    """The same image by digest. Raises CrisplineError when the registry does not show it."""
    found = manifest(reference)
    if found is None:
        raise CrisplineError(f"the registry has no {reference}, or does not show it without credentials; build it with `crispline images build`")
    return f"{reference.rsplit(':', 1)[0]}@{found['digest']}"


def layers(document: Mapping[str, Any]) -> list[Layer]:
    return [Layer(each["digest"], each["size"]) for each in document["layers"]]


def _get_manifest(reference: str) -> tuple[dict[str, Any], str] | None:
    registry, _, rest = reference.partition("/")
    name, _, version = rest.partition("@") if "@" in rest else rest.rpartition(":")
    scheme = "http" if registry.split(":")[0] in ("localhost", "127.0.0.1") else "https"
    request = urllib.request.Request(f"{scheme}://{registry}/v2/{name}/manifests/{version}", headers={"Accept": ", ".join(_MANIFESTS)})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            content: bytes = answer.read()
            return json.loads(content), answer.headers.get("Docker-Content-Digest") or f"sha256:{hashlib.sha256(content).hexdigest()}"
    except (urllib.error.URLError, OSError, ValueError):
        return None


def _files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name in _LEFT_OUT or entry.suffix == ".pyc":
            continue
        if entry.is_dir():
            yield from _files(entry)
        else:
            yield entry


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "--no-optional-locks", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def sizes(references: Mapping[str, str]) -> dict[str, list[Layer]]:
    """The layers of each image that its registry shows."""
    found = {image: manifest(reference) for image, reference in references.items()}
    return {image: layers(document) for image, document in found.items() if document is not None}


def shared(found: Mapping[str, Sequence[Layer]]) -> dict[str, int]:
    """Bytes of each layer that more than one of the images holds, by digest."""
    counts: dict[str, int] = {}
    for each in found.values():
        for digest in {layer.digest for layer in each}:
            counts[digest] = counts.get(digest, 0) + 1
    return {layer.digest: layer.size for each in found.values() for layer in each if counts[layer.digest] > 1}
