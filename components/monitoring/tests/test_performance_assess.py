"""From the prediction log, a lake and a release to records: estimated while labels are missing, measured when they came, nothing counted twice."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.contracts.errors import CrisplineError
from components.contracts.events import PERFORMANCE, Performance
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.contracts.serving import LoggedPrediction
from components.data_engineering.ingest import ingest_period
from components.deployment.bundle import REQUIRED_FILES, BundleFields, build_bundle
from components.monitoring.feedback import FeedbackLabel, store_labels
from components.monitoring.performance.assess import Window, assess_window, due_windows, read_performance
from components.monitoring.performance.join import join_window
from components.monitoring.performance.steps import FOUND, assess, emit, post_event
from components.monitoring.prediction_log import PredictionLog

pytestmark = pytest.mark.monitoring

MONDAY = datetime(2013, 4, 1, tzinfo=UTC)
START = datetime(2013, 4, 4, tzinfo=UTC)  # a multiple of a week since the epoch
END = START + timedelta(days=7)
CLOSED, LABELLED = END + timedelta(hours=6), END + timedelta(days=15, hours=2)
PER_DAY = 60


class World:
    """Flights' use case over one state folder, with a release of a perfectly calibrated model."""

    def __init__(self, state: Path) -> None:
        self.usecase: LoadedUseCase = load_usecase("flights")
        self.platform = Platform.embedded(state)
        self.release = self._release()
        self.log = PredictionLog(self.platform.prediction_log_uri)

    def predict(self, start: datetime = START, days: int = 7, model: str = "m1", seed: int = 5, broken: bool = False) -> pd.DataFrame:
        """Log predictions and return what will become of them; `broken`: the labels no longer follow the probabilities."""
        rows, truth = [], []
        draw = np.random.default_rng(seed)
        for number in range(days * PER_DAY):
            moment = start + timedelta(days=number // PER_DAY, minutes=10 * (number % PER_DAY))
            probability = float(draw.beta(1.2, 3.6))
            entity = f"{model}-{seed}-{number}"
            rows.append(self.prediction(entity, moment, probability, model, ["AA", "UA"][number % 2]))
            truth.append({"entity": entity, "event": moment + timedelta(hours=2), "late": bool(draw.random() < (0.25 if broken else probability))})
        self.log.append(rows)
        return pd.DataFrame(truth)

    def prediction(self, entity: str, moment: datetime, probability: float, model: str = "m1", carrier: str = "AA", id: str = "") -> LoggedPrediction:
        return LoggedPrediction(
            id=id or f"{entity}-0",
            usecase="flights",
            predictor="champion",
            entity=entity,
            prediction_moment=moment,
            event_time=moment + timedelta(hours=2),
            model_version=model,
            release=self.release,
            feature_set="f",
            probability=probability,
            decision=probability > 0.3,
            features={"carrier": carrier, "month": 4, "distance": 400.0, "origin": "JFK"},
            feature_times={},
            warnings=[],
            instance="i",
            sequence=0,
            received=moment,
        )

    def ingest_labels(self, truth: pd.DataFrame, until: datetime, outcomes: dict[str, str] | None = None) -> None:
        """Bring the lake up to `until`: arrivals become known 15 days after the flight."""
        outcomes = outcomes or {}
        outcome = truth["entity"].map(lambda entity: outcomes.get(entity, "arrived"))
        frame = pd.DataFrame(
            {
                "flight_id": truth["entity"],
                "sched_dep_utc": truth["event"].astype("datetime64[us, UTC]"),
                "arr_delay": truth["late"].map({True: 40.0, False: -3.0}).where(outcome == "arrived"),
                "outcome": outcome,
                "known_at": (truth["event"] + timedelta(days=15)).astype("datetime64[us, UTC]"),
            }
        )

        def read(table: str, group: str, start: datetime, end: datetime) -> pd.DataFrame:
            if (table, group) == ("flights", "outcome"):
                return frame[(frame["known_at"] >= start) & (frame["known_at"] < end)]
            from components.data_engineering.lake import arrow_schema

            return arrow_schema(self.usecase.config, table, group).empty_table().to_pandas()

        ingest_period(self.usecase, self.platform.lake_uri, MONDAY, until, read)

    def assess(self, as_of: datetime) -> list[Performance]:
        return assess_window(self.usecase, self.platform, START, END, as_of)

    def _release(self) -> str:
        draw = np.random.default_rng(1)
        probability = draw.beta(1.2, 3.6, 14 * 120)
        reference = pd.DataFrame(
            {
                "prediction_moment": [datetime(2013, 3, 1, tzinfo=UTC) + timedelta(minutes=12 * row) for row in range(len(probability))],
                "probability": probability,
                "label": draw.random(len(probability)) < probability,
                "split": "test",
            }
        )
        train = reference.assign(split="train", label=~reference["label"])  # must not be looked at
        buffer = io.BytesIO()
        pd.concat([train, reference]).to_parquet(buffer)
        files = dict.fromkeys(REQUIRED_FILES, b"{}") | {"reference.parquet": buffer.getvalue()}
        fields = BundleFields("flights", "m1", "d", "s", "f", (), "g", True, "c", MONDAY)
        return build_bundle(files, fields, self.platform.bundles_uri)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_without_labels_performance_is_estimated_with_both_errors_and_its_assumption(world: World) -> None:
    world.predict()
    (found,) = world.assess(CLOSED)
    assert (found.kind, found.metric, found.labelled_share, found.rows) == ("estimated", "roc_auc", 0.0, 7 * PER_DAY)
    assert found.low < found.value < found.high
    assert found.sampling_error > 0
    assert found.backtest_error >= 0
    assert "no concept drift" in found.assumption
    assert found.outcomes == {"awaited": 7 * PER_DAY}
    assert {"carrier=AA", "month=4", "origin=JFK", "distance=0 to 500"} <= set(found.slices)


@pytest.mark.ml_test("model-2", "monitoring-7")
def test_with_labels_performance_is_measured_near_the_estimate(world: World) -> None:
    truth = world.predict()
    (estimated,) = world.assess(CLOSED)
    world.ingest_labels(truth, LABELLED)
    (found,) = world.assess(LABELLED)
    assert (found.kind, found.labelled_share, found.assumption, found.concept_drift) == ("measured", 1.0, "", False)
    assert found.explained == estimated.value
    assert estimated.low <= found.value <= estimated.high
    assert found.outcomes == {"arrived": 7 * PER_DAY}


def test_labels_known_later_than_the_moment_asked_for_do_not_exist(world: World) -> None:
    world.ingest_labels(world.predict(), LABELLED)
    (found,) = world.assess(LABELLED - timedelta(days=4))
    assert found.kind == "estimated"
    assert found.labelled_share == 0.0


@pytest.mark.ml_test("monitoring-7")
def test_labels_that_stopped_following_the_inputs_are_concept_drift(world: World) -> None:
    world.ingest_labels(world.predict(broken=True), LABELLED)
    (found,) = world.assess(LABELLED)
    assert found.concept_drift
    assert found.high < found.threshold
    record = RecordStore(world.platform.records_uri).get("performance", found.id)
    assert "concept drift" in record.reason
    checks = [one for one in RecordStore(world.platform.records_uri).list("check") if one.details["check"] == "performance"]
    assert [one.outcome for one in checks] == ["failed"]


def test_cancelled_diverted_and_missing_flights_are_closed_and_counted(world: World) -> None:
    truth = world.predict()
    lost = set(truth["entity"].tail(100))
    outcomes = {truth["entity"][0]: "cancelled", truth["entity"][1]: "diverted"}
    ended = END + timedelta(days=28)
    world.ingest_labels(truth[~truth["entity"].isin(lost)], ended, outcomes)
    (waiting,) = world.assess(LABELLED)  # the lake's first version is later: nothing was known
    assert waiting.kind == "estimated"
    (found,) = world.assess(ended)
    assert found.kind == "measured"
    assert found.outcomes == {"arrived": 7 * PER_DAY - 102, "cancelled": 1, "diverted": 1, "missing": 100}
    assert found.labelled_share == 1.0


def test_too_few_labels_leave_the_estimate_in_place(world: World) -> None:
    truth = world.predict()
    world.ingest_labels(truth.head(int(len(truth) * 0.9)), LABELLED)
    (found,) = world.assess(LABELLED)
    assert found.kind == "estimated"
    assert found.labelled_share == pytest.approx(0.9)


def test_labels_from_seldon_feedback_count_by_prediction_id_or_entity_and_the_label_table_goes_first(world: World) -> None:
    truth = world.predict()
    official = truth.head(1)
    world.ingest_labels(official, LABELLED)
    labels = [FeedbackLabel(entity=row.entity, label=row.late, known_at=row.event + timedelta(hours=6)) for row in truth.itertuples()]
    labels[0] = labels[0].model_copy(update={"label": not truth["late"][0]})  # contradicts the table
    labels[1] = labels[1].model_copy(update={"prediction_id": f"{labels[1].entity}-0", "label": None, "outcome": "diverted"})
    labels[2] = labels[2].model_copy(update={"prediction_id": "of another prediction"})
    store_labels(world.platform.labels_uri, world.usecase.config, labels)
    joined = join_window(world.usecase, world.platform, START, END, LABELLED)
    rows = joined.rows.set_index("entity")
    assert rows.at[truth["entity"][0], "label"] == truth["late"][0]
    assert rows.at[truth["entity"][1], "outcome"] == "diverted"
    assert rows.at[truth["entity"][2], "state"] == "pending"
    assert joined.outcomes == {"arrived": 7 * PER_DAY - 2, "diverted": 1, "awaited": 1}
    (early,) = [one for one in world.assess(CLOSED) if one.kind == "measured"]
    assert early.labelled_share > 0.99


def test_a_flight_predicted_twice_counts_once_with_its_last_prediction(world: World) -> None:
    world.predict()
    again = world.prediction("m1-5-0", START + timedelta(hours=1), 0.99, id="later-0")
    world.log.append([again])
    joined = join_window(world.usecase, world.platform, START, END, CLOSED)
    assert len(joined.rows) == 7 * PER_DAY
    assert joined.outcomes["repeated"] == 1
    assert joined.rows.set_index("entity").at["m1-5-0", "probability"] == 0.99


def test_each_model_with_enough_rows_is_judged_on_its_own_rows(world: World) -> None:
    world.predict(days=4, model="m1")
    world.predict(start=START + timedelta(days=4), days=3, model="m2", seed=6)
    assert [one.model_version for one in world.assess(CLOSED)] == ["m1"]  # 180 rows of m2 are fewer than monitoring.minimum_rows
    world.predict(start=START + timedelta(days=4), days=3, model="m2", seed=7)
    assert [(one.model_version, one.rows) for one in world.assess(CLOSED)] == [("m1", 240), ("m2", 360)]


def test_asking_again_returns_the_first_assessment_and_writes_nothing(world: World) -> None:
    truth = world.predict()
    first = world.assess(CLOSED)
    world.predict(seed=9)  # late rows change no issued record
    assert world.assess(CLOSED + timedelta(days=1)) == first
    world.ingest_labels(truth, LABELLED)
    assert len(read_performance(world.platform, "flights", LABELLED)) == 1


def test_due_windows_are_closed_ones_to_estimate_and_labelled_ones_to_measure(world: World) -> None:
    assert due_windows(world.usecase, world.platform, CLOSED) == []
    truth = world.predict()
    assert due_windows(world.usecase, world.platform, CLOSED - timedelta(seconds=1)) == []
    assert due_windows(world.usecase, world.platform, CLOSED) == [Window(START, END, "estimated")]
    world.assess(CLOSED)
    assert due_windows(world.usecase, world.platform, LABELLED - timedelta(seconds=1)) == []
    assert due_windows(world.usecase, world.platform, LABELLED) == [Window(START, END, "measured")]
    world.ingest_labels(truth, LABELLED)
    world.assess(LABELLED)
    assert due_windows(world.usecase, world.platform, LABELLED + timedelta(days=7)) == []


def test_later_estimates_learn_from_measured_windows(world: World) -> None:
    world.ingest_labels(world.predict(broken=True), LABELLED)
    world.predict(start=END, seed=11)
    before = assess_window(world.usecase, world.platform, END, END + timedelta(days=7), LABELLED)[0]
    RecordStore(world.platform.records_uri)._path("performance", before.id).unlink()
    RecordStore(world.platform.records_uri)._path("check", next(iter(RecordStore(world.platform.records_uri).list("check"))).id).unlink()
    world.assess(LABELLED)
    after = assess_window(world.usecase, world.platform, END, END + timedelta(days=7), LABELLED)[0]
    assert after.value == before.value
    assert after.backtest_error > before.backtest_error + 0.02


class Trigger(BaseHTTPRequestHandler):
    answers: list[int]
    seen: list[tuple[dict[str, str], dict[str, Any]]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append(({name.lower(): value for name, value in self.headers.items()}, json.loads(body)))
        self.send_response((self.answers.pop(0) if self.answers else 202) if self.path == "/events" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def endpoint() -> Iterator[tuple[str, type[Trigger]]]:
    handler = type("OneTrigger", (Trigger,), {"answers": [], "seen": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/events", handler
    server.shutdown()
    server.server_close()


def test_the_steps_assess_all_due_windows_and_emit_what_they_found(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: tuple[str, type[Trigger]]
) -> None:
    world.predict()
    url, handler = endpoint
    file = tmp_path / "platform.json"
    file.write_text(world.platform.model_copy(update={"trigger_url": url}).model_dump_json())
    monkeypatch.setenv("CRISPLINE_PLATFORM", str(file))
    result = tmp_path / "performance"
    assert assess("flights", "", "", "2013-04-11T06:00:00Z", str(result)) == "held"
    handler.answers += [503]
    assert emit("flights", str(result)) == "1"
    headers, body = handler.seen[-1]
    assert headers["ce-type"] == PERFORMANCE
    assert [Performance.model_validate(body)] == FOUND.validate_json(result.read_bytes())
    assert len(handler.seen) == 2
    assert assess("flights", "2013-05-02T00:00:00Z", "2013-05-09T00:00:00Z", "2013-05-10T00:00:00Z", str(result)) == "no_data"


def test_an_event_that_the_trigger_refuses_fails_the_step_with_its_answer(endpoint: tuple[str, type[Trigger]]) -> None:
    url, handler = endpoint
    handler.answers += [422]
    with pytest.raises(CrisplineError, match="did not take event e: 422"):
        post_event(url, PERFORMANCE, "e", "test", "{}", sleep=lambda _: None)
    assert len(handler.seen) == 1
    with pytest.raises(CrisplineError, match="ConnectError"):
        post_event("http://127.0.0.1:9", PERFORMANCE, "e", "test", "{}", sleep=lambda _: None)
