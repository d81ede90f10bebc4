"""The warnings about looked-up values, in one place: the model server writes them, the monitoring counts them. Imports nothing heavy."""

from __future__ import annotations

FALLBACK_WARNING = "feature server: no answer; every looked-up feature is missing"
_STALE = "stale, "
_MISSING = "; its features are missing"


def stale(age: str, allowed: str) -> str:
    """The complaint about a view whose value is older than declared; the arguments are durations as text."""
    return f"{_STALE}{age} old where {allowed} are allowed"


def view_warning(view: str, complaint: str) -> str:
    """The warning of an answer that did not use what it found, or did not find, in a view."""
    return f"{view}: {complaint}{_MISSING}"


def says_stale(warning: str) -> bool:
    """Whether a value was there but too old, or could not be asked for: the publication or the feature server is behind."""
    return warning == FALLBACK_WARNING or (says_missing(warning) and warning.partition(": ")[2].startswith(_STALE))


def says_missing(warning: str) -> bool:
    """Whether the features of a view are missing for whatever reason: stale, never published for the key, no key."""
    return warning == FALLBACK_WARNING or warning.endswith(_MISSING)
