"""Moments relative to the start of a run, for runs that a schedule starts: `now`, `now-14d`, `now-1d/d`, as in date math elsewhere.

Whoever gives an absolute moment gets it back unchanged. A relative one becomes absolute once, when the run begins; from then on the run
knows business time only as data.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from components.contracts.durations import floor_to, format_moment, parse_duration, parse_moment
from components.contracts.errors import CrisplineError

_FORM: Final = re.compile(r"now(?:-(?P<back>\d+[smhdw]))?(?:/(?P<floor>[hd]))?")
_FLOORS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1)}


def is_relative(text: str) -> bool:
    """Whether `absolute_moment` needs `now` for it."""
    return _FORM.fullmatch(text) is not None


def absolute_moment(text: str, now: datetime) -> str:
    """RFC 3339 in UTC of an absolute moment, or of `now` minus a duration, rounded down to the hour (`/h`) or the day in UTC (`/d`).

    Raises CrisplineError for anything else.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        try:
            return format_moment(parse_moment(text))
        except ValueError as error:
            raise CrisplineError(f"{text!r} is no moment; write 2013-04-01T12:00:00Z, or one relative to the run: now, now-14d, now-1d/d ({error})") from None
    moment = now - parse_duration(found["back"]) if found["back"] else now
    return format_moment(floor_to(moment, _FLOORS[found["floor"]]) if found["floor"] else moment)
