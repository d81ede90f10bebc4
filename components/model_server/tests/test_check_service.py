"""`helm test`'s check against a real server, and against services that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.contracts.serving import ServingContract
from components.deployment.bundle import open_bundle
from components.model_server.check_service import CheckFailed, check_service, main
from components.model_server.tests.processes import HttpEnd, free_port, http_end

pytestmark = pytest.mark.serving
NOW = datetime(2013, 4, 1, 10, tzinfo=UTC)


@pytest.fixture
def contract(release_folder: Path) -> ServingContract:
    return ServingContract.model_validate_json((release_folder / "serving.json").read_text())


def check(url: str, contract: ServingContract, release: str) -> list[str]:
    with httpx.Client() as client:
        return check_service(url, contract, [release], client, NOW)


def test_a_server_that_does_what_its_release_promises_passes(server: str, contract: ServingContract, release_folder: Path) -> None:
    prediction, refusal = check(server, contract, open_bundle(release_folder)[0])
    assert "a prediction: 0." in prediction and "422" in refusal


def test_another_release_than_the_promised_one_fails(server: str, contract: ServingContract) -> None:
    with pytest.raises(CheckFailed, match="expected 000000000000"):
        check(server, contract, "0" * 64)


def answered_by(end: HttpEnd, answer: Callable[[dict[str, Any]], tuple[int, Any]]) -> str:
    end.answer = answer
    return end.url


def test_a_server_that_accepts_what_is_wrong_fails(server: str, contract: ServingContract, release_folder: Path) -> None:
    good: list[Any] = []

    def lenient(document: dict[str, Any]) -> tuple[int, Any]:
        if not good:
            good.append(httpx.post(f"{server}/api/v1.0/predictions", json=document).json())
        return 200, good[0]

    with http_end() as end, pytest.raises(CheckFailed, match="was answered with 200"):
        check(answered_by(end, lenient), contract, open_bundle(release_folder)[0])


@pytest.mark.parametrize(("answer", "complaint"), [((503, {"status": {}}), "answered with 503"), ((200, {"data": {}}), "the answer is none")])
def test_a_service_that_does_not_predict_fails(contract: ServingContract, answer: tuple[int, Any], complaint: str) -> None:
    with http_end() as end, pytest.raises(CheckFailed, match=complaint):
        check(answered_by(end, lambda _: answer), contract, "0" * 64)


def test_nobody_there_is_exit_code_1_with_the_address(release_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from components.deployment.tests.example_release import build_release

    release = build_release(tmp_path / "bundles")
    url = f"http://127.0.0.1:{free_port()}"
    arguments = ["--url", url, "--usecase", "flights", "--release", release, "--bundles-uri", str(tmp_path / "bundles"), "--wait-seconds", "0"]
    assert main(arguments) == 1
    assert f"{url} does not answer" in capsys.readouterr().err
