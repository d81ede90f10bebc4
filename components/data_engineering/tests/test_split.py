"""The split by time and its embargo."""

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contracts.errors import InvalidData
from components.data_engineering.split import embargo_holds, split_by_time

pytestmark = pytest.mark.pipeline

DAY = timedelta(days=1)
START = datetime(2013, 1, 1, tzinfo=UTC)
LEAD = timedelta(hours=2)


def rows(days: list[float], lateness: list[float], labelled: list[bool]) -> pd.DataFrame:
    """One row per day number; its label becomes known `lateness` days after the event."""
    event = pd.Series([pd.Timestamp(START) + timedelta(days=day) for day in days], dtype="datetime64[us, UTC]")
    label = pd.array([True if there else None for there in labelled], dtype="boolean")
    known = event + pd.Series([timedelta(days=late) for late in lateness], dtype="timedelta64[us]")
    return pd.DataFrame({"prediction_moment": event - LEAD, "event_time": event, "label": label, "label_known_at": known})


def test_the_latest_period_is_the_test_and_the_delay_before_it_is_under_embargo() -> None:
    frame = rows(list(range(60)), [14.0] * 60, [True] * 60)
    split = split_by_time(frame, 14 * DAY, 10 * DAY, 0.25).split
    assert split.value_counts().to_dict() == {"test": 10, "embargo": 14, "train": 27, "validation": 9}
    assert split.tolist() == ["train"] * 27 + ["validation"] * 9 + ["embargo"] * 14 + ["test"] * 10


def test_a_label_that_came_later_than_declared_keeps_its_row_out_of_training() -> None:
    frame = rows(list(range(60)), [14.0] * 5 + [55.0] + [14.0] * 54, [True] * 60)
    assert split_by_time(frame, 14 * DAY, 10 * DAY, 0.25).split.iloc[5] == "embargo"


def test_too_short_a_history_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidData, match="no row is left to train on"):
        split_by_time(rows(list(range(20)), [14.0] * 20, [True] * 20), 14 * DAY, 10 * DAY, 0.25)


def test_a_frame_without_labels_is_refused() -> None:
    with pytest.raises(InvalidData, match="no row of the frame has a label"):
        split_by_time(rows([1.0, 2.0], [1.0, 1.0], [False, False]), DAY, DAY, 0.25)


def test_a_violated_embargo_is_seen() -> None:
    frame = rows(list(range(60)), [14.0] * 60, [True] * 60)
    split = split_by_time(frame, 14 * DAY, 10 * DAY, 0.25).split
    assert embargo_holds(split, frame)
    assert not embargo_holds(split.replace("embargo", "train"), frame)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 120), st.floats(0, 40), st.booleans()), min_size=2, max_size=60),
    st.integers(0, 20),
    st.integers(1, 30),
    st.floats(0.05, 0.6),
)
def test_no_label_that_trains_was_learnt_after_the_first_test_prediction(drawn: list[tuple[float, float, bool]], delay: int, period: int, share: float) -> None:
    days, lateness, labelled = (list(column) for column in zip(*drawn, strict=True))
    frame = rows(days, lateness, labelled)
    try:
        parts = split_by_time(frame, delay * DAY, period * DAY, share)
    except InvalidData:
        return
    learnt, test = parts.split.isin(["train", "validation"]), parts.split == "test"
    first = frame.loc[test, "prediction_moment"].min()
    assert test.any() and len(parts.split) == len(frame)
    assert (frame.loc[learnt, "label_known_at"] <= first).all()
    assert (frame.loc[learnt, "event_time"] + delay * DAY <= first).all()
    assert frame.loc[parts.split == "train", "prediction_moment"].max() < frame.loc[parts.split == "validation", "prediction_moment"].min()
