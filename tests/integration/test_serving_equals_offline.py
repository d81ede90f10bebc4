"""What the feature server answers at a prediction moment is what the training join gives for it, bit for bit, on real flights, over either online store."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from components.contracts.artifacts import DataVersion
from components.contracts.features import Aggregate, FeatureSet, FeatureView
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.data_engineering.entities import read_entities
from components.data_engineering.feature_tables import join_key_columns, tick_key, tick_numbers
from components.data_engineering.ingest import ingest_period
from components.data_engineering.materialise import OnlinePublisher
from components.data_engineering.offline_features import request_features
from components.data_engineering.tests.redis_process import running_redis

pytestmark = pytest.mark.pipeline

PASSWORD = "secret"
HOUR = timedelta(hours=1)
FIRST, LAST = datetime(2012, 12, 20, tzinfo=UTC), datetime(2013, 1, 26, tzinfo=UTC)
# 30 hourly ticks; the last midnight (a Thursday) is a daily and a weekly one, too.
ASKED, UNTIL = datetime(2013, 1, 23, 10, tzinfo=UTC), datetime(2013, 1, 24, 16, tzinfo=UTC)


@pytest.fixture(scope="module")
def flights() -> LoadedUseCase:
    return load_usecase("flights")


@pytest.fixture(scope="module")
def lake(flights: LoadedUseCase, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, DataVersion]:
    uri = str(tmp_path_factory.mktemp("lake"))
    return uri, ingest_period(flights, uri, FIRST, LAST)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lake: tuple[str, DataVersion]) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("serving")
    with ExitStack() as stack:
        platform = Platform.embedded(folder).model_copy(update={"lake_uri": lake[0]})
        if request.param == "redis":
            platform = platform.model_copy(update={"online_store": stack.enter_context(running_redis(folder, PASSWORD))})
            stack.enter_context(pytest.MonkeyPatch.context()).setenv("REDIS_PASSWORD", PASSWORD)
        (folder / "platform.json").write_text(platform.model_dump_json())
        yield platform


@pytest.fixture(scope="module")
def version(lake: tuple[str, DataVersion]) -> DataVersion:
    return lake[1]


@pytest.fixture(scope="module")
def publisher(flights: LoadedUseCase, platform: Platform, version: DataVersion) -> OnlinePublisher:
    """Holds what was published in the weeks before; the weekly view was last published on the Thursday before."""
    publisher = OnlinePublisher(flights, platform)
    publisher.publish(version, ASKED - timedelta(days=15), ASKED)
    return publisher


@pytest.fixture(scope="module")
def server(platform: Platform, publisher: OnlinePublisher) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "CRISPLINE_PLATFORM": str(Path(platform.records_uri).parent / "platform.json")}
    process = subprocess.Popen([sys.executable, "-m", "components.data_engineering.feature_server", "--port", str(port)], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while True:
            assert process.poll() is None and time.monotonic() < deadline, "the feature server did not start"
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(timeout=30)
    assert ended == 0, "SIGTERM ends the server in order"


def ask(client: httpx.Client, url: str, views: tuple[FeatureView, ...], rows: pd.DataFrame) -> pd.DataFrame:
    """The served features of `rows`, one HTTP request; a value older than its view's `max_staleness` counts as missing."""
    moments = rows["prediction_moment"]
    entities = {}
    for view in views:
        for key in join_key_columns(view):
            entities[key] = tick_numbers(view, moments).tolist() if key == tick_key(view) else rows[key].fillna("").tolist()
    references = [f"{view.served_name}:{name}" for view in views for name in view.feature_names]
    answer = client.post(f"{url}/get-online-features", json={"features": references, "entities": entities}).raise_for_status().json()
    columns = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
    served = {}
    for view in views:
        for name in view.feature_names:
            values = pd.Series([np.nan if value is None else value for value in columns[name]["values"]], dtype="float64")
            published = pd.to_datetime(pd.Series(columns[name]["event_timestamps"]), utc=True)
            assert (published <= moments.reset_index(drop=True)).all(), f"{name} was published after the prediction moment"
            served[name] = values.mask(moments.reset_index(drop=True) - published > view.max_staleness)
    return pd.DataFrame(served)


@pytest.mark.ml_test("monitoring-3")
def test_served_features_equal_offline_features_on_all_rows_of_thirty_ticks(
    flights: LoadedUseCase, platform: Platform, version: DataVersion, publisher: OnlinePublisher, server: str
) -> None:
    rows = read_entities(platform.lake_uri, flights, version, ASKED, UNTIL)
    names = [name for view in flights.features.views for name in view.feature_names]
    offline = request_features(flights, platform, version, rows)[names]
    served, ticks = [], 0
    with httpx.Client(timeout=30) as client:
        tick = ASKED
        while tick < UNTIL:
            publisher.publish(version, tick, tick + HOUR)
            part = rows[(rows["prediction_moment"] >= tick) & (rows["prediction_moment"] < tick + HOUR)]
            if len(part):
                served.append(ask(client, server, flights.features.views, part).set_index(part.index))
                ticks += 1
            tick += HOUR
    online = pd.concat(served).sort_index()
    assert ticks >= 20 and len(online) == len(rows) > 800
    pd.testing.assert_frame_equal(online, offline, check_exact=True)
    assert offline.notna().mean().min() > 0.5, "the comparison is of values, not of gaps"


@pytest.mark.ml_test("data-6")
def test_a_challengers_views_are_found_by_the_running_server(
    flights: LoadedUseCase, platform: Platform, version: DataVersion, publisher: OnlinePublisher, server: str
) -> None:
    champion = flights.features.views[3]
    challenger = champion.model_copy(update={"features": (Aggregate(name="carrier_delay_3d", column="dep_delay", function="mean", window=timedelta(days=3)),)})
    OnlinePublisher(flights, platform, [FeatureSet(views=(challenger,), request_fields=())]).publish(version, UNTIL, UNTIL + 9 * HOUR)
    rows = read_entities(platform.lake_uri, flights, version, UNTIL + 9 * HOUR, UNTIL + 10 * HOUR).head(20)
    with httpx.Client(timeout=30) as client:
        deadline = time.monotonic() + 20
        while True:
            try:
                found = ask(client, server, (challenger,), rows)
                break
            except httpx.HTTPStatusError as error:
                assert error.response.status_code == 404 and time.monotonic() < deadline
                time.sleep(0.5)
        assert found["carrier_delay_3d"].notna().all()
        assert ask(client, server, (champion,), rows)["carrier_delay_7d"].notna().all()
