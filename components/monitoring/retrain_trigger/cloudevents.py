"""CloudEvents 1.0 over HTTP, binary and structured mode (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md).

Read by hand, because the two modes are a dozen lines and every refusal has to name the field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from components.contracts.errors import CrisplineError
from components.contracts.events import ALERT, PERFORMANCE, Alert, Performance

_PAYLOADS: dict[str, type[Alert] | type[Performance]] = {ALERT: Alert, PERFORMANCE: Performance}
_REQUIRED = ("id", "source", "type", "specversion")


class NotAnEvent(CrisplineError):
    """`status`: the HTTP status that says what kind of mistake it is."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def parse_event(headers: Mapping[str, str], body: bytes) -> Alert | Performance:
    """The payload of an alert or performance event. `headers` with lower-case names. Raises NotAnEvent."""
    document = _json(body)
    if headers.get("content-type", "").split(";")[0].strip().lower() == "application/cloudevents+json":
        if not isinstance(document, dict):
            raise NotAnEvent(400, "the body is not a JSON object")
        attributes: Mapping[str, Any] = document
        payload = document.get("data")
    else:
        attributes = {name: headers[f"ce-{name}"] for name in _REQUIRED if f"ce-{name}" in headers}
        payload = document
    absent = [name for name in _REQUIRED if not attributes.get(name)]
    if absent:
        raise NotAnEvent(400, f"not a CloudEvent: {', '.join(absent)} missing (binary mode: header ce-{absent[0]})")
    if attributes["specversion"] != "1.0":
        raise NotAnEvent(400, f"specversion is {attributes['specversion']!r}; 1.0 is understood")
    kind = _PAYLOADS.get(str(attributes["type"]))
    if kind is None:
        raise NotAnEvent(422, f"type is {attributes['type']!r}; accepted are {', '.join(_PAYLOADS)}")
    try:
        return kind.model_validate(payload)
    except ValidationError as error:
        first = error.errors()[0]
        raise NotAnEvent(422, f"data.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise NotAnEvent(400, "the body is not JSON") from error
