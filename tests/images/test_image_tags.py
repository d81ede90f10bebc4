"""Tags follow from the content of an image and from nothing else; what a registry has is not built again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError
from components.environments.names import IMAGES, environment_of_image
from pipelines.image_pins import pin_images
from pipelines.images import (
    RECIPES,
    build,
    build_arguments,
    image_files,
    image_reference_of,
    image_tag,
    layers,
    manifest,
    pinned,
    shared,
    sizes,
    step_image_variables,
)
from pipelines.runners.environments import ROOT

USECASE = "flights"


def _copy(root: Path) -> Path:
    """What an image can hold, and files beside it."""
    for name in ("components", "pipelines", "usecases"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    shutil.copy2(ROOT / ".dockerignore", root)
    (root / "README.md").write_text("read me")
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return _copy(tmp_path / "repository")


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _copy(tmp_path_factory.mktemp("changing") / "repository")


def _tags(root: Path, usecase: str = USECASE) -> dict[str, str]:
    return {image: image_tag(image, usecase, root) for image in IMAGES}


def _changed(root: Path, name: str) -> set[str]:
    """The images whose tag another byte in a file changes."""
    before = _tags(root)
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text((file.read_text() if file.exists() else "") + "\n# another byte\n")
    after = _tags(root)
    return {image for image in IMAGES if before[image] != after[image]}


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("components/evaluation/gates.py", set(IMAGES)),
        ("pipelines/training.py", set(IMAGES)),
        ("components/environments/Dockerfile", set(IMAGES)),
        (".dockerignore", set(IMAGES)),
        ("components/environments/pipeline/uv.lock", {"pipeline", "tracking"}),
        ("components/environments/serving/uv.lock", {"serving"}),
        ("components/environments/monitoring/pyproject.toml", {"monitoring"}),
        ("usecases/flights/source.py", {"pipeline", "serving", "monitoring"}),
        ("usecases/flights/requirements/pipeline.txt", {"pipeline", "serving", "monitoring"}),
        ("usecases/flights/notes/new.md", {"pipeline", "serving", "monitoring"}),
        ("usecases/another/usecase.yaml", set()),
        ("components/evaluation/tests/test_evaluation_gates.py", set()),
        ("components/evaluation/__pycache__/gates.cpython-312.pyc", set()),
        ("components/environments/pipeline/.venv/lib/some.py", set()),
        ("README.md", set()),
        ("charts/model-server/values.yaml", set()),
    ],
)
def test_a_file_changes_the_tags_of_the_images_that_hold_it(changing: Path, name: str, images: set[str]) -> None:
    assert _changed(changing, name) == images


def test_a_commit_changes_no_tag(repository: Path) -> None:
    before = _tags(repository)
    git = ["git", "-C", str(repository), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "all of it"], check=True)
    assert _tags(repository) == before
    assert len(next(value for value in build_arguments("pipeline", USECASE, repository) if value.startswith("REVISION=")).removeprefix("REVISION=")) == 40


def test_copies_at_other_places_and_times_have_the_same_tags(repository: Path) -> None:
    for file in repository.rglob("*.py"):
        os.utime(file, (0, 0))
    assert _tags(repository) == {image: image_tag(image, USECASE) for image in IMAGES}


def test_each_use_case_has_tags_of_its_own_and_the_tracking_server_serves_all(repository: Path) -> None:
    shutil.copytree(repository / "usecases" / USECASE, repository / "usecases" / "another")
    ours, theirs = _tags(repository), _tags(repository, "another")
    assert all(tag.startswith(f"{USECASE}-") for image, tag in ours.items() if RECIPES[image].with_usecase)
    assert {image for image in IMAGES if ours[image] == theirs[image]} == {"tracking"}


def test_an_image_holds_one_environments_lock_and_no_test() -> None:
    files = image_files("monitoring", USECASE)
    assert [name for name in files if name.endswith("uv.lock")] == ["components/environments/monitoring/uv.lock"]
    assert "components/environments/names.py" in files and "usecases/flights/usecase.yaml" in files
    assert not [name for name in files if "/tests/" in name or "/." in name or name.endswith(".pyc")]


def test_what_is_named_by_mistake_is_refused() -> None:
    with pytest.raises(CrisplineError, match="there is no image 'trainer'; there are pipeline, serving, monitoring, tracking"):
        image_tag("trainer", USECASE)
    with pytest.raises(CrisplineError, match=r"usecases/trains/usecase\.yaml does not exist"):
        image_tag("pipeline", "trains")


def test_a_reference_leads_back_to_its_environment_by_tag_and_by_digest() -> None:
    reference = image_reference_of("monitoring", USECASE, "ghcr.io/acme")
    assert reference == f"ghcr.io/acme/crispline-monitoring:{image_tag('monitoring', USECASE)}"
    assert environment_of_image(reference) == environment_of_image("localhost:5000/crispline-monitoring@sha256:00") == "monitoring"


class Registry(ThreadingHTTPServer):
    """Answers with the manifests that it was given, by `<name>:<tag>`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Manifests)
        self.manifests: dict[str, dict[str, object]] = {}

    @property
    def place(self) -> str:
        return f"localhost:{self.server_address[1]}"


class _Manifests(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        _, _, name, _, version = self.path.split("/")
        document = self.server.manifests.get(f"{name}:{version}")
        content = json.dumps(document or {"errors": []}).encode()
        self.send_response(200 if document else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _manifest(*sizes: int) -> dict[str, object]:
    return {"schemaVersion": 2, "layers": [{"digest": f"sha256:{size}", "size": size} for size in sizes]}


def test_an_image_that_the_registry_has_is_not_built(registry: Registry, tmp_path: Path) -> None:
    reference = image_reference_of("pipeline", USECASE, registry.place)
    registry.manifests[reference.split("/", 1)[1]] = _manifest(1)
    mark = tmp_path / "built"
    assert build("pipeline", USECASE, registry.place, f"touch {mark}") == reference
    assert not mark.exists()
    build("pipeline", USECASE, registry.place, f"touch {mark}", again=True)
    assert mark.exists()


def test_the_command_gets_context_dockerfile_arguments_and_image(registry: Registry, tmp_path: Path, repository: Path) -> None:
    said = tmp_path / "said"
    reference = build("tracking", USECASE, registry.place, f"printf '%s\\n' {{context}} {{dockerfile}} {{arguments}} {{image}} > {said}", root=repository)
    lines = said.read_text().splitlines()
    assert lines[:2] == [str(repository), str(repository / "components/environments/Dockerfile")]
    assert lines[-1] == reference == image_reference_of("tracking", USECASE, registry.place, repository)
    arguments = dict(line.split("=", 1) for line in lines if "=" in line)
    assert arguments["ENVIRONMENT"] == "pipeline" and arguments["GROUPS"] == "ui" and "USECASE" not in arguments
    assert lines[lines.index("--target") + 1] == "bare"


def test_a_command_that_fails_is_an_error_with_the_command(registry: Registry) -> None:
    with pytest.raises(CrisplineError, match=r"crispline-serving was not built: exit code 3 of\n    exit 3"):
        build("serving", USECASE, registry.place, "exit 3")


def test_without_a_registry_an_image_counts_as_absent() -> None:
    assert manifest("localhost:1/crispline-pipeline:x") is None


def test_a_release_names_digests(registry: Registry) -> None:
    references = [image_reference_of(image, USECASE, registry.place) for image in ("pipeline", "monitoring")]
    with pytest.raises(CrisplineError, match="crispline images build"):
        pinned(references[0])
    for number, reference in enumerate(references):
        registry.manifests[reference.split("/", 1)[1]] = _manifest(number)
    digests = [hashlib.sha256(json.dumps(_manifest(number)).encode()).hexdigest() for number in range(2)]
    assert step_image_variables(USECASE, registry.place, digests=True) == {
        "CRISPLINE_IMAGE_PIPELINE": f"{registry.place}/crispline-pipeline@sha256:{digests[0]}",
        "CRISPLINE_IMAGE_MONITORING": f"{registry.place}/crispline-monitoring@sha256:{digests[1]}",
    }


def test_of_an_index_the_manifest_for_the_platform_counts(registry: Registry) -> None:
    registry.manifests["crispline-pipeline:x"] = {"manifests": [{"digest": "sha256:arm", "platform": {"architecture": "arm64"}}, {"digest": "sha256:amd", "platform": {"architecture": "amd64"}}]}  # fmt: skip
    registry.manifests["crispline-pipeline:sha256:amd"] = _manifest(7)
    found = manifest(f"{registry.place}/crispline-pipeline:x")
    assert found is not None and [layer.size for layer in layers(found)] == [7]


def test_what_images_share_is_told_by_layer(registry: Registry) -> None:
    registry.manifests |= {"a:1": _manifest(10, 20), "b:1": _manifest(10, 30)}
    found = sizes({"a": f"{registry.place}/a:1", "b": f"{registry.place}/b:1", "absent": f"{registry.place}/c:1"})
    assert set(found) == {"a", "b"} and shared(found) == {"sha256:10": 10}


def _environment(root: Path) -> Path:
    folder = root / "manifests" / "environments" / "dev"
    (folder / USECASE).mkdir(parents=True)
    (folder / "platform-values.yaml").write_text("# what is installed\nimages:\n  registry: ghcr.io/example   # ours\nredis: {maxMemory: 256mb}\n")
    (folder / USECASE / "values.yaml").write_text('usecase: flights\nreplicas: 2   # two\nimages: {registry: ghcr.io/example, serving: {tag: "1"}}\n')
    for chart in ("platform", "model-server", "retrain-trigger", "canary-controller"):
        (root / "charts" / chart).mkdir(parents=True)
        shutil.copy2(ROOT / "charts" / chart / "values.yaml", root / "charts" / chart)
    return folder


def test_pinning_writes_registry_and_digests_and_leaves_the_rest_as_it_was(registry: Registry, repository: Path) -> None:
    folder = _environment(repository)
    for number, image in enumerate(IMAGES):
        registry.manifests[image_reference_of(image, USECASE, registry.place, repository).split("/", 1)[1]] = _manifest(number)
    digest = {image: f"sha256:{hashlib.sha256(json.dumps(_manifest(number)).encode()).hexdigest()}" for number, image in enumerate(IMAGES)}
    assert pin_images("dev", USECASE, registry.place, repository) == [folder / "platform-values.yaml", folder / USECASE / "values.yaml"]
    platform, values = (folder / "platform-values.yaml").read_text(), (folder / USECASE / "values.yaml").read_text()
    assert "# what is installed\n" in platform and "redis: {maxMemory: 256mb}" in platform and "replicas: 2   # two" in values
    assert f"registry: {registry.place}" in platform and digest["pipeline"] in platform and digest["tracking"] in platform
    assert digest["serving"] in values and digest["monitoring"] in values and 'tag: "1"' in values and digest["pipeline"] not in values
    assert pin_images("dev", USECASE, registry.place, repository) == []


def test_nothing_is_pinned_while_an_image_is_missing_from_the_registry(registry: Registry, repository: Path) -> None:
    folder = _environment(repository)
    before = (folder / "platform-values.yaml").read_text()
    registry.manifests[image_reference_of("pipeline", USECASE, registry.place, repository).split("/", 1)[1]] = _manifest(1)
    with pytest.raises(CrisplineError, match="the registry has no"):
        pin_images("dev", USECASE, registry.place, repository)
    assert (folder / "platform-values.yaml").read_text() == before
    with pytest.raises(CrisplineError, match="has no values of flights"):
        pin_images("nowhere", USECASE, registry.place, repository)
