"""The init container's work: a whole, verified release or nothing, and patience with a store only."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.contracts.artifacts import ReleaseManifest
from components.contracts.errors import IntegrityError
from components.contracts.platform import PLATFORM_VARIABLE, Platform
from components.deployment.bundle import open_bundle
from components.deployment.tests.example_release import build_release
from components.model_server import fetch_release as module
from components.model_server.fetch_release import StoreUnreachable, fetch_release, main

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    bundles = tmp_path_factory.mktemp("store") / "bundles"
    return bundles, build_release(bundles)


def test_the_folder_holds_the_release_and_the_pod_can_go_on(
    store: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles, release = store
    platform = Platform.embedded(tmp_path / "state").model_copy(update={"bundles_uri": str(bundles)})
    (tmp_path / "platform.json").write_text(platform.model_dump_json())
    monkeypatch.setenv(PLATFORM_VARIABLE, str(tmp_path / "platform.json"))
    arguments = ["--release", release, "--usecase", "flights", "--destination", str(tmp_path / "release" / release)]
    assert main(arguments) == 0
    assert open_bundle(tmp_path / "release" / release)[0] == release
    assert "files verified" in capsys.readouterr().out
    assert main(arguments) == 0, "a container that is restarted finds its release"


def test_a_changed_file_ends_it_at_once_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundles, destination = tmp_path / "bundles", tmp_path / "release"
    release = build_release(bundles)
    manifest = ReleaseManifest.model_validate_json((bundles / release[:2] / release).read_text())
    digest = manifest.files["model.ubj"]
    (bundles / digest[:2] / digest).write_bytes(b"another model")
    assert main(["--release", release, "--usecase", "flights", "--destination", str(destination), "--bundles-uri", str(bundles)]) == 4
    assert digest in capsys.readouterr().err
    assert not destination.exists()


def test_another_use_cases_release_is_refused(store: tuple[Path, str], tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not 'trains'"):
        fetch_release(str(store[0]), store[1], tmp_path / "release", "trains", 1)


def test_a_release_that_was_never_published_is_refused_at_once(store: tuple[Path, str], tmp_path: Path) -> None:
    pauses: list[float] = []
    with pytest.raises(IntegrityError, match="was the release published"):
        fetch_release(str(store[0]), "0" * 64, tmp_path / "release", "flights", 300, sleep=pauses.append)
    assert pauses == []


def test_a_store_that_comes_back_is_waited_for(store: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def away_twice(uri: str, release: str) -> ReleaseManifest:
        if len(pauses) < 2:
            raise ConnectionError("nobody there")
        return read(uri, release)

    read = module.read_manifest
    monkeypatch.setattr(module, "read_manifest", away_twice)
    assert fetch_release(str(store[0]), store[1], tmp_path / "release", "flights", 300, sleep=pauses.append).usecase == "flights"
    assert pauses == [0.5, 1.0]


def test_a_store_that_stays_away_is_given_up_in_time(store: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def away(uri: str, release: str) -> ReleaseManifest:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(module, "read_manifest", away)
    with pytest.raises(StoreUnreachable, match="remedy: check bundles_uri"):
        fetch_release(str(store[0]), store[1], tmp_path / "release", "flights", 60, clock=lambda: now[0], sleep=sleep)
    assert 40 < now[0] <= 60
