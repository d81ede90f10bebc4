"""The Seldon server as a process: answers, numbers, readiness, the feature server's failures, the clock's skew, SIGTERM."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.deployment.bundle import fetch_bundle
from components.deployment.tests.example_release import build_release
from components.model_server.scoring import ScoringModel
from components.model_server.tests.processes import FEATURES, FIELDS, HttpEnd, body, feast_answer, free_port, full_row, http_end, keyed_row, model_server

pytestmark = pytest.mark.serving


def rows_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["jsonData"]["predictions"]
    return rows


def test_the_answered_features_are_those_that_the_model_received(client: httpx.Client, release_folder: Path) -> None:
    rows = rows_of(client.post("/predict", json=body(full_row(), full_row(temp=None, carrier="ZZ"), keyed_row())))
    model = ScoringModel.load(release_folder)
    again = model.predict_probability(pd.DataFrame([row["features"] for row in rows], columns=list(model.feature_names), dtype=object))
    assert [row["probability"] for row in rows] == list(again)
    assert [list(row["features"]) for row in rows] == [list(FEATURES.feature_names)] * 3


def test_looked_up_features_carry_their_event_times(client: httpx.Client) -> None:
    (row,) = rows_of(client.post("/predict", json=body(keyed_row())))
    assert row["features"] == {**FIELDS, **{name: 0.25 for name in FEATURES.feature_names if name not in FIELDS}}
    assert set(row["feature_times"].values()) == {"2013-04-01T09:00:00Z"}
    assert set(row["feature_times"]) == {view.served_name for view in FEATURES.views}


def test_an_answer_says_who_answered_and_is_numbered_without_gaps(client: httpx.Client) -> None:
    first = client.post("/predict", json=body(full_row(), full_row()), headers={"Seldon-Puid": "abc"}).json()["jsonData"]
    refused = client.post("/predict", json=body(full_row(distance="far")))
    second = client.post("/predict", json=body(full_row())).json()["jsonData"]
    assert refused.status_code == 422
    assert [row["id"] for row in first["predictions"]] == ["abc-0", "abc-1"]
    assert second["sequence"] == first["sequence"] + 1 and second["instance"] == first["instance"]
    assert first["model"]["model_version"] == "model-7" and len(first["model"]["release"]) == 64


def test_numbers_have_no_gap_under_load(client: httpx.Client, server: str) -> None:
    numbers: list[int] = []

    def ask() -> None:
        for turn in range(15):
            answer = httpx.post(f"{server}/predict", json=body(full_row(distance="far" if turn % 3 else 100.0)))
            if answer.status_code == 200:
                numbers.append(answer.json()["jsonData"]["sequence"])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + 30))


def test_contributions_come_on_request_and_sum_to_the_log_odds(client: httpx.Client, release_folder: Path) -> None:
    (row,) = rows_of(client.post("/predict", json=body(full_row(), explain=True)))
    (plain,) = rows_of(client.post("/predict", json=body(full_row())))
    raw = ScoringModel.load(release_folder).raw_probability(pd.DataFrame([row["features"]]))[0]
    assert sum(row["contributions"].values()) == pytest.approx(math.log(raw / (1 - raw)), abs=1e-4)
    assert plain["contributions"] is None


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        (full_row(distance=9000.0), "distance: 9000.0 is outside"),
        (full_row(carrier="ZZ"), "carrier: 'ZZ' is not a category"),
        ({**full_row(), "event_time": "2013-04-01T11:00:00Z"}, "prediction_moment: 1h before the event"),
        (keyed_row(keys={"origin": "JFK", "route": "JFK-BOS", "carrier_origin": "AA-JFK"}), "tailnum: no key given"),
    ],
)
def test_what_is_odd_but_possible_is_answered_with_a_warning(client: httpx.Client, row: dict[str, Any], warning: str) -> None:
    (answer,) = rows_of(client.post("/predict", json=body(row)))
    assert any(text.startswith(warning) for text in answer["warnings"]), answer["warnings"]


def test_nan_in_a_nullable_feature_is_missing(client: httpx.Client) -> None:
    (answer,) = rows_of(client.post("/predict", content=json.dumps(body(full_row(temp=float("nan")))), headers={"content-type": "application/json"}))
    assert answer["features"]["temp"] is None and answer["warnings"] == rows_of(client.post("/predict", json=body(full_row(temp=None))))[0]["warnings"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=8), part, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["entity", "prediction_moment", "event_time", "features", "keys", "fields"])


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A valid message of which one part, at any depth, is replaced, added or removed."""
    message = draw(st.sampled_from([body(full_row()), body(keyed_row()), body(full_row(), keyed_row(), explain=True)]))
    message = json.loads(json.dumps(message))
    part: Any = message
    for _ in range(draw(st.integers(0, 4))):
        children = [key for key in (part if isinstance(part, dict) else range(len(part))) if isinstance(part[key], dict | list)]
        if not children:
            break
        part = part[draw(st.sampled_from(children))]
    value = draw(JSON)
    if isinstance(part, list):
        part.append(value)
    elif draw(st.booleans()) and part:
        del part[draw(st.sampled_from(sorted(part)))]
    else:
        part[draw(st.sampled_from(sorted(part)) | st.text(max_size=8) if part else st.text(max_size=8))] = value
    return message


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(message=JSON | damaged())
def test_no_json_ever_gets_a_5xx_or_a_silent_answer(client: httpx.Client, message: Any) -> None:
    answer = client.post("/api/v1.0/predictions", content=json.dumps(message), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 413, 422), answer.text
    assert answer.status_code == 200 or "field" in answer.json()["status"]
    json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"the answer holds {name}, which is not JSON"))


def test_keys_and_ticks_are_asked_for_as_of_the_prediction_moment(client: httpx.Client, feature_end: HttpEnd) -> None:
    client.post("/predict", json=body({**keyed_row(), "prediction_moment": "2013-04-01T10:59:59Z"}))
    asked = json.loads(feature_end.seen[-1][1])
    assert asked["entities"]["airport_weather_tick"] == [1364810400 // 3600] == asked["entities"]["airport_departures_tick"]
    assert asked["entities"]["route"] == ["JFK-BOS"]


FAILURES: list[tuple[str, Any, str]] = [
    ("an error", lambda _: (500, {"detail": "broken"}), "feature server"),
    ("no JSON", lambda _: (200, b"<html>"), "feature server"),
    ("another form", lambda _: (200, {"results": []}), "feature server"),
    ("too few rows", lambda document: (200, feast_answer({**document, "entities": {"origin": []}})), "feature server"),
    ("stale values", lambda document: (200, feast_answer(document, "2011-01-01T00:00:00Z")), "airport_weather: stale"),
    ("values of the future", lambda document: (200, feast_answer(document, "2013-04-01T10:00:01Z")), "airport_weather: published 1s after"),
    ("unknown keys", lambda document: (200, unknown(document)), "airport_weather: nothing is published"),
    (
        "text for a number",
        lambda document: (200, feast_answer(document, value=lambda *_: "warm")),
        "temp: the feature server holds a value that must be a number",
    ),
]


def unknown(document: dict[str, Any]) -> dict[str, Any]:
    answer = feast_answer(document, "1970-01-01T00:00:00Z", lambda *_: None)
    for column in answer["results"]:
        column["statuses"] = ["NOT_FOUND"] * len(column["statuses"])
    return answer


@pytest.mark.parametrize(("case", "behaviour", "warning"), FAILURES, ids=[case for case, *_ in FAILURES])
def test_what_the_feature_server_cannot_give_is_missing_with_a_warning(
    client: httpx.Client, feature_end: HttpEnd, case: str, behaviour: Any, warning: str
) -> None:
    proper, feature_end.answer = feature_end.answer, behaviour
    try:
        (row,) = rows_of(client.post("/predict", json=body(keyed_row())))
    finally:
        feature_end.answer = proper
    assert {row["features"][name] for name in FEATURES.feature_names if name not in FIELDS} == {None}
    assert any(text.startswith(warning) for text in row["warnings"]), row["warnings"]


def test_a_silent_feature_server_is_waited_for_only_as_long_as_declared(tmp_path: Path) -> None:
    release = build_release(tmp_path / "bundles", feature_server_timeout_seconds=0.3, fallback="refuse")
    fetch_bundle(str(tmp_path / "bundles"), release, tmp_path / "release")
    with http_end() as end, model_server(tmp_path / "release", tmp_path / "log", "--feature-server-url", end.url) as (url, _):
        end.delay = 60
        started = time.monotonic()
        refused = httpx.post(f"{url}/predict", json=body(keyed_row()), timeout=120)
        assert time.monotonic() - started < 30
        assert (refused.status_code, refused.json()["status"]["reason"]) == (503, "FEATURES_UNAVAILABLE")
        complete = httpx.post(f"{url}/predict", json=body(full_row())).json()["jsonData"]
        assert complete["sequence"] == 1


def test_the_edge_refuses_a_moment_far_from_the_clock_and_sigterm_ends_it_cleanly(release_folder: Path, tmp_path: Path) -> None:
    with model_server(release_folder, tmp_path / "log", "--moment-skew", "15m") as (url, running):
        refused = httpx.post(f"{url}/predict", json=body(full_row()))
        assert (refused.status_code, refused.json()["status"]["field"]) == (422, "instances[0].prediction_moment")
        now, event = (pd.Timestamp.now("UTC") + pd.Timedelta(hours=hours) for hours in (0, 2))
        current = {**full_row(), "prediction_moment": now.isoformat(), "event_time": event.isoformat()}
        assert httpx.post(f"{url}/predict", json=body(current)).status_code == 200
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0
        assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_request_in_flight_is_answered_before_sigterm_ends_the_server(release_folder: Path, tmp_path: Path) -> None:
    with http_end() as end, model_server(release_folder, tmp_path / "log", "--feature-server-url", end.url) as (url, running):
        end.answer, end.delay = lambda document: (200, feast_answer(document)), 1.0
        answers: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}/predict", json=body(keyed_row()), timeout=10)))
        thread.start()
        while not end.seen:
            time.sleep(0.02)
        running.send_signal(signal.SIGTERM)
        thread.join()
        assert answers[0].status_code == 200 and running.wait(30) == 0


def test_a_tampered_release_does_not_start(release_folder: Path, tmp_path: Path) -> None:
    release = build_release(tmp_path / "bundles")
    fetch_bundle(str(tmp_path / "bundles"), release, tmp_path / "release")
    contract = tmp_path / "release" / "serving.json"
    contract.write_text(contract.read_text().replace('"decision_threshold":0.3', '"decision_threshold":0.9'))
    command = [sys.executable, "-m", "components.model_server.seldon", "--release-folder", str(tmp_path / "release"), "--port", str(free_port())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 4 and "serving.json does not match its hash" in ended.stderr and "Traceback" not in ended.stderr


def test_a_release_is_fetched_and_verified_before_it_is_served(tmp_path: Path) -> None:
    release = build_release(tmp_path / "bundles")
    blobs = [path for path in (tmp_path / "bundles").rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    blobs[0].write_bytes(blobs[0].read_bytes()[:-1] + b"x")
    command = [sys.executable, "-m", "components.model_server.seldon", "--bundles-uri", str(tmp_path / "bundles"), "--release", release]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 4 and "does not match its hash" in ended.stderr


def test_operations_have_their_routes(client: httpx.Client) -> None:
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").json()["ready"] is True
    client.post("/predict", json=body(full_row()))
    metrics = client.get("/metrics").text
    assert re.search(r'crispline_requests_total\{reason="OK"\} [1-9]', metrics) and "crispline_ready 1.0" in metrics
    document = client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    assert set(document["components"]["schemas"]["Features"]["properties"]) == set(FEATURES.feature_names)
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
