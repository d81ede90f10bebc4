"""Cron as people write it, as Kubeflow Pipelines reads it.

Its controller parses with robfig/cron 1.2: seconds first, Sunday is 0, and every schedule is read in the one time zone of the installation.
Five fields given to it as they are would be taken for second to month.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from components.contracts.errors import CrisplineError

_DESCRIPTORS: Final = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 6))
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART: Final = re.compile(r"(?:\*|(?P<low>\w+)(?:-(?P<high>\w+))?)(?:/(?P<step>\d+))?")
_COMPARED_DAYS: Final = 366 * 2


def kubeflow_cron(cron: str, time_zone: str, installation: str) -> str:
    """Six fields with second 0, or the descriptor. Raises CrisplineError for a malformed cron, and for a zone that is not the installation's.

    A zone that changes its offset cannot be expressed in another one by any single cron.
    """
    if not same_clock(time_zone, installation):
        raise CrisplineError(
            f"Kubeflow Pipelines reads every cron in one time zone, here {installation} (pipelines_time_zone of the platform file), so that {time_zone} "
            f"is not to be had: write the cron in {installation}, or set CRON_SCHEDULE_TIMEZONE of the Deployment ml-pipeline-scheduledworkflow and "
            f"pipelines_time_zone both to {time_zone}"
        )
    if cron in _DESCRIPTORS:
        return cron
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        raise CrisplineError(f"cron {cron!r} has {len(fields)} fields; write five (minute hour day-of-month month day-of-week) or {', '.join(_DESCRIPTORS)}")
    for text, (name, low, high) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            _check(cron, name, part, low, high)
    return " ".join(["0", *fields])


def same_clock(one: str, other: str) -> bool:
    """Whether two zones show the same time, now and for two years. Raises CrisplineError for an unknown one."""
    zones = [_zone(one), _zone(other)]
    now = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
    hours = (now + timedelta(hours=hour) for hour in range(_COMPARED_DAYS * 24))
    return one == other or all(moment.astimezone(zones[0]).utcoffset() == moment.astimezone(zones[1]).utcoffset() for moment in hours)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise CrisplineError(f"there is no time zone {name!r}; write UTC or a name like Europe/Berlin") from None


def _check(cron: str, name: str, part: str, low: int, high: int) -> None:
    match = _PART.fullmatch(part)
    values = [_number(name, match[group]) for group in ("low", "high") if match[group]] if match else [None]
    if any(value is None or not low <= value <= high for value in values) or (match and match["step"] == "0"):
        hint = "; Sunday is 0" if name == "day of the week" else ""
        raise CrisplineError(f"cron {cron!r}: {part!r} is no {name}; write *, {low} to {high}, a range, a step (*/15) or a list{hint}")
    if len(values) == 2 and values[0] > values[1]:  # type: ignore[operator]
        raise CrisplineError(f"cron {cron!r}: the range {part!r} of the {name} runs backwards")


def _number(name: str, text: str) -> int | None:
    names, first = {"month": (_MONTHS, 1), "day of the week": (_DAYS, 0)}.get(name, ((), 0))
    if text.lower() in names:
        return names.index(text.lower()) + first
    return int(text) if text.isdigit() else None
