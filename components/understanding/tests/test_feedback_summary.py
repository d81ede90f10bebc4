"""The summary holds what end users said and what was decided since the last training, and nothing of other times or use cases."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.contracts.platform import Platform
from components.contracts.records import Record, RecordStore
from components.contracts.serving import Feedback
from components.monitoring.feedback import store_feedback
from components.understanding.steps import run_feedback_summary

pytestmark = pytest.mark.pipeline


def moment(month: int, day: int) -> datetime:
    return datetime(2013, month, day, tzinfo=UTC)


def decision(kind: str, when: datetime, outcome: str, usecase: str = "flights") -> Record:
    return Record(kind=kind, id=f"{usecase}-{kind}-{when:%m%d}", usecase=usecase, event_time=when, outcome=outcome, reason=f"{kind} {outcome} {when:%d %B}")


def word(kind: str, when: datetime, reason: str, value: bool | None = None) -> Feedback:
    return Feedback(entity=f"AA-{when:%m%d}", prediction_id=f"r-{when:%m%d%H}", kind=kind, value=value, reason=reason, by="desk 4", event_time=when)


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    platform = Platform.embedded(tmp_path / "state")
    (tmp_path / "platform.json").write_text(platform.model_dump_json())
    monkeypatch.setenv("CRISPLINE_PLATFORM", str(tmp_path / "platform.json"))
    return platform


def summarise(platform: Platform, tmp_path: Path, as_of: str) -> tuple[Record, str]:
    run_feedback_summary("flights", as_of, str(tmp_path / "report.html"))
    return list(RecordStore(platform.records_uri).list("feedback_summary"))[-1], (tmp_path / "report.html").read_text()


def test_the_first_iteration_has_nothing_to_tell_and_says_so(platform, tmp_path) -> None:
    record, html = summarise(platform, tmp_path, "2013-04-01T00:00:00Z")
    assert record.outcome == "nothing"
    assert "First iteration" in html


def test_the_last_cycle_is_told_and_only_that(platform, tmp_path) -> None:
    store = RecordStore(platform.records_uri)
    for record in (
        decision("training", moment(3, 1), "trained"),
        decision("gates", moment(3, 1), "failed"),
        decision("training", moment(4, 1), "trained"),
        decision("gates", moment(4, 1), "passed"),
        decision("promotion", moment(4, 2), "promoted"),
        decision("retrain_decision", moment(5, 9), "retrain"),
        decision("retrain_decision", moment(7, 1), "nothing"),
        decision("gates", moment(5, 1), "failed", usecase="loans"),
    ):
        store.append(record)
    for said in (
        word("dispute", moment(3, 20), "before the last training"),
        word("dispute", moment(5, 2), "Gate was closed"),
        word("dispute", moment(5, 3), "gate was  closed"),
        word("correction", moment(5, 4), "<b>arrived</b> early", value=False),
        word("dispute", moment(6, 30), "after the moment"),
    ):
        store_feedback(platform.labels_uri, "flights", said)
    record, html = summarise(platform, tmp_path, "2013-05-10T00:00:00Z")
    assert (record.inputs["disputes"], record.inputs["corrections"]) == (2, 1)
    assert record.inputs["decisions"] == {"gates: passed": 1, "promotion: promoted": 1, "retrain_decision: retrain": 1}
    assert record.details["reasons"] == {"gate was closed": 2, "<b>arrived</b> early": 1}
    assert "stay out of training" in record.reason
    assert "promotion promoted 02 April" in html
    assert "01 March" not in html
    assert "&lt;b&gt;arrived&lt;/b&gt;" in html
    assert "<b>arrived" not in html


def test_the_same_summary_again_is_the_same_record(platform, tmp_path) -> None:
    store_feedback(platform.labels_uri, "flights", word("dispute", moment(5, 2), "wrong"))
    first, _ = summarise(platform, tmp_path, "2013-05-10T00:00:00Z")
    second, _ = summarise(platform, tmp_path, "2013-05-10T00:00:00Z")
    assert first == second
    assert len(list(RecordStore(platform.records_uri).list("feedback_summary"))) == 1
