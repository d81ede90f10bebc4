"""The rebooking desk: what acting costs, counted by hand, and which predictions it disputes."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from components.contracts.loading import LoadedUseCase, load_usecase
from pipelines.demo.consumer import Account, account, account_record, disputes

pytestmark = pytest.mark.pipeline

START = datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def flights() -> LoadedUseCase:
    return load_usecase("flights")


def predictions(**decisions: bool) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"p-{entity}" for entity in decisions], "entity": list(decisions), "decision": list(decisions.values())})


def test_costs_by_hand(flights: LoadedUseCase) -> None:
    """A seat held in vain costs 120, a missed connection 400: two in vain and one missed, against three missed without predictions."""
    decided = predictions(right1=True, right2=True, vain1=True, vain2=True, missed=False, quiet=False)
    labels = {"right1": True, "right2": True, "vain1": False, "vain2": False, "missed": True, "quiet": False}
    assert account(flights, decided, labels) == Account(rows=6, acted=4, right=2, false_alarms=2, misses=1, cost=640.0, cost_without=1200.0)


def test_rows_without_a_label_cost_nothing(flights: LoadedUseCase) -> None:
    result = account(flights, predictions(cancelled=True, missed=False), {"missed": True})
    assert (result.rows, result.acted, result.cost) == (1, 0, 400.0)
    assert account(flights, predictions(cancelled=True), {}).cost == 0


def test_the_record_says_whether_acting_paid(flights: LoadedUseCase) -> None:
    paid = account_record(flights, START, START + WEEK, START + 4 * WEEK, Account(6, 4, 2, 2, 1, 640.0, 1200.0))
    assert paid.outcome == "paid" and "560 USD saved" in paid.reason
    assert paid.event_time == START + 4 * WEEK and paid.inputs["misses"] == 1
    lost = account_record(flights, START, START + WEEK, START + 4 * WEEK, Account(3, 3, 0, 3, 0, 360.0, 0.0))
    assert lost.outcome == "did_not_pay" and ": 360 USD lost" in lost.reason
    assert lost.id == paid.id  # the same window is the same account


def departures(**delays: float) -> pd.DataFrame:
    seen = pd.Series(pd.date_range(START, periods=len(delays), freq="h")).astype("datetime64[us, UTC]")
    return pd.DataFrame({"flight_id": list(delays), "dep_delay": list(delays.values()), "known_at": seen})


def test_only_a_prediction_on_time_of_a_flight_that_left_an_hour_late_is_disputed() -> None:
    decided = predictions(late=False, announced=True, early=False, unseen=False)
    (word,) = disputes(decided, departures(late=60.0, announced=200.0, early=59.0), "rebooking desk")
    assert (word.entity, word.prediction_id, word.kind, word.value, word.by) == ("late", "p-late", "correction", True, "rebooking desk")
    assert word.event_time == START and "left 60 minutes late" in word.reason


def test_a_day_brings_the_three_worst_and_no_more() -> None:
    delays = {"a": 90.0, "b": 300.0, "c": 61.0, "d": 120.0, "e": 150.0}
    words = disputes(predictions(**dict.fromkeys(delays, False)), departures(**delays), "rebooking desk")
    assert [word.entity for word in words] == ["b", "e", "d"]
    assert [word.event_time for word in words] == [START + timedelta(hours=hour) for hour in (1, 4, 3)]


def test_a_cancelled_flight_has_no_departure_to_dispute() -> None:
    assert disputes(predictions(gone=False), departures(gone=float("nan")), "rebooking desk") == []
