"""Where the online store and the registry are, what is refused, and what the feature server answers when there is nothing yet."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from feast.repo_config import RegistryConfig

from components.contracts.artifacts import DataVersion, TableVersion
from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.storage import read_folder, storage_path
from components.data_engineering.check_services import check_feature_server, registered_lookup
from components.data_engineering.feature_repository import online_store, online_store_config, register_views
from components.data_engineering.feature_server import feature_server_app
from components.data_engineering.lineage import emit_materialised
from components.data_engineering.registry_store import WholeRegistryStore

pytestmark = pytest.mark.pipeline


@pytest.fixture
def bucket() -> Iterator[str]:
    """An empty place on an object store, played by fsspec's in-memory file system."""
    uri = f"memory://{uuid.uuid4().hex}"
    yield uri
    path = storage_path(uri)
    if path.exists():
        path.fs.rm(path.path, recursive=True)


def connection(place: str, monkeypatch: pytest.MonkeyPatch, password: str = "", user: str = "") -> str:
    monkeypatch.setenv("REDIS_PASSWORD", password)
    monkeypatch.setenv("REDIS_USERNAME", user)
    return str(online_store_config(place).connection_string)


def test_a_redis_is_named_by_its_uri_and_its_password_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection("redis://crispline-redis", monkeypatch).startswith("crispline-redis:6379,db=0,ssl=false,")
    said = connection("rediss://cache.example.org:6380/3", monkeypatch, password="1=2", user="features")
    assert said.startswith("cache.example.org:6380,db=3,ssl=true,") and 'password="1=2"' in said and 'username="features"' in said
    assert online_store_config("redis://cache?key_ttl_seconds=864000").key_ttl_seconds == 864000


@pytest.mark.parametrize("place", ["http://cache:6379", "redis://cache/zero", "redis://", "redis://cache?ttl=3", "redis://cache?key_ttl_seconds=soon"])
def test_an_online_store_that_is_none_is_refused_with_what_it_may_be(place: str) -> None:
    with pytest.raises(CrisplineError, match="a path \\(SQLite\\) or redis://host:6379/0"):
        online_store_config(place)


def test_a_password_in_the_platform_file_is_refused_and_not_repeated() -> None:
    with pytest.raises(CrisplineError, match="set REDIS_PASSWORD") as refused:
        online_store_config("redis://user:hunter2@cache:6379")
    assert "hunter2" not in str(refused.value)


def test_a_password_that_feast_cannot_carry_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CrisplineError, match="REDIS_PASSWORD contains a comma") as refused:
        connection("redis://cache", monkeypatch, password="hunter,2")
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize("place", ["disk", "object store"])
def test_a_registry_is_read_as_it_was_written_and_reading_writes_nothing(place: str, bucket: str, tmp_path: Path) -> None:
    uri = str(tmp_path) if place == "disk" else bucket
    store = WholeRegistryStore(RegistryConfig(path=f"{uri}/registry.db"))
    registry = store.get_registry_proto()
    assert not storage_path(f"{uri}/registry.db").exists()
    registry.projects.add().spec.name = "crispline"
    store.update_registry_proto(registry)
    again = WholeRegistryStore(RegistryConfig(path=f"{uri}/registry.db")).get_registry_proto()
    assert [project.spec.name for project in again.projects] == ["crispline"] and again.version_id
    store.teardown()
    assert not list(store.get_registry_proto().projects)


@pytest.fixture
def platform(tmp_path: Path, bucket: str) -> Platform:
    """Features on the object store, as on Kubernetes; the online store alone is a file."""
    return Platform.embedded(tmp_path).model_copy(update={"feature_store_uri": f"{bucket}/features"})


def test_an_empty_feature_store_is_refused_unless_it_is_the_first_day(platform: Platform) -> None:
    with pytest.raises(CrisplineError, match="materialise features first"):
        feature_server_app(platform)
    with TestClient(feature_server_app(platform, allow_empty=True), raise_server_exceptions=False) as client:
        assert check_feature_server(client, None)[-1] == "nothing was published yet: there is nothing to look up"


def test_views_on_an_object_store_are_found_by_the_running_server_and_it_writes_nothing(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.data_engineering.feature_server.REGISTRY_SECONDS", 0.05)
    flights = load_usecase("flights")
    with TestClient(feature_server_app(platform, allow_empty=True), raise_server_exceptions=False) as client:
        register_views(online_store(platform), platform, flights.config, flights.features.views)
        lookup = registered_lookup(platform)
        assert lookup is not None
        deadline = time.monotonic() + 20
        while True:
            try:
                assert check_feature_server(client, lookup)[-1] == f"looks up {lookup[0]}"
                break
            except CrisplineError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        for path in ("/push", "/write-to-online-store", "/materialize", "/materialize-incremental", "/chat", "/docs"):
            assert client.post(path, json={}).status_code == 404, path


def test_a_registry_that_is_away_leaves_the_server_with_the_one_it_knows(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    flights = load_usecase("flights")
    register_views(online_store(platform), platform, flights.config, flights.features.views)
    lookup, tries = registered_lookup(platform), []

    def away(_: object) -> None:
        tries.append(time.monotonic())
        raise OSError("the object store is away")

    with TestClient(feature_server_app(platform), raise_server_exceptions=False) as client:
        monkeypatch.setattr("components.data_engineering.feature_server.REGISTRY_SECONDS", 0.05)
        monkeypatch.setattr(WholeRegistryStore, "get_registry_proto", away)
        deadline = time.monotonic() + 20
        while len(tries) < 3:
            assert time.monotonic() < deadline, "the registry is not tried again"
            time.sleep(0.05)
        assert check_feature_server(client, lookup)[-1].startswith("looks up")


def test_lineage_events_on_an_object_store_are_one_object_each(bucket: str) -> None:
    table = TableVersion(table="flights.schedule", version=3, rows=10, content_hash="ab")
    version = DataVersion(id="v1", usecase="flights", as_of=datetime(2013, 5, 1, tzinfo=UTC), tables={"flights.schedule": table})
    run = emit_materialised(f"{bucket}/lineage", version, datetime(2013, 5, 1, tzinfo=UTC), {"weather": 3})
    found = {name: json.loads(content) for name, content in read_folder(storage_path(f"{bucket}/lineage")).items()}
    assert len(found) == 2 and all(name.startswith(f"{run}-") for name in found)
    assert sorted(event["eventType"] for event in found.values()) == ["COMPLETE", "START"]
