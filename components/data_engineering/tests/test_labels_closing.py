"""A label counts from the moment at which it was known; nothing is dropped, nothing is awaited for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from components.contracts.errors import InvalidData
from components.contracts.loading import LoadedUseCase, load_usecase
from components.data_engineering.labels import close_labels, fill_with_corrections, labels_as_of
from components.monitoring.feedback import FeedbackLabel

pytestmark = pytest.mark.pipeline

NOON = datetime(2013, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def flights() -> LoadedUseCase:
    return load_usecase("flights")


def outcomes(*rows: tuple[str, float | None, str, timedelta]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["flight_id", "arr_delay", "outcome", "after"])
    frame["known_at"] = pd.Timestamp(NOON) + frame.pop("after")
    return frame.astype({"arr_delay": float})


def predictions(*entities: str) -> pd.DataFrame:
    return pd.DataFrame({"entity": entities, "prediction_moment": pd.Timestamp(NOON)}, index=range(10, 10 + len(entities)))


def test_a_label_is_true_above_the_threshold_only(flights: LoadedUseCase) -> None:
    rows = outcomes(("a", 15.0, "arrived", 14 * DAY), ("b", 15.1, "arrived", 14 * DAY), ("c", None, "cancelled", 14 * DAY))
    labels = labels_as_of(flights, rows, NOON + 14 * DAY)
    assert labels["label"].tolist() == [False, True, pd.NA]
    assert str(labels["label"].dtype) == "boolean"
    assert labels["outcome"].tolist() == ["arrived", "arrived", "cancelled"]


def test_a_label_that_is_not_known_yet_is_not_there(flights: LoadedUseCase) -> None:
    rows = outcomes(("a", 1.0, "arrived", 14 * DAY), ("b", 1.0, "arrived", 15 * DAY))
    assert labels_as_of(flights, rows, NOON + 14 * DAY)["entity"].tolist() == ["a"]
    assert labels_as_of(flights, rows, NOON + 14 * DAY - timedelta(seconds=1)).empty


def test_every_prediction_keeps_its_row_and_gets_a_state(flights: LoadedUseCase) -> None:
    rows = outcomes(("late", 60.0, "arrived", 14 * DAY), ("gone", None, "cancelled", 14 * DAY), ("afterwards", 60.0, "arrived", 29 * DAY))
    asked = predictions("gone", "late", "silent", "afterwards")
    before = close_labels(flights, asked, labels_as_of(flights, rows, NOON + 20 * DAY), NOON + 20 * DAY)
    assert before["entity"].tolist() == asked["entity"].tolist() and before.index.tolist() == asked.index.tolist()
    assert before["state"].tolist() == ["excluded", "labelled", "pending", "pending"]
    after = close_labels(flights, asked, labels_as_of(flights, rows, NOON + 40 * DAY), NOON + 40 * DAY)
    assert after["state"].tolist() == ["excluded", "labelled", "missing", "missing"]
    assert after["outcome"].tolist() == ["cancelled", "arrived", "missing", "missing"]
    assert after["label"].isna().tolist() == [True, False, True, True]


def test_a_row_is_closed_at_the_declared_moment_not_before(flights: LoadedUseCase) -> None:
    none = labels_as_of(flights, outcomes(), NOON)
    for after, state in ((28 * DAY - timedelta(seconds=1), "pending"), (28 * DAY, "missing")):
        assert close_labels(flights, predictions("a"), none, NOON + after)["state"].tolist() == [state]


def test_an_undeclared_outcome_and_a_labelled_one_without_value_are_refused(flights: LoadedUseCase) -> None:
    with pytest.raises(InvalidData, match=r"undeclared values \['hijacked'\]"):
        labels_as_of(flights, outcomes(("a", None, "hijacked", DAY)), NOON + 2 * DAY)
    with pytest.raises(InvalidData, match="no arr_delay"):
        labels_as_of(flights, outcomes(("a", None, "arrived", DAY)), NOON + 2 * DAY)


def test_two_labels_for_one_thing_are_refused(flights: LoadedUseCase) -> None:
    rows = labels_as_of(flights, outcomes(("a", 1.0, "arrived", DAY), ("a", 99.0, "arrived", DAY)), NOON + 2 * DAY)
    with pytest.raises(InvalidData, match="two labels"):
        close_labels(flights, predictions("a"), rows, NOON + 2 * DAY)


def correction(entity: str, value: bool, after: timedelta = DAY, prediction: str = "p-0") -> FeedbackLabel:
    return FeedbackLabel(entity=entity, prediction_id=prediction, label=value, outcome="arrived", known_at=NOON + after)


def test_a_correction_fills_a_missing_label_and_never_overrides_the_official_word(flights: LoadedUseCase) -> None:
    official = labels_as_of(flights, outcomes(("a", 60.0, "arrived", 14 * DAY), ("c", None, "cancelled", 14 * DAY)), NOON + 14 * DAY)
    labels = fill_with_corrections(official, [correction("a", False), correction("c", True), correction("d", True)])
    closed = close_labels(flights, predictions("a", "c", "d", "e"), labels, NOON + 14 * DAY)
    assert closed["state"].tolist() == ["labelled", "excluded", "labelled", "pending"]
    assert closed["label"].tolist() == [True, pd.NA, True, pd.NA]
    assert closed["label_known_at"].iloc[2] == NOON + DAY
    assert labels.dtypes.equals(official.dtypes)


def test_corrections_of_one_thing_that_contradict_each_other_fill_nothing(flights: LoadedUseCase) -> None:
    none = labels_as_of(flights, outcomes(), NOON)
    assert fill_with_corrections(none, [correction("a", True), correction("a", False, prediction="q-0")]).empty
    agreed = fill_with_corrections(none, [correction("a", True, 2 * DAY), correction("a", True, prediction="q-0")])
    assert agreed["label_known_at"].tolist() == [NOON + DAY]


def test_a_correction_after_the_label_was_given_up_changes_nothing(flights: LoadedUseCase) -> None:
    late = flights.config.data.label.never_after + DAY
    labels = fill_with_corrections(labels_as_of(flights, outcomes(), NOON), [correction("a", True, late)])
    assert close_labels(flights, predictions("a"), labels, NOON + 2 * late)["state"].tolist() == ["missing"]
