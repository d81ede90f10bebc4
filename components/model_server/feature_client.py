"""Asks Feast's feature server, over HTTP, for the features of rows known by their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

import httpx

from components.contracts.errors import CrisplineError
from components.contracts.features import FeatureView
from components.contracts.serving import FeatureValue

KeyValue = str | int
Key = Mapping[str, KeyValue]


class FeatureServerFailed(CrisplineError):
    """The feature server did not answer in time, answered with an error, or answered something else than it was asked for."""


@dataclass(frozen=True)
class ServedView:
    """What one view holds for one row. `event_time` is the moment of its publication, None when nothing is published for the key."""

    values: Mapping[str, FeatureValue]
    event_time: datetime | None


class FeatureClient(Protocol):
    """Where the data plane gets features from."""

    def fetch(self, views: Sequence[FeatureView], rows: Sequence[Key]) -> list[dict[str, ServedView]]:
        """For each row, in order, each view by its served name. `rows` carry every join key, tick keys included.

        Raises FeatureServerFailed.
        """
        ...


def tick_key(view: FeatureView) -> str:
    """Name of the join key that holds the tick of a view that is keyed by it."""
    return f"{view.name}_tick"


def tick_of(view: FeatureView, moment: datetime) -> int:
    """Number of the view's last tick that is not after `moment`: whole cadences since the epoch."""
    return int((moment - _EPOCH) // view.cadence)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HttpFeatureClient:
    """`POST <url>/get-online-features` of Feast 0.67, over kept-alive connections; safe to use from several threads."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(timeout=httpx.Timeout(timeout_seconds), limits=httpx.Limits(max_keepalive_connections=16), trust_env=False)

    def fetch(self, views: Sequence[FeatureView], rows: Sequence[Key]) -> list[dict[str, ServedView]]:
        """One HTTP request for all views and rows."""
        names = [f"{view.served_name}:{name}" for view in views for name in view.feature_names]
        keys = dict.fromkeys(key for view in views for key in (*view.entity, *((tick_key(view),) if view.keyed_by_tick else ())))
        body = {"features": names, "entities": {key: [row[key] for row in rows] for key in keys}, "full_feature_names": True}
        try:
            answer = self._client.post(f"{self.url}/get-online-features", json=body)
            answer.raise_for_status()
            document = answer.json()
        except httpx.TimeoutException as error:
            raise FeatureServerFailed(f"the feature server at {self.url} did not answer in time") from error
        except (httpx.HTTPError, ValueError) as error:
            raise FeatureServerFailed(f"the feature server at {self.url} failed: {type(error).__name__}: {error}") from error
        try:
            return _rows(document, views, len(rows))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise FeatureServerFailed(f"the feature server at {self.url} answered in another form than get-online-features: {error!r}") from error

    def close(self) -> None:
        self._client.close()


def _rows(document: Mapping[str, Any], views: Sequence[FeatureView], count: int) -> list[dict[str, ServedView]]:
    """Feast answers by column: `metadata.feature_names[i]` belongs to `results[i]`, whose lists run over the rows."""
    columns = dict(zip(document["metadata"]["feature_names"], document["results"], strict=True))
    rows: list[dict[str, ServedView]] = [{} for _ in range(count)]
    for view in views:
        found = [(name, columns[f"{view.served_name}__{name}"]) for name in view.feature_names]
        for number in range(count):
            present = {name: column["values"][number] for name, column in found if column["statuses"][number] in ("PRESENT", "OUTSIDE_MAX_AGE", "NULL_VALUE")}
            times = [column["event_timestamps"][number] for name, column in found if name in present]
            rows[number][view.served_name] = ServedView(
                {name: present.get(name) for name in view.feature_names}, max((_moment(time) for time in times), default=None)
            )
    return rows


@lru_cache(maxsize=4096)  # a batch shares few publications
def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"event timestamp {text!r} has no time zone")
    return moment.astimezone(UTC)
