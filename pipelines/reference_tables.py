"""Contracts as Markdown: a model's keys as a table, its docstring as the text above; names and types are read from the code."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from components.contracts.durations import Duration
from components.contracts.usecase import Moment, Name, Positive, Range, Share, Text

# By their names, not by equality: two annotated types with equal metadata are equal.
_ALIASES: dict[str, tuple[Any, str]] = {
    "Duration": (Duration, "duration"),
    "Moment": (Moment, "moment"),
    "Share": (Share, "share"),
    "Positive": (Positive, "number above 0"),
    "Range": (Range, "[lowest, highest]"),
    "Name": (Name, "name"),
    "Text": (Text, "text"),
}
_PLAIN: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    timedelta: "duration",
    datetime: "moment",
    type(None): "null",
    Any: "any value",
}
_MOST_WORDS = 10  # more are listed elsewhere
_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def type_in_words(hint: Any) -> str:
    """A type hint as a person would say it: `list of text`, `map from name to Column`."""
    for alias, words in _ALIASES.values():
        if hint == alias:
            return words
    if hint in _PLAIN:
        return _PLAIN[hint]
    if getattr(hint, "__metadata__", None) is not None:
        return type_in_words(get_args(hint)[0])
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal and len(arguments) > _MOST_WORDS:
        return "word"
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_in_words(each) for each in arguments))
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"list of {type_in_words(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(type_in_words(each) for each in arguments)}]"
    if origin is dict:
        return f"map from {type_in_words(arguments[0])} to {type_in_words(arguments[1])}"
    if inspect.isclass(hint) and issubclass(hint, BaseModel):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if getattr(hint, "__name__", "") == "JsonValue":
        return "any JSON value"
    return str(getattr(hint, "__name__", None) or hint).removeprefix("typing.")


def keys_table(model: type[BaseModel], meanings: Mapping[str, str], required: bool = True) -> str:
    """One row a field. Its meaning is the field's own description, else `meanings["<Model>.<field>"]`, else `meanings["<field>"]`; KeyError without one."""
    hints = get_type_hints(model, include_extras=True)
    rows = []
    for name, field in model.model_fields.items():
        meaning = field.description or meanings.get(f"{model.__name__}.{name}") or meanings.get(name)
        if meaning is None:
            raise KeyError(f"{model.__name__}.{name} has neither a description nor a meaning in pipelines/reference_meanings.py")
        rows.append((f"`{name}`", _without_null(type_in_words(hints[name]), field) + _bounds(field), *([_required(field)] if required else []), meaning))
    return table(("key", "type", *(["required"] if required else []), "meaning"), rows)


def docstring(of: object) -> str:
    """A docstring as paragraphs, without the line breaks of the source."""
    text = inspect.cleandoc(getattr(of, "__doc__", None) or "")
    return "\n\n".join(re.sub(r"\s*\n\s*", " ", part) for part in text.split("\n\n"))


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _without_null(words: str, field: FieldInfo) -> str:
    """An optional key need not be said to be null."""
    return words if field.is_required() else words.removesuffix(" or null")


def _required(field: FieldInfo) -> str:
    if field.is_required():
        return "yes"
    default = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
    empty = default is None or default == "" or default in ({}, (), [])
    if empty or isinstance(default, BaseModel):
        return "no"
    return f"no; `{str(default).lower() if isinstance(default, bool) else default}`"


def _bounds(field: FieldInfo) -> str:
    found = [
        f"{words} {getattr(each, key):g}" for each in field.metadata for key, words in _BOUNDS.items() if isinstance(getattr(each, key, None), int | float)
    ]
    lengths = [each.min_length for each in field.metadata if isinstance(getattr(each, "min_length", None), int)]
    if found and found not in (["above 0"], ["at least 0", "at most 1"]):
        return ", " + ", ".join(found)
    if found == ["above 0"] and field.annotation is int:
        return ", above 0"
    if lengths and get_origin(field.annotation) in (list, dict):
        return f", at least {lengths[0]}"
    return ""
