"""What is published to the online store, and that an older value never replaces a newer one."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from redis import Redis

from components.contracts.artifacts import DataVersion, ReleaseManifest
from components.contracts.errors import CrisplineError
from components.contracts.features import Aggregate, FeatureSet, FeatureView, Latest
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.contracts.storage import BlobStore
from components.data_engineering.feature_steps import feature_sets_to_serve
from components.data_engineering.ingest import ingest_period
from components.data_engineering.materialise import OnlinePublisher, materialise
from components.data_engineering.tests.redis_process import running_redis

pytestmark = pytest.mark.pipeline

PASSWORD = "12345"  # digits alone: Feast would read them as a number
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FIRST, LAST = datetime(2013, 3, 8, tzinfo=UTC), datetime(2013, 3, 12, tzinfo=UTC)

HOURLY = FeatureView(
    name="weather_now",
    table="weather",
    group="observation",
    entity=("origin",),
    cadence=HOUR,
    keyed_by_tick=True,
    max_staleness=6 * HOUR,
    features=(Latest(name="temp", column="temp", max_age=6 * HOUR),),
)
DAILY = FeatureView(
    name="delays",
    table="flights",
    group="departure",
    entity=("carrier_origin",),
    cadence=DAY,
    max_staleness=3 * DAY,
    features=(Aggregate(name="delay_1d", column="dep_delay", function="mean", window=DAY),),
)
SERVED = FeatureSet(views=(HOURLY, DAILY), request_fields=("carrier",))


@cache
def flights() -> LoadedUseCase:
    loaded = load_usecase("flights")
    return LoadedUseCase(loaded.folder, loaded.config, SERVED)


def read_period(table: str, group: str, start: datetime, end: datetime) -> pd.DataFrame:
    """One observation an hour (its hour as temperature), one departure of AA an hour on the first two days, ten minutes late each day counted from FIRST."""
    hours = [moment for moment in pd.date_range(FIRST, LAST, freq="h", inclusive="left", unit="us") if start <= moment < end]
    if (table, group) == ("weather", "observation"):
        numbers = dict.fromkeys(("humid", "wind_speed", "precip", "pressure", "visib"), 1.0)
        return pd.DataFrame({"origin": "JFK", "observed_utc": hours, "temp": [float(hour.hour) for hour in hours], **numbers, "known_at": hours})
    flown = [hour for hour in hours if hour < FIRST + 2 * DAY]
    if (table, group) == ("flights", "departure"):
        late = [10.0 * (1 + (hour - pd.Timestamp(FIRST)).days) for hour in flown]
        return pd.DataFrame(
            {"flight_id": [f"AA1-{hour:%d%H}" for hour in flown], "sched_dep_utc": flown, "dep_delay": late, "cancelled": False, "known_at": flown}
        )
    if (table, group) == ("flights", "schedule") and start <= FIRST < end:
        flown = list(pd.date_range(FIRST, FIRST + 2 * DAY, freq="h", inclusive="left", unit="us"))
        texts = {"carrier": "AA", "origin": "JFK", "dest": "BOS", "route": "JFK-BOS", "carrier_origin": "AA-JFK", "tailnum": "N1"}
        whole = dict.fromkeys(("month", "weekday", "dep_minute", "arr_minute", "scheduled_departures"), 1)
        row = {**texts, **whole, "distance": 187.0, "scheduled_minutes": 60.0, "known_at": pd.Timestamp(FIRST).as_unit("us")}
        return pd.DataFrame({"flight_id": [f"AA1-{hour:%d%H}" for hour in flown], "sched_dep_utc": flown, **row})
    empty = load_usecase("flights")
    from components.data_engineering.lake import arrow_schema

    return arrow_schema(empty.config, table, group).empty_table().to_pandas()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, DataVersion]:
    uri = str(tmp_path_factory.mktemp("lake"))
    return uri, ingest_period(flights(), uri, FIRST, LAST, read_period)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis"), PASSWORD) as url:
        yield url


@pytest.fixture(params=["sqlite", "redis"])
def online(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Platform], Platform]:
    """Puts a platform's online store where the test's parameter says; every platform gets an empty one."""
    if request.param == "sqlite":
        return lambda platform: platform
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    url, databases = request.getfixturevalue("redis"), itertools.count()
    Redis.from_url(url, password=PASSWORD).flushall()
    return lambda platform: platform.model_copy(update={"online_store": f"{url}/{next(databases)}"})


@pytest.fixture
def platform(tmp_path: Path, lake: tuple[str, DataVersion], online: Callable[[Platform], Platform]) -> Platform:
    return online(Platform.embedded(tmp_path).model_copy(update={"lake_uri": lake[0]}))


@pytest.fixture
def version(lake: tuple[str, DataVersion]) -> DataVersion:
    return lake[1]


def served(publisher: OnlinePublisher, view: FeatureView, **keys: object) -> tuple[Any, datetime]:
    """The value of the view's first feature for one key, and its event timestamp."""
    name = view.feature_names[0]
    answer = publisher.store.get_online_features(features=[f"{view.served_name}:{name}"], entity_rows=[keys]).to_dict(include_event_timestamps=True)
    return answer[name][0], datetime.fromtimestamp(answer[f"{name}__ts"][0], UTC)


def hour_number(moment: datetime) -> int:
    return int(moment.timestamp()) // 3600


def test_exactly_the_ticks_of_the_period_are_published(platform: Platform, version: DataVersion) -> None:
    publisher = OnlinePublisher(flights(), platform)
    ticks = publisher.publish(version, FIRST + HOUR, FIRST + 4 * HOUR)
    assert ticks.rows == {HOURLY.served_name: 3}
    assert served(publisher, HOURLY, origin="JFK", weather_now_tick=hour_number(FIRST) + 3)[0] == 3.0
    assert served(publisher, HOURLY, origin="JFK", weather_now_tick=hour_number(FIRST) + 4)[0] is None
    assert served(publisher, DAILY, carrier_origin="AA-JFK")[0] is None


def test_a_later_tick_replaces_and_an_older_one_never_does(platform: Platform, version: DataVersion) -> None:
    publisher = OnlinePublisher(flights(), platform)
    publisher.publish(version, FIRST + DAY, FIRST + DAY + HOUR)
    first = served(publisher, DAILY, carrier_origin="AA-JFK")
    publisher.publish(version, FIRST + 2 * DAY, FIRST + 2 * DAY + HOUR)
    second = served(publisher, DAILY, carrier_origin="AA-JFK")
    again = publisher.publish(version, FIRST + DAY, FIRST + DAY + HOUR)
    assert first[1] == FIRST + DAY and second[1] == FIRST + 2 * DAY and second[0] > first[0]
    assert served(publisher, DAILY, carrier_origin="AA-JFK") == second
    assert again.rows[DAILY.served_name] == 0


def test_publishing_again_changes_nothing(platform: Platform, version: DataVersion) -> None:
    publisher = OnlinePublisher(flights(), platform)
    ticks = [publisher.publish(version, FIRST, FIRST + 3 * DAY) for _ in range(2)]
    assert ticks[0] == ticks[1]
    assert served(publisher, DAILY, carrier_origin="AA-JFK")[1] == FIRST + 2 * DAY


def test_a_corrected_tick_replaces_what_was_published_for_it(platform: Platform, version: DataVersion, tmp_path: Path) -> None:
    publisher = OnlinePublisher(flights(), platform)
    publisher.publish(version, FIRST + DAY, FIRST + DAY + HOUR)
    before = served(publisher, DAILY, carrier_origin="AA-JFK")

    def corrected(table: str, group: str, start: datetime, end: datetime) -> pd.DataFrame:
        rows = read_period(table, group, start, end)
        return rows.assign(dep_delay=rows["dep_delay"] + 7.0) if (table, group) == ("flights", "departure") else rows

    lake = str(tmp_path / "corrected")
    again = ingest_period(flights(), lake, FIRST, LAST, corrected)
    OnlinePublisher(flights(), platform.model_copy(update={"lake_uri": lake})).publish(again, FIRST + DAY, FIRST + DAY + HOUR)
    after = served(publisher, DAILY, carrier_origin="AA-JFK")
    assert after[0] == pytest.approx(before[0] + 7.0) and after[1] == before[1]


def test_one_period_or_day_by_day_ends_in_the_same_state(
    platform: Platform, version: DataVersion, tmp_path: Path, online: Callable[[Platform], Platform]
) -> None:
    at_once = OnlinePublisher(flights(), platform)
    at_once.publish(version, FIRST, LAST)
    elsewhere = online(Platform.embedded(tmp_path / "days").model_copy(update={"lake_uri": platform.lake_uri}))
    daily = OnlinePublisher(flights(), elsewhere)
    for day in range(4):
        daily.publish(version, FIRST + day * DAY, FIRST + (day + 1) * DAY)
    for hour in range(0, 96, 7):
        key = {"origin": "JFK", "weather_now_tick": hour_number(FIRST) + hour}
        assert served(at_once, HOURLY, **key) == served(daily, HOURLY, **key)
    assert served(at_once, DAILY, carrier_origin="AA-JFK") == served(daily, DAILY, carrier_origin="AA-JFK")


def test_a_tick_of_nothing_but_nulls_takes_the_old_value_away(platform: Platform, version: DataVersion) -> None:
    publisher = OnlinePublisher(flights(), platform)
    publisher.publish(version, FIRST, FIRST + 2 * DAY + HOUR)
    assert served(publisher, DAILY, carrier_origin="AA-JFK")[0] is not None
    publisher.publish(version, FIRST + 3 * DAY, FIRST + 3 * DAY + HOUR)  # nobody departed on the third day
    assert served(publisher, DAILY, carrier_origin="AA-JFK") == (None, FIRST + 3 * DAY)


def test_champion_and_challenger_are_served_side_by_side(platform: Platform, version: DataVersion) -> None:
    longer = DAILY.model_copy(update={"features": (Aggregate(name="delay_1d", column="dep_delay", function="mean", window=2 * DAY),)})
    challenger = FeatureSet(views=(HOURLY, longer), request_fields=("carrier",))
    publisher = OnlinePublisher(flights(), platform, [SERVED, challenger])
    publisher.publish(version, FIRST + 2 * DAY, FIRST + 2 * DAY + HOUR)
    old, new = served(publisher, DAILY, carrier_origin="AA-JFK")[0], served(publisher, longer, carrier_origin="AA-JFK")[0]
    assert DAILY.served_name != longer.served_name and old == pytest.approx(20.0) and new == pytest.approx(15.0, abs=0.5)
    assert len(publisher.views) == 3


def test_ticks_that_the_data_version_does_not_reach_are_refused(platform: Platform, version: DataVersion) -> None:
    with pytest.raises(CrisplineError, match="ingest that period first"):
        materialise(flights(), platform, version, LAST, LAST + DAY)


def test_another_use_case_cannot_take_over_a_view(platform: Platform) -> None:
    OnlinePublisher(flights(), platform)
    other = LoadedUseCase(flights().folder, flights().config.model_copy(update={"name": "trains"}), SERVED)
    with pytest.raises(CrisplineError, match="belongs to use case 'flights'"):
        OnlinePublisher(other, platform)


@pytest.fixture
def new_york_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    os.environ["TZ"] = "UTC"
    time.tzset()


@pytest.mark.usefixtures("new_york_clock")
def test_event_timestamps_survive_a_machine_whose_zone_skips_an_hour(platform: Platform, version: DataVersion) -> None:
    skipped = datetime(2013, 3, 10, 2, tzinfo=UTC)  # 02:00 to 03:00 did not exist in New York on that day
    publisher = OnlinePublisher(flights(), platform)
    publisher.publish(version, skipped, skipped + HOUR)
    assert served(publisher, HOURLY, origin="JFK", weather_now_tick=hour_number(skipped)) == (2.0, skipped)


def released(platform: Platform, features: FeatureSet) -> str:
    """A release, as far as publication looks into it."""
    blobs = BlobStore(platform.bundles_uri)
    manifest = ReleaseManifest(
        usecase="flights",
        model_version="model-1",
        data_version="data-1",
        dataset="dataset-1",
        feature_set=features.definition_hash,
        feature_views=tuple(view.served_name for view in features.views),
        gates_record="gates-1",
        gates_passed=True,
        cause="first",
        created=FIRST,
        files={"features.json": blobs.put(features.model_dump_json().encode())},
    )
    return blobs.put(manifest.model_dump_json().encode())


def test_the_champions_views_are_published_on_when_the_use_case_has_changed_its_own(platform: Platform, version: DataVersion) -> None:
    champions = FeatureSet(views=(DAILY,), request_fields=("carrier",))
    own = FeatureSet(views=(HOURLY,), request_fields=("carrier",))
    publisher = OnlinePublisher(flights(), platform, feature_sets_to_serve(own, platform.bundles_uri, [released(platform, champions)]))
    assert set(publisher.publish(version, FIRST, FIRST + 2 * DAY).rows) == {HOURLY.served_name, DAILY.served_name}
    assert served(publisher, DAILY, carrier_origin="AA-JFK")[1] == FIRST + DAY
    publisher.serve(feature_sets_to_serve(own, platform.bundles_uri, [released(platform, own)]))
    assert set(publisher.publish(version, FIRST + 2 * DAY, LAST).rows) == {HOURLY.served_name}


def test_without_a_release_only_the_use_cases_own_set_is_served(platform: Platform) -> None:
    assert feature_sets_to_serve(SERVED, platform.bundles_uri, [""]) == [SERVED]
