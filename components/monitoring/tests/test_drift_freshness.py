"""A closed window says how many answers rested on stale or missing looked-up values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from components.contracts.loading import load_usecase
from components.contracts.records import Record
from components.contracts.usecase import Monitoring
from components.model_server.lookup_warnings import FALLBACK_WARNING, stale, view_warning
from components.monitoring.drift import STALE_FEATURES, WindowDrift, alerts_of, check_records, judge_window
from components.monitoring.windows import Window

pytestmark = pytest.mark.monitoring

START = datetime(2013, 4, 4, tzinfo=UTC)
STALE = view_warning("weather", stale("7h", "6h"))
UNKNOWN = view_warning("plane", "nothing is published for the key")


@pytest.fixture(scope="module")
def monitoring() -> Monitoring:
    return load_usecase("flights").config.monitoring


def judged(monitoring: Monitoring, warnings: list[list[str]]) -> WindowDrift:
    rows = pd.DataFrame({"model_version": "m", "release": "r", "warnings": warnings})
    return judge_window("flights", monitoring, Window(START, START + timedelta(days=7)), rows, "no detectors here", None)


def freshness(monitoring: Monitoring, warnings: list[list[str]]) -> Record:
    return next(record for record in check_records(judged(monitoring, warnings), monitoring) if record.details["check"] == "freshness")


def test_answers_with_fresh_values_pass_even_where_a_key_is_unknown(monitoring: Monitoring) -> None:
    record = freshness(monitoring, [[UNKNOWN]] * 50 + [["month: odd"], []] * 25)
    assert record.outcome == "passed"
    assert record.inputs == {"stale_share": 0.0, "missing_share": 0.5}
    assert (record.lineage.release, record.event_time) == ("r", START + timedelta(days=7))


@pytest.mark.parametrize("warning", [STALE, FALLBACK_WARNING])
def test_stale_values_fail_above_the_declared_share_only(monitoring: Monitoring, warning: str) -> None:
    assert monitoring.maximum_stale_share == 0.05
    assert freshness(monitoring, [[warning, UNKNOWN]] * 5 + [[]] * 95).outcome == "passed"
    failed = freshness(monitoring, [[warning]] * 6 + [[]] * 94)
    assert failed.outcome == "failed"
    assert failed.inputs["stale_share"] == 0.06 and "6 of 100 answers" in failed.reason


def test_a_late_feed_is_a_fault_and_no_drift(monitoring: Monitoring) -> None:
    assert alerts_of(judged(monitoring, [[STALE]] * 5 + [[]] * 95), monitoring) == []
    (alert,) = alerts_of(judged(monitoring, [[STALE]] * 20 + [[]] * 80), monitoring)
    assert (alert.kind, alert.detector, alert.statistic) == ("data_quality", STALE_FEATURES, 0.2)
    assert "20 of 100 answers rested on values that were too old" in alert.effect
