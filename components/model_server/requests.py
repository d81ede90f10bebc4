"""Holds a request against the serving contract: what is refused, what is answered with a warning, and what is passed on.

Refused: an unknown or absent name, a value of another type, null or NaN where the column is not nullable, infinity, a prediction moment
after the event. Answered with a warning: a value outside its declared range, a category that the model does not know, a prediction moment
other than the declared lead before the event. The line between them: what *cannot* be what the caller means is refused; what the world may
really have produced (a record temperature, a new carrier) is answered, since refusing it would take the prediction away just when things
are unusual, and said in the answer and in the log, where the monitoring sees it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from components.contracts.durations import format_duration
from components.contracts.serving import FeatureValue, Instance, PredictRequest, ServingContract
from components.contracts.usecase import Column
from components.model_server.errors import (
    BatchTooLarge,
    MissingField,
    MissingValue,
    MomentOutOfOrder,
    MomentTooFar,
    NotFinite,
    RequestRefused,
    UnknownField,
    WrongShape,
    WrongType,
)

_NAMED = ("features", "keys", "fields")


@dataclass(frozen=True)
class CheckedRow:
    """One instance that holds to the contract. `given`: features that came with the request (None = missing). `keys`: join keys to look the
    rest up with, None when the request carried every feature."""

    instance: Instance
    given: dict[str, FeatureValue]
    keys: dict[str, str] | None
    warnings: tuple[str, ...]


def read_request(document: object) -> PredictRequest:
    """Turn parsed JSON into a request. Raises a RequestRefused that names the first field at fault."""
    if not isinstance(document, dict):
        raise WrongShape("jsonData", "must be an object with `instances`", 'send {"instances": [...]}', document)
    try:
        return PredictRequest.model_validate(document, strict=True)
    except ValidationError as error:
        raise _refusal(dict(error.errors(include_url=False)[0])) from error


def check_request(request: PredictRequest, contract: ServingContract) -> list[CheckedRow]:
    """Every row held against the contract, in order. Raises a RequestRefused that names the first field at fault."""
    if len(request.instances) > contract.maximum_batch_rows:
        raise BatchTooLarge(
            "instances", f"{len(request.instances)} rows in one request", f"send at most {contract.maximum_batch_rows} rows at a time", len(request.instances)
        )
    return [_check_instance(f"instances[{number}]", instance, contract) for number, instance in enumerate(request.instances)]


def check_moments(request: PredictRequest, now: datetime, skew: timedelta | None) -> None:
    """Refuse a prediction moment further than `skew` from `now`; None sets no limit. Belongs to the edge: only it may look at a clock."""
    if skew is None:
        return
    for number, instance in enumerate(request.instances):
        if abs(instance.prediction_moment - now) > skew:
            raise MomentTooFar(
                f"instances[{number}].prediction_moment",
                f"lies more than {format_duration(skew)} from the server's clock",
                "ask at the prediction moment; a replay of the past needs a server whose --moment-skew is `unlimited`",
                instance.prediction_moment.isoformat(),
            )


def _check_instance(path: str, instance: Instance, contract: ServingContract) -> CheckedRow:
    warnings = _check_times(path, instance, contract)
    features = contract.feature_set
    if instance.features is not None:
        for other in ("keys", "fields"):
            if getattr(instance, other) is not None:
                raise WrongShape(f"{path}.{other}", "stands beside `features`", "send either `features`, or `keys` with `fields`")
        given = _values(f"{path}.features", instance.features, features.feature_names, contract, warnings)
        return CheckedRow(instance, given, None, tuple(warnings))
    if instance.keys is None:
        if instance.fields is not None:
            raise MissingField(f"{path}.keys", "is absent", f"send `keys` with {', '.join(features.join_keys)}")
        raise WrongShape(path, "has neither `features` nor `keys`", "send either `features`, or `keys` with `fields`")
    keys = _keys(f"{path}.keys", instance.keys, contract, warnings)
    given = _values(f"{path}.fields", instance.fields or {}, features.request_fields, contract, warnings)
    return CheckedRow(instance, given, keys, tuple(warnings))


def _check_times(path: str, instance: Instance, contract: ServingContract) -> list[str]:
    lead = instance.event_time - instance.prediction_moment
    if lead < timedelta(0):
        raise MomentOutOfOrder(
            f"{path}.prediction_moment", "lies after `event_time`", "a prediction is made before its event", instance.prediction_moment.isoformat()
        )
    declared = timedelta(seconds=contract.lead_seconds)
    if lead != declared:
        return [f"prediction_moment: {format_duration(lead)} before the event; the model was trained for {format_duration(declared)}"]
    return []


def _keys(path: str, keys: Mapping[str, str], contract: ServingContract, warnings: list[str]) -> dict[str, str]:
    """The join keys. One whose column is nullable may be absent or empty: what it leads to is then missing."""
    expected = contract.feature_set.join_keys
    _refuse_unknown(path, keys, expected)
    found = {}
    for name in expected:
        value = keys.get(name, "")
        if value:
            if contract.columns[name].type == "integer" and not _WHOLE.fullmatch(value):
                raise WrongType(f"{path}.{name}", "must be a whole number", "send its digits as a string", value)
            found[name] = value
        elif name not in keys and not contract.columns[name].nullable:
            raise MissingField(f"{path}.{name}", "is absent", f"send all of {', '.join(expected)}")
        elif not contract.columns[name].nullable:
            raise MissingValue(f"{path}.{name}", "is empty", "the key is not nullable; send its value", value)
        else:
            warnings.append(f"{name}: no key given; the features behind it are missing")
    return found


def _values(
    path: str, values: Mapping[str, FeatureValue], expected: tuple[str, ...], contract: ServingContract, warnings: list[str]
) -> dict[str, FeatureValue]:
    _refuse_unknown(path, values, expected)
    checked: dict[str, FeatureValue] = {}
    for name in expected:
        if name not in values:
            raise MissingField(f"{path}.{name}", "is absent", "send every field, null where its value is unknown and the column is nullable")
        checked[name] = check_value(f"{path}.{name}", values[name], contract.columns[name])
        warning = range_warning(name, checked[name], contract.columns[name])
        if warning:
            warnings.append(warning)
    return checked


def check_value(path: str, value: FeatureValue, column: Column) -> FeatureValue:
    """The value as the model will see it: NaN becomes None. Raises MissingValue, NotFinite or WrongType."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        if not column.nullable:
            raise MissingValue(path, "is missing but the column is not nullable", "send a value", "null" if value is None else "NaN")
        return None
    if column.type in ("float", "integer"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WrongType(path, f"must be {_NUMBER[column.type]}", "send a JSON number, without quotes", value)
        return _number(path, value, column)
    if column.type == "boolean":
        if not isinstance(value, bool):
            raise WrongType(path, "must be true or false", "send a JSON boolean", value)
        return value
    if not isinstance(value, str):
        raise WrongType(path, "must be a string", "send the value in quotes", value)
    return value


_WHOLE = re.compile(r"-?[0-9]{1,18}")
_NUMBER = {"float": "a number", "integer": "a whole number"}
_LARGEST = 3.4e38  # float32, in which the model computes


def _number(path: str, value: float, column: Column) -> float:
    if not -_LARGEST <= value <= _LARGEST:
        raise NotFinite(path, "is infinite or too large to compute with", "send a finite number; null means missing", value)
    if column.type == "integer" and value != int(value):
        raise WrongType(path, "must be a whole number", "send a number without a fraction", value)
    return value


def range_warning(name: str, value: FeatureValue, column: Column) -> str:
    """Empty when the value lies in the declared range, or there is none."""
    if column.range is None or value is None or isinstance(value, str):
        return ""
    low, high = column.range
    return "" if low <= value <= high else f"{name}: {value!r} is outside of its declared range [{low:g}, {high:g}]"


def _refuse_unknown(path: str, given: Iterable[str], expected: tuple[str, ...]) -> None:
    for name in given:
        if name not in expected:
            near = difflib.get_close_matches(name[:100], expected, n=1)
            remedy = f"did you mean `{near[0]}`?" if near else f"known names: {', '.join(expected)}"
            raise UnknownField(f"{path}.{name[:100]}", "is not a name that the contract has", remedy)


_REFUSALS: dict[str, tuple[type[RequestRefused], str]] = {
    "missing": (MissingField, "add the field"),
    "extra_forbidden": (UnknownField, "remove it; see /openapi.json for the fields"),
    "too_short": (WrongShape, "send at least one row"),
    "list_type": (WrongShape, "send a JSON array"),
    "dict_type": (WrongShape, "send a JSON object"),
    "model_type": (WrongShape, "send a JSON object"),
    "model_attributes_type": (WrongShape, "send a JSON object"),
}


def _refusal(detail: dict[str, Any]) -> RequestRefused:
    """One of pydantic's errors as a refusal. Only its first one is told: the caller corrects one thing at a time, and a batch may have thousands."""
    location = list(detail["loc"])
    if len(location) > 3 and location[2] in _NAMED:
        location = location[:4]
    kind = str(detail["type"])
    refusal, remedy = _REFUSALS.get(kind, (WrongType, "see /openapi.json for the type"))
    value = detail["input"] if refusal is not MissingField else None
    return refusal(_path(location), str(detail["msg"]).removeprefix("Value error, "), remedy, None if value is None else _brief(value))


def _path(location: list[str | int]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part[:100]}"
    return text.removeprefix(".") or "jsonData"


def _brief(value: object) -> object:
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, list | dict) else value
