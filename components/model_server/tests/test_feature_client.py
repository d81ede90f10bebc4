"""What the feature server's answers mean, whichever online store is behind it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from components.contracts.features import FeatureView, Latest
from components.model_server.feature_client import HttpFeatureClient, NamedView, ServedView

pytestmark = pytest.mark.serving

VIEW = NamedView.of(
    FeatureView(
        name="weather",
        table="weather",
        group="observation",
        entity=("origin",),
        cadence=timedelta(hours=1),
        max_staleness=timedelta(hours=6),
        features=(Latest(name="temp", column="temp"), Latest(name="humid", column="humid")),
    )
)


def served(status: str, value: float | None, moment: str) -> ServedView:
    """What the client makes of an answer in which both features have this status, value and event timestamp."""
    names = [f"{VIEW.served_name}__{name}" for name in VIEW.feature_names]
    column = {"values": [value], "statuses": [status], "event_timestamps": [moment]}
    answer = {"metadata": {"feature_names": names}, "results": [column, column]}

    def answered(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answer)

    client = HttpFeatureClient("http://feast", 1.0)
    client._client = httpx.Client(transport=httpx.MockTransport(answered))
    ((found),) = client.fetch([VIEW], [{"origin": "JFK"}])
    return found[VIEW.served_name]


@pytest.mark.parametrize(
    ("status", "value", "moment", "expected"),
    [
        ("PRESENT", 3.0, "2013-04-01T10:00:00Z", ServedView({"temp": 3.0, "humid": 3.0}, datetime(2013, 4, 1, 10, tzinfo=UTC))),
        ("PRESENT", None, "2013-04-01T10:00:00Z", ServedView({"temp": None, "humid": None}, datetime(2013, 4, 1, 10, tzinfo=UTC))),
        ("NOT_FOUND", None, "1970-01-01T00:00:00Z", ServedView({"temp": None, "humid": None}, None)),
        # Redis, of a key that it does not have.
        ("PRESENT", None, "1970-01-01T00:00:00Z", ServedView({"temp": None, "humid": None}, None)),
    ],
)
def test_nothing_published_is_told_apart_from_a_published_null(status: str, value: float | None, moment: str, expected: Any) -> None:
    assert served(status, value, moment) == expected
