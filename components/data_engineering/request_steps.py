"""The first step of a run that a person or a schedule asked for: what it was asked for, made definite."""

from __future__ import annotations

from dataclasses import dataclass

from components.contracts.durations import format_moment, parse_moment
from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.relative_moments import absolute_moment

LAST = "last"  # as a start: where the last ingested period ended, so that a schedule leaves no gap and repeats nothing


@dataclass(frozen=True)
class Request:
    """Moments are RFC 3339 or empty where none was asked for."""

    as_of: str
    start: str
    end: str
    cause: str


def resolve_request(usecase: str, pipeline: str, created: str, as_of: str, start: str, end: str, cause: str) -> Request:
    """Relative moments become absolute against `created` (RFC 3339, when the run was made); an empty cause becomes `<pipeline>-<as of or end>`.

    The same arguments give the same request, however often the step is run. Raises CrisplineError for what is no moment, and for a start
    `last` of an empty lake.
    """
    now = parse_moment(created)
    found_end = absolute_moment(end, now) if end else ""
    found_as_of = absolute_moment(as_of, now) if as_of else ""
    found_start = _last(usecase) if start == LAST else absolute_moment(start, now) if start else ""
    return Request(found_as_of, found_start, found_end, cause or default_cause(pipeline, found_as_of or found_end))


def default_cause(pipeline: str, moment: str) -> str:
    """What a run that nobody gave a cause stands for: its pipeline at its moment."""
    return f"{pipeline}-{moment}"


def _last(usecase: str) -> str:
    from components.data_engineering.lake import last_period

    platform, loaded = Platform.load(), load_usecase(usecase)
    found = last_period(platform.lake_uri, loaded.name)
    if found is None:
        raise CrisplineError(f"the lake holds nothing of {loaded.name!r}, so that {LAST!r} is no start; ingest a first period with a start of its own")
    return format_moment(found.end)
