"""What a CloudEvent of the Seldon executor says: whose it is, and which predictions its answer carries. Knows nothing of HTTP or disks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

from components.contracts.errors import CrisplineError
from components.contracts.events import INFERENCE_FEEDBACK, INFERENCE_REQUEST, INFERENCE_RESPONSE
from components.contracts.serving import LoggedPrediction, PredictResponse
from components.monitoring.spool import SpooledEvent

Kind = Literal["request", "response", "feedback"]
KINDS: dict[str, Kind] = {INFERENCE_REQUEST: "request", INFERENCE_RESPONSE: "response", INFERENCE_FEEDBACK: "feedback"}


class PoisonedEvent(CrisplineError):
    """A payload that can never be logged; it is set aside with this reason."""


class NotOurs(CrisplineError):
    """An event that is well-formed but none of this sidecar's business; `reason` is a word for the counter."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Envelope:
    """The attributes of an event in binary mode (HTTP headers `ce-*`)."""

    id: str
    kind: Kind
    time: str
    request_id: str
    predictor: str

    def spooled(self, body: bytes) -> SpooledEvent:
        return SpooledEvent(id=self.id, type=self.kind, time=self.time, request_id=self.request_id, predictor=self.predictor, body=body)


def read_envelope(headers: Mapping[str, str], deployment: str = "") -> Envelope:
    """Decide by the headers alone. `deployment`: the SeldonDeployment that is watched; empty watches all.

    Raises PoisonedEvent when it is no CloudEvent in binary mode, NotOurs for another type or deployment.
    """
    type_ = headers.get("ce-type", "")
    if not type_:
        raise PoisonedEvent("the header ce-type is absent; send a CloudEvent in binary content mode, as the Seldon executor does")
    kind = KINDS.get(type_)
    if kind is None:
        raise NotOurs("type")
    sender = headers.get("ce-inferenceservicename", "")
    if deployment and sender and sender != deployment:
        raise NotOurs("deployment")
    return Envelope(headers.get("ce-id", ""), kind, headers.get("ce-time", ""), headers.get("ce-requestid", ""), headers.get("ce-endpoint", "") or "default")


def predictions_of(event: SpooledEvent, usecase: str, arrived: datetime) -> list[LoggedPrediction]:
    """The rows that an answer adds to the log. `arrived` (wall clock) stands in for a missing `ce-time`.

    Raises NotOurs for a refused request's answer or another use case's, PoisonedEvent for anything that does not read as an answer.
    """
    body = _json_object(event.body)
    if "jsonData" not in body and isinstance(body.get("status"), dict):
        raise NotOurs("refusal")
    try:
        answer = PredictResponse.model_validate(body.get("jsonData"))
    except ValidationError as error:
        first = error.errors()[0]
        raise PoisonedEvent(f"the body is no answer: {'.'.join(map(str, ('jsonData', *first['loc'])))}: {first['msg']}") from error
    if answer.model.usecase != usecase:
        raise NotOurs("usecase")
    received = _received(event.time, arrived)
    try:
        return [
            LoggedPrediction(
                **prediction.model_dump(exclude={"contributions"}),
                usecase=usecase,
                predictor=event.predictor,
                model_version=answer.model.model_version,
                release=answer.model.release,
                feature_set=answer.model.feature_set,
                instance=answer.instance,
                sequence=answer.sequence,
                received=received,
            )
            for prediction in answer.predictions
        ]
    except ValidationError as error:
        raise PoisonedEvent(str(error)) from error


def feedback_of(event: SpooledEvent) -> dict[str, Any]:
    """The body of a feedback event. Raises PoisonedEvent when it is no JSON object."""
    return _json_object(event.body)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise PoisonedEvent(f"the body is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise PoisonedEvent(f"the body is a JSON {type(found).__name__}, not an object")
    return found


def _received(time: str, arrived: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return arrived
    return moment.astimezone(UTC) if moment.tzinfo else arrived
