"""Windows by event time, and the numbers that answers carry."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from components.monitoring.windows import Closed, ClosedWindows, Window, closable, lost_events

pytestmark = pytest.mark.monitoring
WEEK, HOUR = timedelta(days=7), timedelta(hours=1)
THURSDAY = datetime(2013, 4, 4, tzinfo=UTC)  # 1970-01-01 was a Thursday


def answers(*rows: tuple[str, int, datetime]) -> pd.DataFrame:
    return pd.DataFrame([{"instance": name, "sequence": number, "model_version": f"m-{name}", "first": moment} for name, number, moment in rows])


def test_windows_are_multiples_of_their_length_since_the_epoch_or_an_origin() -> None:
    assert Window.of(THURSDAY + 30 * HOUR, WEEK) == Window(THURSDAY, THURSDAY + WEEK)
    monday = datetime(2013, 1, 7, tzinfo=UTC)
    assert Window.of(THURSDAY, WEEK, monday).start == datetime(2013, 4, 1, tzinfo=UTC)


def test_a_window_closes_only_when_the_watermark_has_passed_its_end() -> None:
    days = [date(2013, 4, 4), date(2013, 4, 11)]
    end = THURSDAY + WEEK
    assert closable(days, end + 5 * HOUR, WEEK, 6 * HOUR) == []
    assert closable(days, end + 6 * HOUR, WEEK, 6 * HOUR) == [Window(THURSDAY, end)]


def test_weeks_without_rows_leave_no_window() -> None:
    assert [window.start for window in closable([date(2013, 4, 4), date(2013, 4, 25)], THURSDAY + 5 * WEEK, WEEK, HOUR)] == [THURSDAY, THURSDAY + 3 * WEEK]


def test_gaps_in_the_numbers_are_lost_answers() -> None:
    window = Window(THURSDAY, THURSDAY + WEEK)
    counts, numbers = lost_events(answers(*[("a", number, THURSDAY) for number in (2, 3, 6)], ("b", 1, THURSDAY)), window, {})
    assert (counts["m-a"].seen, counts["m-a"].lost) == (3, 3)
    assert counts["m-a"].share == 0.5
    assert counts["m-b"].lost == 0
    assert numbers == {"a": 6, "b": 1}


def test_a_number_of_a_neighbouring_window_is_not_lost_and_the_count_goes_on() -> None:
    first, second = Window(THURSDAY, THURSDAY + WEEK), Window(THURSDAY + WEEK, THURSDAY + 2 * WEEK)
    rows = answers(("a", 1, THURSDAY), ("a", 2, second.start), ("a", 3, THURSDAY + HOUR), ("a", 5, second.start + HOUR))
    counts, numbers = lost_events(rows, first, {})
    assert counts["m-a"].lost == 0
    counts, numbers = lost_events(rows, second, numbers)
    assert counts["m-a"].lost == 1
    assert numbers == {"a": 5}


def test_the_first_marker_of_a_window_stands(tmp_path: Path) -> None:
    def closed(rows: int) -> Closed:
        return Closed(window_start=THURSDAY, window_end=THURSDAY + WEEK, watermark=THURSDAY + WEEK, rows=rows, models=("m1",), last_number={"a": rows})

    window = Window(THURSDAY, THURSDAY + WEEK)
    one, other = ClosedWindows(str(tmp_path), "flights"), ClosedWindows(str(tmp_path), "flights")
    assert other.get(window) is None
    one.close(closed(5))
    other.close(closed(6))
    found = ClosedWindows(str(tmp_path), "flights").get(window)
    assert found == closed(5) == other.get(window)
