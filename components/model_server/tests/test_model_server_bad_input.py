"""Bad input over real HTTP gets the right status and a message that names the field; never a 500, a stack trace or a silent answer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from components.model_server.tests.processes import FIELDS, KEYS, body, full_row, keyed_row

pytestmark = pytest.mark.serving
ROUTES = ("/predict", "/api/v1.0/predictions", "/api/v0.1/predictions")


def without(row: dict[str, Any], *path: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(row))
    part = copy
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    return copy


def fields(**changes: Any) -> dict[str, Any]:
    return keyed_row(fields={**FIELDS, **changes})


CONTRACT_BREACHES: list[tuple[str, Any, int, str]] = [
    ("no jsonData", {}, 422, "jsonData"),
    ("Seldon's tensor payload", {"data": {"ndarray": [[1, 2]]}}, 422, "data"),
    ("an unknown envelope key", {**body(full_row()), "extra": 1}, 422, "extra"),
    ("jsonData is a list", {"jsonData": [1]}, 422, "jsonData"),
    ("instances is no list", {"jsonData": {"instances": {}}}, 422, "instances"),
    ("no instances", {"jsonData": {"instances": []}}, 422, "instances"),
    ("no instances key", {"jsonData": {}}, 422, "instances"),
    ("an unknown request key", body(full_row(), explane=True), 422, "explane"),
    ("explain is text", body(full_row(), explain="yes"), 422, "explain"),
    ("an instance is a number", body(3), 422, "instances[0]"),
    ("an unknown instance key", body({**full_row(), "colour": "red"}), 422, "instances[0].colour"),
    ("no entity", body(without(full_row(), "entity")), 422, "instances[0].entity"),
    ("an empty entity", body({**full_row(), "entity": ""}), 422, "instances[0].entity"),
    ("a moment without a zone", body({**full_row(), "prediction_moment": "2013-04-01T10:00:00"}), 422, "instances[0].prediction_moment"),
    ("a moment that is a number", body({**full_row(), "event_time": 5}), 422, "instances[0].event_time"),
    ("asked after the event", body({**full_row(), "prediction_moment": "2013-04-01T13:00:00Z"}), 422, "instances[0].prediction_moment"),
    ("neither features nor keys", body(without(full_row(), "features")), 422, "instances[0]"),
    ("features beside keys", body({**full_row(), "keys": KEYS}), 422, "instances[0].keys"),
    ("fields without keys", body(without(keyed_row(), "keys")), 422, "instances[0].keys"),
    ("features is a list", body({**full_row(), "features": [1.0]}), 422, "instances[0].features"),
    ("an unknown feature", body(full_row(wind=1.0)), 422, "instances[0].features.wind"),
    ("a feature is absent", body(without(full_row(), "features", "temp")), 422, "instances[0].features.temp"),
    ("a number as text", body(full_row(distance="far")), 422, "instances[0].features.distance"),
    ("a number as truth value", body(full_row(distance=True)), 422, "instances[0].features.distance"),
    ("a number as list", body(full_row(distance=[1])), 422, "instances[0].features.distance"),
    ("a category as number", body(full_row(carrier=5)), 422, "instances[0].features.carrier"),
    ("a whole number with a fraction", body(full_row(month=4.5)), 422, "instances[0].features.month"),
    ("null where not nullable", body(full_row(month=None)), 422, "instances[0].features.month"),
    ("NaN where not nullable", body(full_row(distance=float("nan"))), 422, "instances[0].features.distance"),
    ("infinity", body(full_row(temp=float("inf"))), 422, "instances[0].features.temp"),
    ("a number beyond float32", body(full_row(temp=1e300)), 422, "instances[0].features.temp"),
    ("a whole number beyond any float", body(full_row(month=10**400)), 422, "instances[0].features.month"),
    ("an unknown key", body(keyed_row(keys={**KEYS, "gate": "B2"})), 422, "instances[0].keys.gate"),
    ("a key is absent", body(keyed_row(keys=without(KEYS, "route"))), 422, "instances[0].keys.route"),
    ("a key is empty", body(keyed_row(keys={**KEYS, "route": ""})), 422, "instances[0].keys.route"),
    ("a key is a number", body(keyed_row(keys={**KEYS, "route": 5})), 422, "instances[0].keys.route"),
    ("an unknown field", body(fields(temp=3.0)), 422, "instances[0].fields.temp"),
    ("a field is absent", body(without(keyed_row(), "fields", "distance")), 422, "instances[0].fields.distance"),
    ("no fields", body(without(keyed_row(), "fields")), 422, "instances[0].fields.carrier"),
    ("NaN in a field", body(fields(scheduled_minutes=float("nan"))), 422, "instances[0].fields.scheduled_minutes"),
    ("the second row is at fault", body(full_row(), full_row(distance="far")), 422, "instances[1].features.distance"),
    ("too many rows", body(*([{**keyed_row()}] * 2001)), 413, "instances"),
]


@pytest.mark.parametrize(("case", "message", "status", "field"), CONTRACT_BREACHES, ids=[case for case, *_ in CONTRACT_BREACHES])
def test_a_breach_of_the_contract_is_refused_by_name(client: httpx.Client, case: str, message: Any, status: int, field: str) -> None:
    answer = client.post("/api/v1.0/predictions", content=json.dumps(message), headers={"content-type": "application/json"})
    assert_refused(answer, status, field)


NOT_JSON = [b"", b"{", b"nonsense", b"\xff\xfe{}", b'{"jsonData": 1, "jsonData": 2}', b"[" * 100_000, b"1" * 5000]


@pytest.mark.parametrize("content", NOT_JSON, ids=["empty", "cut off", "text", "not UTF-8", "a repeated key", "nested too deeply", "a number too long"])
def test_what_is_not_json_gets_400(client: httpx.Client, content: bytes) -> None:
    assert_refused(client.post("/predict", content=content, headers={"content-type": "application/json"}), 400, "body")


@pytest.mark.parametrize("content", [b"5", b"null", b'"text"', b"[]"])
def test_json_that_is_no_object_gets_422(client: httpx.Client, content: bytes) -> None:
    assert_refused(client.post("/predict", content=content, headers={"content-type": "application/json"}), 422, "body")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""])
def test_another_content_type_gets_400(client: httpx.Client, kind: str) -> None:
    assert_refused(client.post("/predict", content=json.dumps(body(full_row())), headers={"content-type": kind}), 400, "header Content-Type")


def test_a_message_in_the_query_gets_400(client: httpx.Client) -> None:
    assert_refused(client.post("/predict?json={}", json=body(full_row())), 400, "query")


def test_too_large_a_body_gets_413(client: httpx.Client) -> None:
    assert_refused(client.post("/predict", content=b" " * 4_194_305, headers={"content-type": "application/json"}), 413, "body")


def test_too_large_a_body_without_a_length_gets_413(client: httpx.Client) -> None:
    chunks = (b" " * 65_536 for _ in range(80))
    assert_refused(client.post("/predict", content=chunks, headers={"content-type": "application/json"}), 413, "body")


@pytest.mark.parametrize("path", ["/", "/predictions", "/api/v2/models", "/transform-input", "/aggregate", "/route", "/static/x", "/%00"])
def test_an_unknown_route_gets_404(client: httpx.Client, path: str) -> None:
    assert_refused(client.post(path, json=body(full_row())), 404, "path")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/predict"), ("GET", "/api/v1.0/predictions"), ("DELETE", "/predict"), ("POST", "/health/live"), ("PUT", "/openapi.json")]
)
def test_a_wrong_method_gets_405(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path, headers={"content-type": "application/json"})
    assert_refused(answer, 405, "method")
    assert answer.headers["allow"]


def test_a_request_id_that_cannot_be_a_header_gets_422(client: httpx.Client) -> None:
    answer = client.post("/predict", json=body(full_row()), headers={"Seldon-Puid": "x" * 129})
    assert_refused(answer, 422, "header Seldon-Puid")


@pytest.mark.parametrize(
    ("feedback", "status"),
    [
        ({"reward": 1.0}, 200),
        ({"truth": {"jsonData": {"labels": [{"entity": "AA1", "label": True, "known_at": "2013-04-20T00:00:00Z"}]}}}, 200),
        ({"truth": {"jsonData": {"labels": [{"entity": "AA1"}]}}}, 422),
        ({"reward": "high"}, 422),
        ({"nonsense": 1}, 422),
    ],
)
def test_feedback_is_accepted_or_refused_by_name(client: httpx.Client, feedback: dict[str, Any], status: int) -> None:
    answer = client.post("/send-feedback", json=feedback)
    assert answer.status_code == status, answer.text


def test_every_route_of_seldon_answers_the_same(client: httpx.Client) -> None:
    answers = [client.post(route, json=body(full_row())) for route in ROUTES]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len({answer.json()["jsonData"]["predictions"][0]["probability"] for answer in answers}) == 1


def assert_refused(answer: httpx.Response, status: int, field: str) -> None:
    assert answer.status_code == status, answer.text
    refusal = answer.json()["status"]
    assert (refusal["code"], refusal["field"]) == (status, field), answer.text
    assert refusal["reason"] and refusal["message"] and refusal["remedy"]
    assert "Traceback" not in answer.text and 'File "' not in answer.text
    assert answer.headers["seldon-puid"] == answer.json()["meta"]["puid"]
