"""The server against Feast's own feature server, which runs in its own environment, over real HTTP."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.contracts.platform import PLATFORM_VARIABLE
from components.model_server.tests.processes import FEATURES, FIELDS, body, free_port, keyed_row, model_server, wait_until
from pipelines.runners.environments import interpreter

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module")
def feast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    state = tmp_path_factory.mktemp("feast")
    python, script = str(interpreter("pipeline")), Path(__file__).with_name("publish_features.py")
    environment = os.environ | {"FEAST_USAGE": "False", PLATFORM_VARIABLE: str(state / "platform.json")}
    subprocess.run([python, str(script), str(state)], check=True, env=environment, timeout=120, capture_output=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (state / "log").open("wb") as log:
        running = subprocess.Popen([python, "-m", "components.data_engineering.feature_server", "--port", str(port)], env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: healthy(url) or running.poll() is not None, 90)
        assert running.poll() is None, (state / "log").read_text()
        yield url
    finally:
        running.terminate()
        running.wait(20)


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def answers(feast: str, release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One batch of rows that Feast knows, knows in part, and does not know."""
    rows = {
        "known": {**keyed_row("known"), "prediction_moment": "2013-04-01T10:30:00Z", "event_time": "2013-04-01T12:30:00Z"},
        "next tick": {**keyed_row("next tick"), "prediction_moment": "2013-04-01T11:00:00Z", "event_time": "2013-04-01T13:00:00Z"},
        "before": {**keyed_row("before"), "prediction_moment": "2013-03-31T23:00:00Z", "event_time": "2013-04-01T01:00:00Z"},
        "no plane": keyed_row("no plane", keys={"origin": "JFK", "route": "JFK-BOS", "carrier_origin": "AA-JFK"}),
        "stale": {**keyed_row("stale"), "prediction_moment": "2013-04-05T10:00:00Z", "event_time": "2013-04-05T12:00:00Z"},
    }
    with model_server(release_folder, tmp_path_factory.mktemp("log") / "log", "--feature-server-url", feast) as (url, _):
        answer = httpx.post(f"{url}/predict", json=body(*rows.values()), timeout=30)
    assert answer.status_code == 200, answer.text
    return {row["entity"]: row for row in answer.json()["jsonData"]["predictions"]}


def of(row: dict[str, Any], view: str) -> dict[str, Any]:
    found = next(each for each in FEATURES.views if each.name == view)
    return {name: row["features"][name] for name in found.feature_names} | {"at": row["feature_times"][found.served_name]}


def test_published_values_arrive_with_their_event_times(answers: dict[str, Any]) -> None:
    row = answers["known"]
    assert of(row, "airport_weather") == {
        "temp": 0.0,
        "humid": 0.125,
        "wind_speed": 0.25,
        "precip": 0.375,
        "pressure": 0.5,
        "visib": None,
        "at": "2013-04-01T10:00:00Z",
    }
    assert of(row, "plane") == {"built": 0.0, "seats": 3.5, "at": "2013-04-01T00:00:00Z"}
    assert {name: row["features"][name] for name in FIELDS} == FIELDS and row["warnings"] == []


def test_a_tick_that_is_not_published_is_missing(answers: dict[str, Any]) -> None:
    row = answers["next tick"]
    assert set(of(row, "airport_weather").values()) == {None} and of(row, "plane")["seats"] == 3.5
    assert "airport_weather: nothing is published for the key; its features are missing" in row["warnings"]


def test_what_was_published_after_the_prediction_moment_is_not_used(answers: dict[str, Any]) -> None:
    row = answers["before"]
    assert of(row, "plane") == {"built": None, "seats": None, "at": "2013-04-01T00:00:00Z"}
    assert "plane: published 1h after the prediction moment; its features are missing" in row["warnings"]


def test_a_row_without_a_key_misses_only_what_is_behind_it(answers: dict[str, Any]) -> None:
    row = answers["no plane"]
    assert of(row, "plane")["seats"] is None and of(row, "route_history")["route_late_share"] == 3.5


def test_a_stale_value_is_missing_and_a_slower_view_is_not(answers: dict[str, Any]) -> None:
    row = answers["stale"]
    assert of(row, "carrier_history")["carrier_delay_1d"] is None and of(row, "route_history")["route_late_share"] == 3.5
    assert any(text.startswith("carrier_history: stale, 106h old where 3d are allowed") for text in row["warnings"]), row["warnings"]
