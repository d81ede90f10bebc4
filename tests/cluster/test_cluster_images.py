"""What the images promise to the pods that run them: any user, a read-only root, nothing that a running step does not need, and an end at SIGTERM."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from components.environments.names import IMAGES
from pipelines.images import DOCKERFILE, RECIPES, image_files, layers, manifest
from tests.cluster.access import PATIENCE, Cluster
from tests.cluster.conftest import USECASE, Images

pytestmark = [pytest.mark.pipeline, pytest.mark.cluster]

LIMIT_MEGABYTES = 500
DIGEST = "import hashlib, json, os; from pathlib import Path; root = Path('/opt/crispline');"
LISTED = f"{DIGEST} print(json.dumps(sorted(str(f.relative_to(root)) for f in root.rglob('*') if f.is_file() and f.suffix != '.pyc')))"
TOOLS = "import shutil; print(*[tool for tool in ('gcc', 'cc', 'make', 'uv', 'curl', 'wget', 'ssh') if shutil.which(tool)])"
ENTRANCES = {
    "pipeline": ("kfp.dsl.executor_main", "pipelines.cli", "components.data_engineering.feature_server", "components.monitoring.retrain_trigger"),
    "serving": ("components.model_server.seldon", "components.model_server.forwarder"),
    "monitoring": ("kfp.dsl.executor_main", "components.monitoring.sidecar"),
    "tracking": ("mlflow",),
}


@pytest.fixture(scope="module")
def place(namespace: Callable[..., str]) -> str:
    return namespace("images")


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_the_files_that_its_tag_was_computed_from(kube: Cluster, images: Images, place: str, image: str) -> None:
    listed = kube.run_job(place, f"listed-{image}", images[image], ["-c", LISTED], command=["python"])
    assert listed.succeeded, listed.log
    assert json.loads(listed.log) == image_files(image, USECASE)


@pytest.mark.parametrize("image", IMAGES)
def test_every_program_starts_as_any_user_with_a_read_only_root(kube: Cluster, images: Images, place: str, image: str) -> None:
    for number, module in enumerate(ENTRANCES[image]):
        ended = kube.run_job(place, f"starts-{image}-{number}", images[image], [module, "--help"])
        assert ended.succeeded and "usage" in ended.log.lower(), f"{module}:\n{ended.log}"


@pytest.mark.parametrize("image", IMAGES)
def test_no_compiler_and_no_installer_is_in_an_image(kube: Cluster, images: Images, place: str, image: str) -> None:
    ended = kube.run_job(place, f"tools-{image}", images[image], ["-c", TOOLS], command=["python"])
    assert ended.succeeded and ended.log.split() == [], ended.log


@pytest.mark.parametrize("image", ["pipeline", "serving", "monitoring"])
def test_a_program_without_a_handler_ends_at_sigterm(kube: Cluster, images: Images, place: str, image: str) -> None:
    kube.run_pod(place, f"waits-{image}", images[image], ["http.server", "8000"])
    kube.core.delete_namespaced_pod(f"waits-{image}", place, grace_period_seconds=10 * int(PATIENCE))  # only then would the kubelet kill it
    kube.wait_for("the pod's end", lambda: kube.get("v1", "Pod", f"waits-{image}", place) is None)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_small_enough_as_its_registry_holds_it(images: Images, image: str) -> None:
    document = manifest(images[image])
    if document is None:
        pytest.skip(f"no registry shows {images[image]}; with a registry in CRISPLINE_IMAGE_REGISTRY its size is checked")
    assert sum(layer.size for layer in layers(document)) <= LIMIT_MEGABYTES * 1e6


def test_the_images_share_their_first_layers(images: Images) -> None:
    found = {image: manifest(images[image]) for image in IMAGES}
    if None in found.values():
        pytest.skip("no registry shows the images; with a registry in CRISPLINE_IMAGE_REGISTRY it is checked what they share")
    held = {image: {layer.digest: layer.size for layer in layers(document)} for image, document in found.items() if document}
    first = layers(found["pipeline"] or {})[0].digest
    assert all(first in each for each in held.values())
    assert RECIPES["tracking"].environment == "pipeline"
    common = sum(size for digest, size in held["pipeline"].items() if digest in held["tracking"])
    assert common >= 0.95 * sum(held["pipeline"].values()), f"all but code and use case is the same: see {DOCKERFILE}"
