"""A real release (model, detectors, bundle), a real sidecar process, a real receiver of alerts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from components.contracts.artifacts import CodeVersion, ModelManifest
from components.contracts.durations import format_moment, parse_moment
from components.contracts.events import INFERENCE_RESPONSE
from components.contracts.platform import Platform
from components.deployment.bundle import REQUIRED_FILES, BundleFields, build_bundle

FEATURES = ("temp", "delay", "carrier", "origin")
CATEGORIES = {"carrier": ("AA", "B6", "UA"), "origin": ("EWR", "JFK", "LGA")}
WINDOW = parse_moment("2013-04-04T00:00:00Z")  # a multiple of seven days since the epoch


def make_rows(start: datetime, days: int, a_day: int, seed: int, warmer: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = days * a_day
    moments = pd.to_datetime(start) + pd.to_timedelta(np.sort(random.uniform(0, days * 86_400, rows)), unit="s").floor("s")
    frame = pd.DataFrame({"temp": random.normal(45, 10, rows) + warmer, "delay": random.exponential(10, rows)})
    for name, values in CATEGORIES.items():
        frame[name] = random.choice(values, rows)
    return frame.assign(prediction_moment=moments, label=random.uniform(size=rows) < 1 / (1 + np.exp(2 - frame["delay"] / 10)))


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A bundle store and the id of a release in it, with detectors fitted on twelve weeks before April."""
    import xgboost as xgb

    from components.model_server.encoding import Encoding
    from components.model_server.scoring import Calibrator, ScoringModel, save_model
    from components.monitoring.reference import fit_detectors

    folder = tmp_path_factory.mktemp("release")
    dataset = make_rows(parse_moment("2013-01-03T00:00:00Z"), 84, 60, 1)
    dataset["split"] = np.where(np.arange(len(dataset)) < 3000, "train", "test")
    encoding = Encoding(FEATURES, CATEGORIES)
    matrix = xgb.DMatrix(
        encoding.encode(dataset), dataset["label"], feature_names=list(FEATURES), feature_types=encoding.feature_types, enable_categorical=True
    )
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 3}, matrix, 10)
    code = CodeVersion(commit="", dirty=False, tree_hash="t", lock_hash="l")
    manifest = ModelManifest(
        version="m1", algorithm="xgboost", parameters={}, best_iteration=9, seed=1, dataset="d", feature_names=FEATURES, categorical=CATEGORIES,
        decision_threshold=0.3, code=code,
    )  # fmt: skip
    save_model(folder / "model", manifest, booster, Calibrator(kind="identity"))
    fit_detectors("flights", dataset, ScoringModel.load(folder / "model"), folder / "fitted")
    files = dict.fromkeys(REQUIRED_FILES, b"{}")
    for part in (folder / "model", folder / "fitted"):
        files |= {path.relative_to(part).as_posix(): path.read_bytes() for path in part.rglob("*") if path.is_file()}
    fields = BundleFields("flights", "m1", "v", "d", "fs", (), "g", True, "test", parse_moment("2013-03-28T00:00:00Z"))
    return str(folder / "bundles"), build_bundle(files, fields, str(folder / "bundles"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story")


@pytest.fixture
def platform(tmp_path: Path, release: tuple[str, str]) -> Platform:
    return Platform.embedded(tmp_path / "state").model_copy(update={"bundles_uri": release[0]})


@dataclass
class Answers:
    """Makes numbered answers of one replica the way the model server does."""

    release: str
    instance: str = "server-1"
    version: str = "m1"
    number: int = 0
    score: Callable[[pd.DataFrame], Any] | None = None

    def body(self, rows: pd.DataFrame, **model: str) -> bytes:
        self.number += 1
        probability = np.full(len(rows), 0.25) if self.score is None else self.score(rows)
        predictions = [
            {
                "id": f"{self.instance}-{self.number}-{row}", "entity": f"f{self.number}-{row}", "prediction_moment": format_moment(values["prediction_moment"]),
                "event_time": format_moment(values["prediction_moment"] + timedelta(hours=2)), "probability": float(probability[row]),
                "decision": False, "features": {name: None if values[name] != values[name] else values[name] for name in FEATURES}, "feature_times": {}, "warnings": [],
            }
            for row, values in enumerate(rows.to_dict("records"))
        ]  # fmt: skip
        info = {"usecase": "flights", "model_version": self.version, "release": self.release, "feature_set": "fs", "decision_threshold": 0.3}
        answer = {"predictions": predictions, "model": {**info, **model}, "instance": self.instance, "sequence": self.number}
        return json.dumps({"jsonData": answer, "meta": {}}).encode()


@dataclass
class Sidecar:
    """A running sidecar process."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def post(self, body: bytes, type_: str = INFERENCE_RESPONSE, **headers: str) -> httpx.Response:
        sent = {"ce-specversion": "1.0", "ce-id": "e", "ce-type": type_, "ce-endpoint": "default", "ce-requestid": "r"}
        return httpx.post(self.url, content=body, headers={**sent, **{name.replace("_", "-"): value for name, value in headers.items()}}, timeout=30)

    def metric(self, name: str, **labels: str) -> float:
        from prometheus_client.parser import text_string_to_metric_families

        text = httpx.get(f"{self.url}/metrics", timeout=10).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/status", timeout=10).json()
        return found

    def settle(self, seconds: float = 90.0) -> None:
        wait_until(lambda: self.status()["settled"], seconds)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def wait_until(condition: Callable[[], Any], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


@pytest.fixture
def start_sidecar(tmp_path: Path, platform: Platform) -> Iterator[Callable[..., Sidecar]]:
    """Start sidecars over one prediction log; `spool` names the replica's own folder."""
    yield from running_sidecars(tmp_path, platform)


def running_sidecars(folder: Path, platform: Platform) -> Iterator[Callable[..., Sidecar]]:
    file = folder / "platform.json"
    file.write_text(platform.model_dump_json())
    running: list[Sidecar] = []

    def start(spool: str = "spool", *arguments: str) -> Sidecar:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        command = [sys.executable, "-m", "components.monitoring.sidecar", "--port", str(port), "--spool", str(folder / spool), "--usecase", "flights"]
        log = folder / f"{spool}.log"
        with log.open("ab") as output:
            environment = {**os.environ, "CRISPLINE_PLATFORM": str(file)}
            process = subprocess.Popen([*command, "--move-seconds", "0.1", *arguments], stdout=output, stderr=output, env=environment)
        sidecar = Sidecar(process, f"http://127.0.0.1:{port}", log)
        running.append(sidecar)

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return httpx.get(f"{sidecar.url}/ready", timeout=2).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(up)
        return sidecar

    yield start
    for sidecar in running:
        if sidecar.process.poll() is None:
            sidecar.process.terminate()
            sidecar.process.wait(30)


@dataclass
class Receiver:
    """Stands where the trigger stands: refuses the first `refusals` posts with 503, keeps the rest."""

    refusals: int = 0
    received: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    refused: int = 0
    url: str = ""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if state.refused < state.refusals:
                state.refused += 1
                self.send_response(503)
            else:
                state.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()


@pytest.fixture
def answers() -> Answers:
    """Of a release that the store does not have: for tests that need no verdict on drift."""
    return Answers("0" * 64)


@pytest.fixture
def rows() -> Callable[..., pd.DataFrame]:
    """`rows(days_after_the_window's_start, days, seed, warmer=0)`: 60 a day."""

    def make(after: int, days: int, seed: int, warmer: float = 0.0) -> pd.DataFrame:
        return make_rows(WINDOW + timedelta(days=after), days, 60, seed, warmer)

    return make


@dataclass(frozen=True)
class Story:
    """What one sidecar made of six weeks: a quiet one, a warm one, one with a null column, one with lost events, one with two models, late rows."""

    platform: Platform
    receiver: Receiver
    release: str
    late_metric: float
    lost_metric: float
    alerts_before_late_rows: list[str]
    rows: dict[int, int]


@pytest.fixture(scope="module")
def story(home: Path, release: tuple[str, str], receiver: Receiver) -> Iterator[Story]:
    from components.contracts.records import RecordStore
    from components.model_server.scoring import ScoringModel

    model = ScoringModel.load(Path(release[0]).parent / "model")
    answers = Answers(release[1], score=model.predict_probability)
    other = Answers("0" * 64, instance="server-2", version="m2")
    platform = Platform.embedded(home / "state").model_copy(update={"bundles_uri": release[0]})
    receiver.refusals = 2
    weeks = {week: make_rows(WINDOW + timedelta(days=7 * week), 7, 60, 40 + week) for week in range(-1, 6)}
    weeks[0]["temp"] += 30.0
    weeks[1]["temp"] = float("nan")
    for sidecar_of in running_sidecars(home, platform):
        sidecar = sidecar_of("spool", "--trigger-url", receiver.url)
        for week, frame in weeks.items():
            on_time = frame.iloc[:-40] if week == 0 else frame.iloc[:40] if week == 5 else frame
            for number, first in enumerate(range(0, len(on_time), 20)):
                body = (other if week == 3 and first >= 210 else answers).body(on_time.iloc[first : first + 20])
                if week != 2 or number not in (5, 6):  # these two the executor's logger lost
                    assert sidecar.post(body).status_code == 200
        sidecar.settle()
        before = [record.model_dump_json() for record in RecordStore(platform.records_uri).list("alert")]
        assert sidecar.post(answers.body(weeks[0].iloc[-40:])).status_code == 200
        sidecar.settle()
        wait_until(lambda sidecar=sidecar: sidecar.status()["alerts_pending"] == 0)
        late, lost = sidecar.metric("crispline_sidecar_predictions_late_total"), sidecar.metric("crispline_sidecar_answers_lost_total")
        yield Story(platform, receiver, release[1], late, lost, before, {week: len(frame) for week, frame in weeks.items()})
