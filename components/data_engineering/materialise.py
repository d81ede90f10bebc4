"""Publish the ticks of a period into the online store that the feature server reads."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.contracts.artifacts import DataVersion
from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError
from components.contracts.features import FeatureSet, FeatureView
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.contracts.usecase import Moment
from components.data_engineering.feature_events import read_events
from components.data_engineering.feature_repository import online_store, register_views
from components.data_engineering.feature_tables import EVENT_TIMESTAMP, build_view, join_key_columns, ticks_between

if TYPE_CHECKING:
    from feast import FeatureView as FeastView
    from feast.infra.provider import Provider


class MaterialisedTicks(BaseModel):
    """What one publication brought: rows written by served view name; views without a tick in [start, end) are absent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usecase: str
    data_version: str
    start: Moment
    end: Moment
    rows: dict[str, int]


def materialise(
    usecase: LoadedUseCase, platform: Platform, data_version: DataVersion, start: datetime, end: datetime, feature_sets: Sequence[FeatureSet] = ()
) -> MaterialisedTicks:
    """Publish once; see `OnlinePublisher`. A process that publishes often keeps one (it takes seconds to make and milliseconds to use)."""
    return OnlinePublisher(usecase, platform, feature_sets).publish(data_version, start, end)


def ticks_of(
    usecase: LoadedUseCase, lake_uri: str, views: Iterable[FeatureView], data_version: DataVersion, start: datetime, end: datetime
) -> dict[str, pd.DataFrame]:
    """The rows that the ticks in [start, end) publish, by served view name; views without a tick are absent. Reads the lake, touches no store."""
    computed = {}
    for view in views:
        ticks = ticks_between(view.cadence, start, end)
        if len(ticks):
            first = _EPOCH + int(ticks[0]) * view.cadence
            last = _EPOCH + int(ticks[-1]) * view.cadence
            events = read_events(lake_uri, usecase, data_version, view, first, last + timedelta(microseconds=1))
            computed[view.served_name] = build_view(view, events, first, end)
    return computed


class OnlinePublisher:
    """Publishes the views of several feature sets (champion, challenger, rollback target) side by side; a view that they share is published once.

    One publisher at a time per use case and online store: Feast's stores overwrite without comparing event times, so this class compares first.
    """

    def __init__(self, usecase: LoadedUseCase, platform: Platform, feature_sets: Sequence[FeatureSet] = ()) -> None:
        """`feature_sets`: default is the use case's own; sets of released bundles may differ from it. Registers the views that are new."""
        from feast.infra.provider import get_provider

        self.usecase, self.platform = usecase, platform
        self.store = online_store(platform)
        self.provider: Provider = get_provider(self.store.config)
        self.views: dict[str, FeatureView] = {}
        self._feast_views: dict[str, FeastView] = {}
        self._served_at: dict[tuple[str, tuple[object, ...]], pd.Timestamp] = {}  # event timestamp by served view name and key, as far as known
        self.serve(feature_sets or (usecase.features,))

    def serve(self, feature_sets: Sequence[FeatureSet]) -> None:
        """From now on publish exactly these feature sets."""
        self.views = {view.served_name: view for features in feature_sets for view in features.views}
        register_views(self.store, self.platform, self.usecase.config, self.views.values())
        self._feast_views = {name: self.store.get_feature_view(name) for name in self.views}

    def publish(self, data_version: DataVersion, start: datetime, end: datetime) -> MaterialisedTicks:
        """Publish exactly the ticks in [start, end) of each view, in order. Doing it again changes nothing; an older tick never replaces a newer.

        The period is half-open as that of an ingest: the rows known at a tick are in the lake once the period that holds the tick was ingested.
        Raises CrisplineError when the data version does not reach to `end`, because the last ticks would be computed from a part of their data.
        """
        if end > data_version.as_of:
            raise CrisplineError(
                f"cannot publish ticks until {format_moment(end)} from a data version that ends at {format_moment(data_version.as_of)}; ingest that period first"
            )
        return self.write(data_version, start, end, ticks_of(self.usecase, self.platform.lake_uri, self.views.values(), data_version, start, end))

    def write(self, data_version: DataVersion, start: datetime, end: datetime, ticks: Mapping[str, pd.DataFrame]) -> MaterialisedTicks:
        """The second half of `publish`: bring what `ticks_of` computed for the period into the online store."""
        from redis.exceptions import RedisError

        rows = {}
        for name, published in ticks.items():
            try:
                rows[name] = self._write(self.views[name], published)
            except RedisError as error:
                raise CrisplineError(
                    f"the online store {self.platform.online_store} failed: {type(error).__name__}: {error}\n"
                    "    remedy: see that it runs and that REDIS_PASSWORD is its password, then publish the same period again; that changes nothing twice"
                ) from error
        return MaterialisedTicks(usecase=self.usecase.name, data_version=data_version.id, start=start, end=end, rows=rows)

    def _write(self, view: FeatureView, published: pd.DataFrame) -> int:
        if view.overwrites and len(published):
            published = published.drop_duplicates(list(view.entity), keep="last")
            published = published[published[EVENT_TIMESTAMP] >= self._served_since(view, published)]
        if len(published):
            # Not FeatureStore.write_to_online_store: it skips a batch whose values are all null, and old values would be served on.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.provider.ingest_df(self._feast_views[view.served_name], published)
            if view.overwrites:
                self._served_at.update(zip(_keys(view, published), published[EVENT_TIMESTAMP], strict=True))
        return len(published)

    def _served_since(self, view: FeatureView, published: pd.DataFrame) -> pd.Series[Any]:
        """Event timestamp of what is served for each row's key; the epoch where nothing is. The store is asked for keys that this publisher did not write."""
        keys = _keys(view, published)
        unknown = published[[key not in self._served_at for key in keys]]
        if len(unknown):
            feature = view.feature_names[0]
            rows = {key: unknown[key].tolist() for key in join_key_columns(view)}
            answer = self.store.get_online_features(features=[f"{view.served_name}:{feature}"], entity_rows=rows).to_dict(include_event_timestamps=True)
            self._served_at.update(zip(_keys(view, unknown), pd.to_datetime(answer[f"{feature}__ts"], unit="s", utc=True), strict=True))
        return pd.Series(pd.DatetimeIndex([self._served_at[key] for key in keys]), index=published.index)


def _keys(view: FeatureView, rows: pd.DataFrame) -> list[tuple[str, tuple[object, ...]]]:
    name = view.served_name  # hashes the definition at every call
    return [(name, key) for key in zip(*(rows[column].tolist() for column in join_key_columns(view)), strict=True)]


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
