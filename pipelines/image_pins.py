"""Images by digest in an environment's values: what the charts run there no longer depends on what a tag means."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from components.contracts.errors import CrisplineError
from components.contracts.storage import write_atomically
from components.environments.names import IMAGES
from pipelines.images import image_reference_of, pinned
from pipelines.runners.environments import ROOT

# The values that a person writes, relative to manifests/environments/<environment>/, and the chart that gets them.
VALUES: Final[Mapping[str, str]] = {
    "platform-values.yaml": "platform",
    "canary-controller.yaml": "canary-controller",
    "{usecase}/values.yaml": "model-server",
    "{usecase}/retrain-trigger.yaml": "retrain-trigger",
}


def pin_images(environment: str, usecase: str, registry: str = "", root: Path = ROOT) -> list[Path]:
    """Write registry and digests of this tree's images into the values of an environment; returns the files changed.

    Raises CrisplineError for an environment without values, and when the registry does not show an image; then nothing is written.
    """
    folder = root / "manifests" / "environments" / environment
    files = {folder / name.format(usecase=usecase): chart for name, chart in VALUES.items()}
    present = {file: chart for file, chart in files.items() if file.is_file()}
    if not present:
        raise CrisplineError(f"{folder} has no values of {usecase}; there should be {', '.join(name.format(usecase=usecase) for name in VALUES)}")
    wanted = {file: _images_of(root / "charts" / chart / "values.yaml") for file, chart in present.items()}
    references = {image: pinned(image_reference_of(image, usecase, registry, root)) for image in IMAGES if any(image in each for each in wanted.values())}
    changed = {file: _with_digests(file, {image: references[image] for image in images}) for file, images in wanted.items()}
    written = [file for file, content in changed.items() if content != file.read_text()]
    for file in written:
        write_atomically(file, changed[file].encode())
    return written


def _images_of(chart_values: Path) -> list[str]:
    images = YAML(typ="safe").load(chart_values)["images"]
    return [image for image in IMAGES if isinstance(images.get(image), Mapping)]


def _with_digests(file: Path, references: Mapping[str, str]) -> str:
    """The file's text with registry and digests set and everything else, comments included, as it was."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1_000_000
    document: Any = yaml.load(file) or {}
    images = document.setdefault("images", {})
    for image, reference in references.items():
        name, _, digest = reference.partition("@")
        images["registry"], repository = name.rsplit("/", 1)
        images.setdefault(image, {}).update({"repository": repository, "digest": digest})
    text = StringIO()
    yaml.dump(document, text)
    return text.getvalue()
