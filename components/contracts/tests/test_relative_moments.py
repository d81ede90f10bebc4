"""Moments relative to the start of a run."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from components.contracts.errors import CrisplineError
from components.contracts.relative_moments import absolute_moment, is_relative

NOW = datetime(2013, 4, 15, 13, 45, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2013-04-15T13:45:30Z"),
        ("now/d", "2013-04-15T00:00:00Z"),
        ("now/h", "2013-04-15T13:00:00Z"),
        ("now-14d", "2013-04-01T13:45:30Z"),
        ("now-1d/d", "2013-04-14T00:00:00Z"),
        ("now-90m/h", "2013-04-15T12:00:00Z"),
        ("2013-04-01T02:00:00+02:00", "2013-04-01T00:00:00Z"),
    ],
)
def test_relative_moments_become_absolute_and_absolute_ones_stay(text: str, moment: str) -> None:
    assert absolute_moment(text, NOW) == moment
    assert is_relative(text) == text.startswith("now")


@pytest.mark.parametrize("text", ["yesterday", "now+1d", "now-1", "now/w", "2013-04-01T00:00:00", ""])
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    assert not is_relative(text)
    with pytest.raises(CrisplineError, match="is no moment; write 2013-04-01T12:00:00Z, or one relative to the run"):
        absolute_moment(text, NOW)
