"""From checked rows to the features that the model receives: given ones as they came, looked-up ones if they are fresh.

A looked-up value counts as missing, with a warning in the answer, when nothing is published for its key, when it is older at the prediction
moment than the view's `max_staleness`, or when it was published only after that moment (training would not have seen it). When the feature
server fails, the use case's `fallback` decides: every looked-up feature missing, with a warning, or a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from components.contracts.durations import format_duration
from components.contracts.features import FeatureView
from components.contracts.serving import FeatureValue, Instance, ServingContract
from components.model_server.errors import FeaturesUnavailable, RequestRefused
from components.model_server.feature_client import FeatureClient, FeatureServerFailed, KeyValue, NamedView, ServedView, tick_of
from components.model_server.lookup_warnings import FALLBACK_WARNING, stale, view_warning
from components.model_server.requests import CheckedRow, check_value


@dataclass(frozen=True)
class Resolved:
    """One row as the model receives it: every feature by name, None where missing; the event time of each looked-up view."""

    instance: Instance
    features: dict[str, FeatureValue]
    feature_times: dict[str, datetime | None]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Lookup:
    """Where a release's features come from: its contract, its views by their served names, and the feature server, if there is one."""

    contract: ServingContract
    views: tuple[NamedView, ...]
    client: FeatureClient | None

    @classmethod
    def of(cls, contract: ServingContract, client: FeatureClient | None) -> Lookup:
        return cls(contract, tuple(NamedView.of(view) for view in contract.feature_set.views), client)

    def resolve(self, rows: Sequence[CheckedRow]) -> list[Resolved]:
        """All rows with all features, in order, with one call of the feature server. Raises FeaturesUnavailable under `fallback: refuse`."""
        served = self._fetch([row for row in rows if row.keys is not None])
        answers = iter(served or ())
        resolved = []
        for row in rows:
            if row.keys is None:
                times: dict[str, datetime | None] = {view.served_name: None for view in self.views}
                resolved.append(Resolved(row.instance, row.given, times, row.warnings))
            else:
                resolved.append(self._merge(row, next(answers) if served is not None else None))
        return resolved

    def entity_rows(self, rows: Sequence[CheckedRow]) -> list[dict[str, KeyValue]]:
        """Join keys of each row, with the tick of its own prediction moment for every view that is keyed by ticks.

        A key that the row lacks has a stand-in, since Feast takes whole columns; what is found for it is not used.
        """
        whole = {key for key in self.contract.feature_set.join_keys if self.contract.columns[key].type == "integer"}
        ticked = [view for view in self.views if view.tick_key]
        return [
            {key: _key_value(row, key, key in whole) for key in self.contract.feature_set.join_keys}
            | {view.tick_key: tick_of(view.view, row.instance.prediction_moment) for view in ticked}
            for row in rows
        ]

    def _fetch(self, rows: Sequence[CheckedRow]) -> list[dict[str, ServedView]] | None:
        """None when the feature server failed and the use case falls back on missing values."""
        if not rows or not self.views:
            return [{} for _ in rows]
        try:
            if self.client is None:
                raise FeatureServerFailed("no feature server is configured")
            return self.client.fetch(self.views, self.entity_rows(rows))
        except FeatureServerFailed as error:
            if self.contract.fallback == "refuse":
                raise FeaturesUnavailable("keys", "the feature server did not answer", "try again, or send complete `features`") from error
            return None

    def _merge(self, row: CheckedRow, served: Mapping[str, ServedView] | None) -> Resolved:
        features: dict[str, FeatureValue] = dict(row.given)
        times: dict[str, datetime | None] = {}
        warnings = list(row.warnings)
        if served is None:
            warnings.append(FALLBACK_WARNING)
        for view in self.views:
            answer = None if served is None else served.get(view.served_name)
            complaint = "" if answer is None else _complaint(view.view, answer, row)
            times[view.served_name] = None if answer is None else answer.event_time
            if complaint:
                warnings.append(view_warning(view.view.name, complaint))
            for name in view.feature_names:
                features[name] = None if answer is None or complaint else _value(name, answer.values.get(name), self.contract, warnings)
        return Resolved(row.instance, features, times, tuple(warnings))


def _key_value(row: CheckedRow, key: str, whole: bool) -> KeyValue:
    value = (row.keys or {}).get(key)
    if value is None:
        return -1 if whole else ""
    return int(value) if whole else value


def _complaint(view: FeatureView, answer: ServedView, row: CheckedRow) -> str:
    """Why a view's answer must not be used; empty when it may."""
    if any(key not in (row.keys or {}) for key in view.entity):
        return "the row has no key for it"
    if answer.event_time is None:
        return "nothing is published for the key"
    age = row.instance.prediction_moment - answer.event_time
    if age.total_seconds() < 0:
        return f"published {format_duration(-age)} after the prediction moment"
    if age > view.max_staleness:
        return stale(format_duration(age), format_duration(view.max_staleness))
    return ""


def _value(name: str, value: FeatureValue, contract: ServingContract, warnings: list[str]) -> FeatureValue:
    """A served value, held against its column like a sent one, but never refused: the caller cannot correct the feature store."""
    try:
        return check_value(name, value, contract.columns[name])
    except RequestRefused as error:
        warnings.append(f"{name}: the feature server holds a value that {error.message}; it is missing")
        return None
