"""Requests, well-formed and malformed, made from a serving contract to see what it does with them. No HTTP: `read_request`, `check_request`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from components.contracts.serving import FeatureValue, ServingContract
from components.contracts.usecase import Column
from components.model_server.errors import RequestRefused
from components.model_server.requests import check_request, read_request

_UNKNOWN = "no_such_column"
_EVENT = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Probe:
    """A parsed JSON document and the field that its refusal must name; empty when it must be accepted."""

    name: str
    document: Any
    expected: str


@dataclass(frozen=True)
class ProbeResult:
    """`found`: the field that the refusal named; empty when the request was accepted."""

    name: str
    expected: str
    found: str

    @property
    def passed(self) -> bool:
        return self.found == self.expected


def probe(contract: ServingContract) -> list[ProbeResult]:
    """Every probe of `probes`, held against the contract."""
    return [ProbeResult(each.name, each.expected, _refused_field(each.document, contract)) for each in probes(contract)]


def probes(contract: ServingContract) -> Iterator[Probe]:
    """Two well-formed requests, then one fault at a time: empty, unknown column, and column by column wrong type, absent, NaN, missing key."""
    complete, keyed = _complete(contract), _keyed(contract)
    yield Probe("well-formed, complete", _body(complete), "")
    yield Probe("well-formed, by keys", _body(keyed), "")
    yield Probe("empty document", {}, "instances")
    yield Probe("no rows", {"instances": []}, "instances")
    yield Probe("empty row", _body({}), "instances[0].entity")
    for row, part in ((complete, "features"), (keyed, "fields")):
        yield Probe(f"unknown column in {part}", _body(_with(row, part, _UNKNOWN, 1.0)), f"instances[0].{part}.{_UNKNOWN}")
        for name in row[part]:
            field, column = f"instances[0].{part}.{name}", contract.columns[name]
            yield Probe(f"wrong type of {part}.{name}", _body(_with(row, part, name, _other_type(column))), field)
            yield Probe(f"{part}.{name} is absent", _body(_without(row, part, name)), field)
            if not column.nullable:
                yield Probe(f"NaN in {part}.{name}", _body(_with(row, part, name, math.nan)), field)
    for name in keyed["keys"]:
        yield Probe(f"wrong type of keys.{name}", _body(_with(keyed, "keys", name, 1.0)), f"instances[0].keys.{name}")
        if not contract.columns[name].nullable:
            yield Probe(f"missing key {name}", _body(_without(keyed, "keys", name)), f"instances[0].keys.{name}")


def _refused_field(document: object, contract: ServingContract) -> str:
    try:
        check_request(read_request(document), contract)
    except RequestRefused as refusal:
        return refusal.field
    return ""


def _complete(contract: ServingContract) -> dict[str, Any]:
    return {**_moments(contract), "features": {name: _value(contract.columns[name]) for name in contract.feature_set.feature_names}}


def _keyed(contract: ServingContract) -> dict[str, Any]:
    features = contract.feature_set
    fields = {name: _value(contract.columns[name]) for name in features.request_fields}
    return {**_moments(contract), "keys": dict.fromkeys(features.join_keys, "1"), "fields": fields}


def _moments(contract: ServingContract) -> dict[str, Any]:
    asked = _EVENT - timedelta(seconds=contract.lead_seconds)
    return {"entity": "probe", "prediction_moment": asked.isoformat(), "event_time": _EVENT.isoformat()}


def _value(column: Column) -> FeatureValue:
    if column.type in ("integer", "float"):
        low = column.range[0] if column.range else 0.0
        return math.ceil(low) if column.type == "integer" else low
    if column.type == "boolean":
        return False
    return column.categories[0] if column.categories else "text"


def _other_type(column: Column) -> FeatureValue:
    return "text" if column.type in ("integer", "float", "boolean") else 1.0


def _body(row: dict[str, Any]) -> dict[str, Any]:
    return {"instances": [row]}


def _with(row: dict[str, Any], part: str, name: str, value: FeatureValue) -> dict[str, Any]:
    changed = deepcopy(row)
    changed[part][name] = value
    return changed


def _without(row: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    changed = deepcopy(row)
    del changed[part][name]
    return changed
