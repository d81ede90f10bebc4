"""Durations as people write them in YAML: `90s`, `15m`, `2h`, `14d`, `2w`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: object) -> timedelta:
    """Read `2h` and the like. Raises ValueError naming the accepted forms."""
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"(\d+)([smhdw])", text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a whole number and a unit: 90s, 15m, 2h, 14d, 2w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def format_duration(value: timedelta) -> str:
    """The shortest form that `parse_duration` reads back to the same value (whole seconds)."""
    seconds = int(value.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]


def floor_to(moment: datetime, tick: timedelta) -> datetime:
    """The last multiple of `tick` since the epoch that is not after `moment` (aware, any zone); the result is in UTC."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + ((moment - epoch) // tick) * tick


def format_moment(moment: datetime) -> str:
    """An aware moment as RFC 3339 in UTC, e.g. `2013-04-01T10:00:00Z`. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; business time is always aware")
    text = moment.astimezone(UTC).isoformat(timespec="auto")
    return text.replace("+00:00", "Z")


def parse_moment(text: str) -> datetime:
    """Read RFC 3339 with a zone. Raises ValueError for a naive moment: guessing a zone would move labels and features in time."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write e.g. 2013-04-01T10:00:00Z")
    return moment.astimezone(UTC)
