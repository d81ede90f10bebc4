"""Feast's objects and stores, built from the declarations of a use case: nothing of Feast is written by hand or kept in YAML.

Two repositories. The *offline* one lives as long as one join: its views point at the exported snapshot of one data version and expire after
`max_staleness`. The *online* one is durable and holds the views of every feature set that is or was served, side by side under names that
carry the hash of their definition; its views never expire, because Feast's online expiry compares with the wall clock (measured: 2013 is
always expired); whoever reads compares the event timestamp with the prediction moment instead.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from components.contracts.errors import CrisplineError
from components.contracts.features import Aggregate, Feature, FeatureSet, FeatureView
from components.contracts.platform import Platform
from components.contracts.storage import is_local, read_whole, storage_path
from components.contracts.usecase import UseCase
from components.data_engineering.feature_tables import EVENT_TIMESTAMP, join_key_columns

if TYPE_CHECKING:
    from feast import FeatureStore

os.environ.setdefault("FEAST_USAGE", "False")

PROJECT = "crispline"
_USECASE_TAG = "usecase"
_REGISTRY_STORE = "components.data_engineering.registry_store.WholeRegistryStore"
_REGISTRATIONS = 5  # as often is a registration repeated when other processes register at the same moment


def feature_references(feature_set: FeatureSet) -> list[str]:
    """Feast's references, `<served name>:<feature>`, in the order of the model's columns."""
    return [f"{view.served_name}:{name}" for view in feature_set.views for name in view.feature_names]


def feast_objects(config: UseCase, views: Iterable[FeatureView], paths: Mapping[str, str], expire: bool) -> list[Any]:
    """Entities, sources and feature views for Feast's `apply`.

    `paths`: the parquet file behind each view, by served name. `expire`: give each view its `max_staleness` as time to live.
    """
    from feast import Entity, Field, FileSource
    from feast import FeatureView as FeastView
    from feast.types import Int64, String
    from feast.value_type import ValueType

    objects: dict[str, Any] = {}
    for view in views:
        entities, keys = [], []
        for key in join_key_columns(view):
            whole = key not in view.entity or config.data.tables[view.table].columns[key].type == "integer"
            entity = Entity(name=key, join_keys=[key], value_type=ValueType.INT64 if whole else ValueType.STRING)
            objects.setdefault(f"entity {key}", entity)
            entities.append(entity)
            keys.append(Field(name=key, dtype=Int64 if whole else String))
        source = FileSource(name=f"{view.served_name}_source", path=paths[view.served_name], timestamp_field=EVENT_TIMESTAMP)
        objects[f"view {view.served_name}"] = FeastView(
            name=view.served_name,
            description=view.description,
            entities=entities,
            schema=[*keys, *(Field(name=feature.name, dtype=_feast_type(config, view, feature)) for feature in view.features)],
            source=source,
            ttl=view.max_staleness if expire else timedelta(0),
            online=True,
            tags={_USECASE_TAG: config.name},
        )
    return list(objects.values())


def _feast_type(config: UseCase, view: FeatureView, feature: Feature) -> Any:
    from feast.types import Float64, String

    if isinstance(feature, Aggregate) or config.data.tables[view.table].columns[feature.column].type in ("integer", "float", "boolean"):
        return Float64
    return String


@contextmanager
def offline_store(config: UseCase, views: Iterable[FeatureView], paths: Mapping[str, str]) -> Iterator[FeatureStore]:
    """Feast over exported snapshots (DuckDB), with a registry of its own that is gone afterwards: two joins never meet in it."""
    with TemporaryDirectory(prefix="crispline-feast-") as folder:
        store = _feature_store(str(Path(folder) / "registry.db"), None, cache_ttl_seconds=600)
        on_disk = {name: _on_disk(path, Path(folder)) for name, path in paths.items()}
        with _quiet():
            store.apply(feast_objects(config, views, on_disk, expire=True))
        yield store


def _on_disk(uri: str, folder: Path) -> str:
    """A snapshot as a local file: DuckDB reads an object store through an extension that it downloads when it is first used, and pods have no way out."""
    path = storage_path(uri)
    if is_local(path):
        return uri
    copy = folder / path.name
    copy.write_bytes(read_whole(path))
    return str(copy)


def online_store(platform: Platform, cache_ttl_seconds: int = 600) -> FeatureStore:
    """Feast over the durable registry under `feature_store_uri` and the online store of `Platform.online_store`.

    `cache_ttl_seconds`: how long the registry is held before it is read again; 0 is for ever.
    """
    _work_in_utc()
    return _feature_store(registry_uri(platform), online_store_config(platform.online_store), cache_ttl_seconds)


def registry_uri(platform: Platform) -> str:
    return f"{platform.feature_store_uri.rstrip('/')}/registry.db"


def online_store_config(place: str) -> Any:
    """Feast's configuration for `Platform.online_store`: SQLite for a path, Redis for `redis://host[:port][/database][?key_ttl_seconds=...]` (rediss: TLS).

    Password and user of Redis come from REDIS_PASSWORD and REDIS_USERNAME. `key_ttl_seconds` (wall clock, renewed by each publication) bounds
    what views keyed by tick leave behind. Raises CrisplineError for any other URI.
    """
    if "://" not in place:
        return _sqlite(Path(place))
    parts = urlsplit(place)
    options = dict(parse_qsl(parts.query))
    database, ttl = parts.path.strip("/") or "0", options.pop("key_ttl_seconds", "")
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or options or not database.isdigit() or (ttl and not ttl.isdigit()):
        raise CrisplineError(f"online_store is {place!r}; it must be a path (SQLite) or redis://host:6379/0, at most with ?key_ttl_seconds=<whole seconds>")
    if parts.username or parts.password:
        raise CrisplineError("online_store holds credentials; remove them from the platform file and set REDIS_PASSWORD (and REDIS_USERNAME) instead")
    return _redis(f"{parts.hostname}:{parts.port or 6379}", database, parts.scheme == "rediss", int(ttl) if ttl else None)


def _sqlite(file: Path) -> Any:
    from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig

    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # the feature server reads while a publication writes; the mode stays with the file
    return SqliteOnlineStoreConfig(path=str(file))


def _redis(address: str, database: str, tls: bool, key_ttl_seconds: int | None) -> Any:
    from feast.infra.online_stores.redis import RedisOnlineStoreConfig

    settings = {"db": database, "ssl": "true" if tls else "false", "socket_timeout": "5", "socket_connect_timeout": "5"}
    for name, variable in (("username", "REDIS_USERNAME"), ("password", "REDIS_PASSWORD")):
        value = os.environ.get(variable, "")
        if "," in value:
            raise CrisplineError(f"{variable} contains a comma, which Feast's connection string cannot carry; choose another one")
        if value:
            settings[name] = json.dumps(value)  # Feast reads each value as JSON: a password of digits would become a number
    # Feast's own comparison of event times skips a tick that is there already, so a corrected one would never be served; OnlinePublisher compares.
    return RedisOnlineStoreConfig(
        connection_string=",".join([address, *(f"{name}={value}" for name, value in settings.items())]), key_ttl_seconds=key_ttl_seconds, skip_dedup=True
    )


def register_views(store: FeatureStore, platform: Platform, config: UseCase, views: Collection[FeatureView]) -> tuple[str, ...]:
    """Register the views that the online store does not have yet; those already there are left as they are. Returns the new names.

    Raises CrisplineError when another use case has registered a view of the same name and definition.
    """
    from components.data_engineering.registry_store import RegistryConflict

    for attempt in range(_REGISTRATIONS):
        store.refresh_registry()  # type: ignore[no-untyped-call]
        missing = _missing(store, config, views)
        paths = {view.served_name: f"{platform.feature_store_uri}/published/{view.served_name}.parquet" for view in missing}
        try:
            if missing:
                with _quiet():
                    store.apply(feast_objects(config, missing, paths, expire=False))
        except RegistryConflict:
            if attempt == _REGISTRATIONS - 1:
                raise
        else:
            return tuple(view.served_name for view in missing)
    raise AssertionError("unreachable")


def _missing(store: FeatureStore, config: UseCase, views: Iterable[FeatureView]) -> list[FeatureView]:
    present = {view.name: view for view in store.list_feature_views(allow_cache=True)}
    missing = []
    for view in views:
        known = present.get(view.served_name)
        if known is None:
            missing.append(view)
        elif known.tags.get(_USECASE_TAG) != config.name:
            raise CrisplineError(
                f"feature view {view.served_name} belongs to use case {known.tags.get(_USECASE_TAG)!r}; rename the view in {config.name}'s features.py"
            )
    return missing


def _feature_store(registry: str, online: Any, cache_ttl_seconds: int) -> FeatureStore:
    with _quiet():
        from feast import FeatureStore
        from feast.infra.offline_stores.duckdb import DuckDBOfflineStoreConfig
        from feast.repo_config import RegistryConfig, RepoConfig

        config = RepoConfig(
            project=PROJECT,
            provider="local",
            registry=RegistryConfig(path=registry, registry_store_type=_REGISTRY_STORE, cache_ttl_seconds=cache_ttl_seconds),
            online_store=online,
            offline_store=DuckDBOfflineStoreConfig(),
            entity_key_serialization_version=3,
        )
        return FeatureStore(config=config)


def _work_in_utc() -> None:
    """Feast's SQLite store (0.67) passes a naive UTC time through the process's own zone on its way in and out.

    Two processes in different zones, or one hour a year in a zone with summer time, would get other event timestamps than were written.
    """
    os.environ["TZ"] = "UTC"
    time.tzset()


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
