"""A model server process of a small real release, and the feature server's place beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from components.deployment.bundle import fetch_bundle
from components.deployment.tests.example_release import build_release
from components.model_server.tests.processes import HttpEnd, feast_answer, http_end, model_server


@pytest.fixture(scope="session")
def release_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("release")
    release = build_release(root / "bundles")
    fetch_bundle(str(root / "bundles"), release, root / "folder")
    return root / "folder"


@pytest.fixture(scope="session")
def feature_end() -> Iterator[HttpEnd]:
    with http_end() as end:
        end.answer = lambda document: (200, feast_answer(document))
        yield end


@pytest.fixture(scope="session")
def server(release_folder: Path, feature_end: HttpEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("server") / "log"
    with model_server(release_folder, log, "--feature-server-url", feature_end.url) as (url, _):
        yield url
        assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=10) as client:
        yield client
