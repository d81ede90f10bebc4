"""The Seldon front end: seldon-core's own microservice application around the data plane, with an edge that refuses in a readable way.

seldon-core alone answers an unknown route or a wrong shape with 500 and the text of the exception, accepts NaN, and limits no body; the edge
added here (`guard` and the error handlers) settles these before or after its routes, which stay Seldon's.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import flask
from flask.json.provider import DefaultJSONProvider
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from seldon_core.flask_utils import SeldonMicroserviceException
from seldon_core.proto import prediction_pb2
from seldon_core.wrapper import get_rest_microservice
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge
from werkzeug.routing import Map, Rule

from components.contracts.errors import InvalidData
from components.model_server import errors, openapi
from components.model_server.dataplane import DataPlane
from components.model_server.lookup_warnings import FALLBACK_WARNING, says_stale
from components.model_server.requests import check_moments, read_request
from components.model_server.seldon.metrics import InProcessMetrics, ServerMetrics
from components.model_server.statuses import refusal_of, status_of
from components.monitoring.feedback import parse_seldon_feedback

PUID = "Seldon-Puid"
_PUID_FORM = re.compile(r"[\x21-\x7e]{1,128}")
_POSTED = ("Predict", "SendFeedback")
# Seldon's routes for nodes of another kind, and a rule that serves files of the package under every path and so turns 404 into 405.
_LEFT_OUT = ("TransformInput", "TransformOutput", "Route", "Aggregate", "static")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeldonModel:
    """The class that Seldon's wrapper calls. `skew`: furthest that a prediction moment may lie from `clock`; None for no limit."""

    plane: DataPlane
    metrics: ServerMetrics
    skew: timedelta | None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def predict_raw(self, message: object) -> dict[str, Any]:
        """{"jsonData": PredictRequest} to {"jsonData": PredictResponse, "meta": {"puid"}}. Raises RequestRefused."""
        started = time.perf_counter()
        document = _payload(message)
        request = read_request(document)
        check_moments(request, self.clock(), self.skew)
        response = self.plane.predict(request, flask.g.puid)
        self.metrics.answers.labels("OK").inc()
        self.metrics.rows.inc(len(response.predictions))
        self.metrics.warnings.inc(sum(bool(row.warnings) for row in response.predictions))
        self.metrics.stale.inc(sum(any(says_stale(warning) for warning in row.warnings) for row in response.predictions))
        self.metrics.fallbacks.inc(sum(FALLBACK_WARNING in row.warnings for row in response.predictions))
        self.metrics.sequence.set(response.sequence)
        answer = {"jsonData": response.model_dump(mode="json"), "meta": {"puid": flask.g.puid}}
        self.metrics.seconds.observe(time.perf_counter() - started)
        return answer

    def send_feedback_raw(self, feedback: Any) -> Any:
        """Acknowledge: the executor logs feedback and the sidecar keeps it; nothing is learned here."""
        return prediction_pb2.SeldonMessage(strData=f"accepted, reward {feedback.reward:g}")

    def health_status_raw(self) -> dict[str, Any]:
        return {"jsonData": self.plane.info.model_dump(mode="json")}

    def init_metadata(self) -> dict[str, Any]:
        return {
            "name": self.plane.contract.usecase,
            "versions": [self.plane.manifest.model_version],
            "platform": "crispline",
            "custom": {"release": self.plane.release},
        }


class StrictJson(DefaultJSONProvider):
    """Refuses a repeated key (one of the two values would be dropped silently) and writes compact JSON without NaN."""

    sort_keys = False
    compact = True

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return json.loads(s, object_pairs_hook=_unique, **kwargs)

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return json.dumps(obj, **{"allow_nan": False, "separators": (",", ":"), "default": DefaultJSONProvider.default, **kwargs})


def build_app(plane: DataPlane, skew: timedelta | None, ready: threading.Event, clock: Callable[[], datetime] | None = None) -> flask.Flask:
    """Seldon's Flask application with the edge and the routes /health/live, /health/ready, /metrics and /openapi.json. `ready` is set once warm."""
    info = plane.info
    metrics = ServerMetrics(info.usecase, info.model_version, info.release)
    model = SeldonModel(plane, metrics, skew, clock) if clock else SeldonModel(plane, metrics, skew)
    app: flask.Flask = get_rest_microservice(model, InProcessMetrics())
    app.json = StrictJson(app)
    app.url_map = Map([_served(rule) for rule in app.url_map.iter_rules() if rule.endpoint not in _LEFT_OUT])
    app.config["MAX_CONTENT_LENGTH"] = plane.contract.maximum_body_bytes
    description = openapi.describe(plane.contract, plane.manifest)
    app.before_request(_guard)
    app.after_request(_name_request)
    app.register_error_handler(Exception, lambda error: _answer(error, metrics, plane.contract.maximum_body_bytes))
    # Seldon registers a handler of its own for this one, which would be preferred to the one above.
    app.register_error_handler(SeldonMicroserviceException, lambda error: _answer(error, metrics, plane.contract.maximum_body_bytes))

    def is_ready() -> Any:
        if not ready.is_set():
            raise errors.NotReady("server", "the model is not warm yet", "wait for /health/ready")
        metrics.ready.set(1)
        return {"ready": True, **info.model_dump(mode="json")}

    app.add_url_rule("/health/live", "live", lambda: {"live": True})
    app.add_url_rule("/health/ready", "ready", is_ready)
    app.add_url_rule("/metrics", "metrics", lambda: flask.Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST))
    app.add_url_rule("/openapi.json", "openapi", lambda: description)
    return app


def _served(rule: Rule) -> Rule:
    """Predictions and feedback by POST only: with GET, Seldon reads the message from the query."""
    return Rule(rule.rule, endpoint=rule.endpoint, methods=["POST"]) if rule.endpoint in _POSTED else rule.empty()


def _guard() -> None:
    """What Seldon's routes would mishandle, refused before they run."""
    request = flask.request
    puid = request.headers.get(PUID, "") or str(uuid.uuid4())
    flask.g.puid = puid if _PUID_FORM.fullmatch(puid) else str(uuid.uuid4())
    if puid != flask.g.puid:
        raise errors.WrongShape(f"header {PUID}", "must be 1 to 128 visible ASCII characters", "leave it out to have one made", puid)
    if request.endpoint not in _POSTED or request.method != "POST":
        return
    if request.args:
        raise errors.NotJson("query", "parameters are not read", "send the message as the JSON body", next(iter(request.args))[:60])
    if request.mimetype != "application/json":
        raise errors.NotJson("header Content-Type", "must be application/json", "send the message as the JSON body", request.mimetype or None)
    if request.content_length is None and len(request.get_data()) >= (request.max_content_length or 0):
        raise RequestEntityTooLarge  # werkzeug cuts a body of undeclared length at the limit
    try:
        document = request.get_json()
    except BadRequest as error:
        raise errors.NotJson("body", f"is not JSON: {_cause(error)}", "send one JSON object") from error
    except RecursionError as error:
        raise errors.NotJson("body", "is nested too deeply", "send one JSON object") from error
    if not isinstance(document, dict):
        raise errors.WrongShape("body", "must be a JSON object", 'send {"jsonData": {"instances": [...]}}', type(document).__name__)
    if request.endpoint == "SendFeedback":
        _check_feedback(document)


def _payload(message: object) -> object:
    """The content of `jsonData`. Raises for another of Seldon's payload kinds and for keys that the envelope does not have."""
    envelope = message if isinstance(message, dict) else {}
    for name in envelope:
        if name in ("data", "strData", "binData", "customData"):
            raise errors.WrongShape(name[:100], "is a payload that this model does not read", 'send {"jsonData": {"instances": [...]}}')
        if name not in ("jsonData", "meta", "status"):
            raise errors.UnknownField(name[:100], "is not part of the message", 'send {"jsonData": {"instances": [...]}}')
    if "jsonData" not in envelope:
        raise errors.MissingField("jsonData", "is absent", 'send {"jsonData": {"instances": [...]}}')
    return envelope["jsonData"]


def _check_feedback(document: dict[str, Any]) -> None:
    """Feedback with a truth must hold what the monitoring reads; a reward alone passes."""
    if "truth" not in document:
        return
    try:
        parse_seldon_feedback(document)
    except InvalidData as error:
        raise errors.WrongShape("truth.jsonData", str(error), "see docs/reference/events.md for the fields of feedback") from error


def _answer(error: Exception, metrics: ServerMetrics, body_limit: int) -> Any:
    refused = _refusal(error, body_limit)
    puid = flask.g.get("puid") or str(uuid.uuid4())
    flask.g.puid = puid
    if isinstance(refused, errors.BodyTooLarge):
        _read_on(8 * body_limit)
    if isinstance(refused, errors.InternalError):
        logger.error("request %s failed", puid, exc_info=error)
    if flask.request.endpoint == "Predict" or not isinstance(refused, errors.NotReady):
        metrics.answers.labels(refused.reason).inc()
    response = flask.jsonify(refusal_of(refused, puid).model_dump())
    response.status_code = status_of(refused)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    return response


def _refusal(error: Exception, body_limit: int) -> errors.RequestRefused:
    if isinstance(error, errors.RequestRefused):
        return error
    if isinstance(error, NotFound):
        return errors.UnknownRoute("path", "is not served here", "see /openapi.json for the routes", flask.request.path)
    if isinstance(error, MethodNotAllowed):
        return errors.WrongMethod("method", "is not allowed on this route", "use POST for predictions and feedback, GET for the rest", flask.request.method)
    if isinstance(error, RequestEntityTooLarge):
        return errors.BodyTooLarge("body", f"is larger than {body_limit} bytes", "send fewer rows at a time", flask.request.content_length)
    if isinstance(error, SeldonMicroserviceException):
        return errors.WrongShape("body", str(error.message), "see Seldon's message format")
    if isinstance(error, HTTPException) and (error.code or 500) < 500:
        return errors.NotJson("request", "cannot be read", "send a JSON object with POST", error.name)
    return errors.InternalError("server", "failed; its log has the details under this request's id", "report it with the id in meta.puid")


def _read_on(most: int) -> None:
    """Read what is left of the body, up to `most` bytes: a client that is still writing would see a broken connection and no answer."""
    body = flask.request.environ["wsgi.input"]
    while most > 0 and (part := body.read(min(most, 65_536))):
        most -= len(part)


def _cause(error: BaseException | None) -> str:
    """What the JSON parser said, under werkzeug's wrapping."""
    while error is not None and not isinstance(error, ValueError):
        error = error.__context__
    return str(error) if error else "it cannot be read"


def _name_request(response: flask.Response) -> flask.Response:
    if "puid" in flask.g:
        response.headers[PUID] = flask.g.puid
    return response


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)[:60]!r} is repeated")
    return found
