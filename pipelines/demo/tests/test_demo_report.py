"""The report says what the records say: a broken promise, a refused model and a loss are as plain as their opposites."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.contracts.events import Alert, Performance
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from pipelines.demo.consumer import Account, account_record
from pipelines.demo.drift_history import DriftHistory
from pipelines.demo.policies import PolicyComparison, compare
from pipelines.demo.report import LoopFacts, in_words, write_report
from pipelines.runners.runs import RunStore

pytestmark = pytest.mark.pipeline

START, WEEK = datetime(2013, 4, 4, tzinfo=UTC), timedelta(days=7)
FACTS = LoopFacts(start=START, end=START + 12 * WEEK, sample=0.125, requests=91, rows=9_876, seconds=83.0, finished=True)
NO_DRIFT = DriftHistory([], [], np.empty((0, 0)))


@pytest.fixture(scope="module")
def flights() -> LoadedUseCase:
    """The promise that the figures below are about: 0.65."""
    loaded = load_usecase("flights")
    retraining = loaded.config.retraining.model_copy(update={"threshold": 0.65})
    return LoadedUseCase(loaded.folder, loaded.config.model_copy(update={"retraining": retraining}), loaded.features)


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(Platform.embedded(tmp_path).records_uri)


@pytest.fixture
def report(flights: LoadedUseCase, tmp_path: Path) -> Callable[..., str]:
    def write(facts: LoopFacts = FACTS, comparison: PolicyComparison | None = None, drift: DriftHistory = NO_DRIFT) -> str:
        return write_report(flights, Platform.embedded(tmp_path), tmp_path, facts, comparison, drift).read_text()

    return write


def performance(number: int, value: float, kind: str = "measured") -> Record:
    start = START + number * WEEK
    found = Performance(
        id=record_id(kind, start), usecase="flights", model_version="m1", window_start=start, window_end=start + WEEK, as_of=start + 4 * WEEK, kind=kind,
        metric="roc_auc", value=value, low=value - 0.02, high=value + 0.02, threshold=0.65, rows=800, labelled_share=1.0, sampling_error=0.01, backtest_error=0.01,
    )  # fmt: skip
    return Record(kind="performance", id=found.id, usecase="flights", event_time=found.as_of, outcome=kind, reason="", details=found.model_dump(mode="json"))


def record(kind: str, outcome: str, reason: str = "", number: int = 0, details: dict[str, object] | None = None) -> Record:
    lineage = Lineage(model_version=f"m{number}", cause="alert-7", release=f"release-{number}", data_version="data-1")
    id = record_id(kind, outcome, number, reason)
    return Record(kind=kind, id=id, usecase="flights", event_time=START + number * WEEK, outcome=outcome, reason=reason, details=details or {}, lineage=lineage)


def test_a_kept_promise(store: RecordStore, report: Callable[..., str]) -> None:
    for number, value in enumerate((0.70, 0.72)):
        store.append(performance(number, value))
    page = report()
    assert "The promise was kept in every week" in page and "0.710" in page and "0.700" in page
    assert "verdict good" in page


def test_a_broken_promise_says_in_how_many_weeks(store: RecordStore, report: Callable[..., str]) -> None:
    # 0.64 may still be chance (up to 0.66); 0.60 (up to 0.62) lies below the promised 0.65 as a whole.
    for number, value in enumerate((0.70, 0.64, 0.60)):
        store.append(performance(number, value))
    page = report()
    assert "The promise was broken in 1 of 3 weeks" in page and "The promise was kept" not in page
    assert "verdict warn" in page and "0.600" in page


def test_estimates_alone_are_no_verdict(store: RecordStore, report: Callable[..., str]) -> None:
    store.append(performance(0, 0.9, kind="estimated"))
    page = report()
    assert "Nothing could be measured yet" in page and "not measured" in page and "The promise was kept" not in page


def test_a_refused_model_is_listed_with_the_gates_reason(store: RecordStore, report: Callable[..., str]) -> None:
    assert "Models that the gates refused" not in report()
    store.append(record("gates", "passed", "all gates hold", 1))
    store.append(record("gates", "failed", "no_origin_collapses: roc auc in origin=LGA is 0.51, below 0.55", 2))
    page = report()
    assert "Models that the gates refused" in page
    assert "no_origin_collapses: roc auc in origin=LGA is 0.51, below 0.55" in page
    assert "of 2 models that came to the gates, 1 passed and 1 did not" in page


def test_every_decision_is_there_also_a_no(store: RecordStore, report: Callable[..., str]) -> None:
    store.append(record("retrain_decision", "nothing", "the promise holds", 1))
    store.append(record("retrain_decision", "retrain", "the whole interval lies below", 2))
    page = report()
    assert "the promise holds" in page and "the whole interval lies below" in page and "All 2 decisions" in page
    assert "decided 2 times and started 1 retraining;" in page
    link = f"records/retrain_decision/{record('retrain_decision', 'retrain', 'the whole interval lies below', 2).id}.json"
    assert f'href="{link}"' in page and (Path(store.root.path) / link.removeprefix("records/")).exists()


def test_a_reason_is_shown_as_a_person_writes_it() -> None:
    reason = "segment_mix_drift in scheduled_minutes for 2013-04-04T00:00:00Z to 2013-04-11T06:00:00Z; roc_auc 0.61"
    assert in_words(reason) == "segment mix drift in scheduled_minutes for 4 Apr to 2013-04-11T06:00:00Z; roc auc 0.61"


def test_alerts_are_listed_by_kind(store: RecordStore, report: Callable[..., str]) -> None:
    alert = Alert(
        id="a1", usecase="flights", kind="data_drift", detector="features", model_version="m1", release="r", window_start=START, window_end=START + WEEK,
        rows=700, subject="temp", statistic=0.4, threshold=0.2, effect="20 degrees warmer", details={},
    )  # fmt: skip
    store.append(record("alert", "raised", "temp: 20 degrees warmer", 1, {"alert": alert.model_dump(mode="json")}))
    page = report()
    assert "All 1 alerts" in page and "data drift" in page and "temp: 20 degrees warmer" in page


def test_a_loss_of_the_desk_is_called_a_loss(flights: LoadedUseCase, store: RecordStore, report: Callable[..., str]) -> None:
    assert "No labels have come yet" in report()
    store.append(account_record(flights, START, START + WEEK, START + 4 * WEEK, Account(10, 5, 0, 5, 0, 600.0, 0.0)))
    assert "lost 600 USD against never acting" in report()


def test_what_the_desk_saved_is_summed_up(flights: LoadedUseCase, store: RecordStore, report: Callable[..., str]) -> None:
    for number in range(2):
        start = START + number * WEEK
        store.append(account_record(flights, start, start + WEEK, start + 4 * WEEK, Account(10, 5, 4, 1, 1, 520.0, 2000.0)))
    assert "saved 2,960 USD against never acting" in report()


def test_a_risk_shows_the_latest_result_of_its_check_or_that_there_is_none(store: RecordStore, report: Callable[..., str]) -> None:
    assert report().count("no evidence yet") > 15
    store.append(record("check", "passed", "an old result", 1, {"check": "leakage"}))
    store.append(record("check", "failed", "delay_tomorrow alone ranks with 0.99", 2, {"check": "leakage"}))
    page = report()
    assert "delay_tomorrow alone ranks with 0.99" in page and "an old result" not in page


def test_the_comparison_of_policies_is_told_when_there_is_one(report: Callable[..., str]) -> None:
    assert "Would another policy have done better?" not in report()
    moments = pd.to_datetime(["2013-04-05", "2013-04-06"], utc=True)
    scores = pd.DataFrame({"entity": ["a", "b"], "moment": moments, "label": [True, False], "never": [0.9, 0.1], "monthly": [0.1, 0.9]})
    page = report(comparison=compare(scores, pd.DataFrame({"entity": ["a", "b"], "probability": [0.9, 0.1]}), 4, "roc_auc", 0.65))
    assert "Would another policy have done better?" in page and "1.000 with 4 retrainings, 1.000 without any, and 0.000 with 0 monthly ones" in page


def test_drift_is_drawn_by_feature(report: Callable[..., str]) -> None:
    assert "No window was complete enough to be tested" in report()
    page = report(drift=DriftHistory([START, START + WEEK], ["temp", "carrier"], np.array([[0.2, 1.8], [np.nan, 0.4]])))
    assert "No window was complete enough" not in page and "Drift per feature over time" in page


def test_an_interrupted_loop_says_so(report: Callable[..., str]) -> None:
    assert "83 s (interrupted)" in report(facts=LoopFacts(START, START + WEEK, 0.125, 7, 700, 83.0, finished=False))
    assert "interrupted" not in report()


def test_text_from_records_cannot_become_markup(store: RecordStore, report: Callable[..., str]) -> None:
    store.append(record("retrain_decision", "page", "<script>alert(1)</script>", 1))
    page = report()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_pages_of_runs_are_linked_by_the_runs_name(tmp_path: Path, report: Callable[..., str]) -> None:
    runs = RunStore(tmp_path)
    run = runs.begin("training-2013-04-01", "training", {}, "first-training")
    page = tmp_path / "runs" / run.id / "artifacts" / "evaluate" / "report"
    artifacts = {"evaluate": {"report": str(page), "evaluation": str(page.with_name("evaluation"))}, "profile": {"report": str(page)}}
    runs.finish(run.id, "succeeded", result={"artifacts": artifacts, "cached": ["profile"]})
    text = report()
    assert f'href="runs/{run.id}/artifacts/evaluate/report"' in text and "training-2013-04-01" in text
    assert text.count(f"runs/{run.id}/artifacts") == 1, "a page that a cached step handed on is listed once, where it was made"
