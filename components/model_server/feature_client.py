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


@dataclass(frozen=True)
class NamedView:
    """A view with the names that every lookup needs; they derive from a hash over its definition, too dear to compute for every row."""

    view: FeatureView
    served_name: str
    feature_names: tuple[str, ...]
    tick_key: str

    @classmethod
    def of(cls, view: FeatureView) -> NamedView:
        return cls(view, view.served_name, view.feature_names, f"{view.name}_tick" if view.keyed_by_tick else "")

    @property
    def keys(self) -> tuple[str, ...]:
        """Its join keys, the tick's included."""
        return (*self.view.entity, self.tick_key) if self.tick_key else self.view.entity


class FeatureClient(Protocol):
    """Where the data plane gets features from."""

    def fetch(self, views: Sequence[NamedView], rows: Sequence[Key]) -> list[dict[str, ServedView]]:
        """For each row, in order, each view by its served name. `rows` carry every join key, tick keys included.

        Raises FeatureServerFailed.
        """
        ...


def tick_of(view: FeatureView, moment: datetime) -> int:
    """Number of the view's last tick that is not after `moment`: whole cadences since the epoch."""
    return int((moment - _EPOCH) // view.cadence)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HttpFeatureClient:
    """`POST <url>/get-online-features` of Feast 0.67, over kept-alive connections; safe to use from several threads."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(timeout=httpx.Timeout(timeout_seconds), limits=httpx.Limits(max_keepalive_connections=16), trust_env=False)

    def fetch(self, views: Sequence[NamedView], rows: Sequence[Key]) -> list[dict[str, ServedView]]:
        """One HTTP request for all views and rows."""
        names = [f"{view.served_name}:{name}" for view in views for name in view.feature_names]
        keys = dict.fromkeys(key for view in views for key in view.keys)
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


def _rows(document: Mapping[str, Any], views: Sequence[NamedView], count: int) -> list[dict[str, ServedView]]:
    """Feast answers by column: `metadata.feature_names[i]` belongs to `results[i]`, whose lists run over the rows."""
    columns = dict(zip(document["metadata"]["feature_names"], document["results"], strict=True))
    rows: list[dict[str, ServedView]] = [{} for _ in range(count)]
    for view in views:
        found = [(name, columns[f"{view.served_name}__{name}"]) for name in view.feature_names]
        for number, row in enumerate(rows):
            values: dict[str, FeatureValue] = {}
            latest: datetime | None = None
            for name, column in found:
                # Over Redis, Feast 0.67 answers a key that it does not have with PRESENT, null and the epoch.
                moment = _moment(column["event_timestamps"][number]) if column["statuses"][number] in _PRESENT else _EPOCH
                values[name] = column["values"][number] if moment > _EPOCH else None
                if moment > _EPOCH:
                    latest = moment if latest is None or moment > latest else latest
            row[view.served_name] = ServedView(values, latest)
    return rows


_PRESENT = ("PRESENT", "OUTSIDE_MAX_AGE", "NULL_VALUE")


@lru_cache(maxsize=4096)  # a batch shares few publications
def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"event timestamp {text!r} has no time zone")
    return moment.astimezone(UTC)
