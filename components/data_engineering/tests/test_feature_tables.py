"""What a view publishes at its ticks."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contracts.features import Aggregate, FeatureView, Latest
from components.data_engineering.feature_tables import build_view, lookback

pytestmark = pytest.mark.pipeline

HOUR = timedelta(hours=1)
START = datetime(2013, 1, 1, tzinfo=UTC)


def view(*features: Aggregate | Latest, keyed_by_tick: bool = True, cadence: timedelta = HOUR) -> FeatureView:
    return FeatureView(
        name="board",
        table="flights",
        group="departure",
        entity=("origin",),
        cadence=cadence,
        keyed_by_tick=keyed_by_tick,
        max_staleness=6 * HOUR,
        features=features,
    )


def events(*rows: tuple[float, str, float | None]) -> pd.DataFrame:
    """Rows of (hours after START at which it became known, origin, delay)."""
    hours, origins, delays = zip(*rows, strict=True) if rows else ((), (), ())
    stamps = pd.Series([pd.Timestamp(START) + timedelta(hours=hour) for hour in hours], dtype="datetime64[us, UTC]")
    return pd.DataFrame({"known_at": stamps, "origin": pd.Series(origins, dtype=object), "delay": pd.Series(delays, dtype="float64")})


def published(declared: FeatureView, rows: pd.DataFrame, hours: float, until: float | None = None) -> pd.DataFrame:
    return build_view(declared, rows, START + hours * HOUR, START + (hours if until is None else until) * HOUR + timedelta(microseconds=1))


MEAN = Aggregate(name="mean_2h", column="delay", function="mean", window=2 * HOUR)


@pytest.mark.ml_test("data-7")
def test_a_window_holds_what_became_known_after_its_start_and_up_to_its_tick() -> None:
    rows = events((1, "EWR", 100.0), (1.5, "EWR", 10.0), (3, "EWR", 20.0), (3.0001, "EWR", 1000.0))
    assert published(view(MEAN), rows, 3)["mean_2h"].tolist() == [15.0]


@pytest.mark.ml_test("data-7")
def test_a_tick_is_part_of_the_key_and_its_moment_is_the_event_timestamp() -> None:
    frame = published(view(MEAN), events((0.5, "EWR", 1.0)), 1, 2)
    assert frame["board_tick"].tolist() == [376_945, 376_946]
    assert frame["event_timestamp"].tolist() == [pd.Timestamp(START) + timedelta(hours=hour) for hour in (1, 2)]
    assert str(frame["event_timestamp"].dtype) == "datetime64[us, UTC]"


@pytest.mark.ml_test("data-7")
def test_an_entity_whose_window_became_empty_is_published_once_more_with_nulls() -> None:
    frame = published(view(MEAN, keyed_by_tick=False, cadence=24 * HOUR), events((23.5, "EWR", 5.0)), 24, 72)
    assert frame["mean_2h"].tolist()[0] == 5.0
    assert frame["mean_2h"].isna().tolist() == [False, True]


@pytest.mark.ml_test("data-7")
def test_shrinking_pulls_a_small_sample_toward_all_entities() -> None:
    feature = Aggregate(name="share", column="delay", function="share_above", threshold=15.0, window=2 * HOUR, shrink=3)
    frame = published(view(feature), events((1, "EWR", 60.0), (1, "JFK", 0.0), (1, "JFK", 0.0), (1, "JFK", 16.0)), 2)
    assert frame["share"].tolist() == [(1 * 1.0 + 3 * 0.5) / 4, (3 * (1 / 3) + 3 * 0.5) / 6]


@pytest.mark.ml_test("data-7")
def test_null_values_enter_no_statistic() -> None:
    features = [Aggregate(name=name, column="delay", function=name, window=2 * HOUR) for name in ("mean", "std", "count")]
    frame = published(view(*features), events((1, "EWR", 2.0), (1, "EWR", 4.0), (1, "EWR", None), (1, "JFK", None)), 2)
    assert frame[["mean", "std", "count"]].iloc[0].tolist() == [3.0, 1.0, 2.0]
    assert frame["mean"].isna().tolist() == [False, True]
    assert frame["count"].tolist() == [2.0, 0.0]


@pytest.mark.ml_test("data-7")
def test_the_latest_value_becomes_null_when_it_is_older_than_its_age_limit() -> None:
    rows = events((0, "EWR", 7.0), (1, "EWR", None), (0, "JFK", 8.0), (3, "JFK", 9.0))
    frame = published(view(Latest(name="last", column="delay", max_age=2 * HOUR)), rows, 2, 3)
    assert frame["last"].fillna(-1).tolist() == [7.0, 8.0, -1.0, 9.0]


@pytest.mark.ml_test("data-7")
def test_a_latest_text_stays_text() -> None:
    rows = events((0, "EWR", 1.0)).assign(delay=pd.Series(["late"], dtype=object))
    assert published(view(Latest(name="last", column="delay")), rows, 1)["last"].tolist() == ["late"]


@pytest.mark.ml_test("data-7")
def test_rows_without_an_entity_are_published_for_nobody() -> None:
    rows = events((1, "EWR", 1.0), (1, None, 50.0))  # type: ignore[arg-type]
    assert published(view(MEAN), rows, 2)["origin"].tolist() == ["EWR"]


@pytest.mark.ml_test("data-7")
def test_a_view_without_a_tick_in_the_period_publishes_nothing() -> None:
    daily = view(MEAN, keyed_by_tick=False, cadence=24 * HOUR)
    assert build_view(daily, events((1, "EWR", 1.0)), START + HOUR, START + 5 * HOUR).empty


moments = st.floats(min_value=0, max_value=40, allow_nan=False)
rows_of = st.lists(st.tuples(moments, st.sampled_from(["EWR", "JFK", "LGA"]), st.one_of(st.none(), st.floats(-50, 500))), max_size=40)
EVERYTHING = view(
    MEAN,
    Aggregate(name="std", column="delay", function="std", window=5 * HOUR, shrink=2),
    Aggregate(name="count", column="delay", function="count", window=3 * HOUR),
    Aggregate(name="share", column="delay", function="share_above", threshold=15.0, window=4 * HOUR, shrink=1.5),
    Latest(name="last", column="delay", max_age=6 * HOUR),
)


@settings(max_examples=60, deadline=None)
@given(rows_of, st.integers(0, 30), st.floats(-1e3, 1e3))
@pytest.mark.ml_test("data-7")
def test_what_becomes_known_after_a_tick_never_matters(rows: list[tuple[float, str, float | None]], tick: int, change: float) -> None:
    before = events(*rows)
    later = before["known_at"] > pd.Timestamp(START) + timedelta(hours=tick)
    after = before.assign(delay=before["delay"].where(~later, change))
    pd.testing.assert_frame_equal(published(EVERYTHING, before, 0, tick), published(EVERYTHING, after, 0, tick), check_exact=True)
    pd.testing.assert_frame_equal(published(EVERYTHING, before, 0, tick), published(EVERYTHING, before[~later], 0, tick), check_exact=True)


@settings(max_examples=60, deadline=None)
@given(rows_of, st.randoms(use_true_random=False))
@pytest.mark.ml_test("data-7")
def test_the_order_of_the_rows_does_not_matter(rows: list[tuple[float, str, float | None]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(rows)
    random.shuffle(shuffled)
    pd.testing.assert_frame_equal(published(EVERYTHING, events(*rows), 0, 30), published(EVERYTHING, events(*shuffled), 0, 30), check_exact=True)


@settings(max_examples=60, deadline=None)
@given(rows_of, st.integers(0, 30))
@pytest.mark.ml_test("data-7")
def test_a_tick_built_alone_from_its_lookback_is_bit_for_bit_the_one_built_with_the_year(rows: list[tuple[float, str, float | None]], tick: int) -> None:
    everything = events(*rows)
    reach = lookback(EVERYTHING)
    assert reach is not None
    moment = pd.Timestamp(START) + timedelta(hours=tick)
    alone = published(EVERYTHING, everything[everything["known_at"] >= moment - reach], tick)
    year = published(EVERYTHING, everything, 0, 40)
    expected = year[year["event_timestamp"] == moment].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, expected, check_exact=True, check_dtype=bool(len(expected)))


@pytest.mark.ml_test("data-7")
def test_the_sums_are_those_of_plain_arithmetic() -> None:
    random = np.random.default_rng(1)
    rows = events(*[(float(random.uniform(0, 30)), str(random.choice(["EWR", "JFK"])), float(random.normal())) for _ in range(400)])
    frame = published(view(MEAN), rows, 2, 30)
    for row in frame.itertuples():
        window = rows[(rows["origin"] == row.origin) & (rows["known_at"] <= row.event_timestamp) & (rows["known_at"] > row.event_timestamp - 2 * HOUR)]
        assert (np.isnan(row.mean_2h) and window.empty) or row.mean_2h == pytest.approx(window["delay"].mean(), abs=1e-12)
