"""The whole loop: train, gate, promote, serve, replay, monitor, decide, retrain, roll over, report.

Day by day in business time: the rows of the day that had become known are ingested, the ticks of the day published, its predictions asked
for. Views that overwrite are published once a day at its start, so no batch of requests crosses one of their ticks; faster views carry the
tick in their key (docs/adr/0002).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from pathlib import Path
from threading import Thread

import httpx
import pandas as pd

from components.contracts.artifacts import DataVersion
from components.contracts.durations import floor_to, format_moment, parse_moment
from components.contracts.errors import CrisplineError
from components.contracts.features import FeatureSet
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import PLATFORM_VARIABLE, Platform
from components.contracts.records import RecordStore
from components.contracts.runs import FINISHED, Run
from components.data_engineering.entities import read_entities
from components.data_engineering.feature_steps import feature_sets_to_serve
from components.data_engineering.labels import labels_as_of
from components.data_engineering.lake import current_version, read_group
from components.data_engineering.materialise import OnlinePublisher
from components.deployment.bundle import fetch_bundle
from components.deployment.releases import current_release
from components.evaluation.serving_skew import measure_serving_skew
from components.monitoring.prediction_log import PredictionLog
from pipelines.demo import state_folder
from pipelines.demo.consumer import account, account_record, disputes
from pipelines.demo.day_ahead import DAY, DayAhead
from pipelines.demo.drift_history import read_drift_history
from pipelines.demo.narration import Narration
from pipelines.demo.policies import PolicyComparison, compare
from pipelines.demo.replay import Endpoint
from pipelines.demo.report import LoopFacts, write_report
from pipelines.demo.services import Supervisor
from pipelines.demo.serving_stack import ServingStack
from pipelines.demo.settings import Settings
from pipelines.demo.settling import sidecar_is_settled, trigger_is_idle, wait_until
from pipelines.runners.environments import ROOT, interpreter
from pipelines.runners.run_host import owned_host
from pipelines.runners.runs import LocalRuns, RunDetails, local_runs
from pipelines.runners.step_process import die_with_parent, yield_to_others

ENVIRONMENT = "dev"


@dataclass
class Loop:
    """One run of the loop in one state folder. `say` gets one line per thing worth knowing; `progress` follows the pipelines' steps."""

    settings: Settings
    state: Path
    usecase: LoadedUseCase
    platform: Platform
    ports: dict[str, int]
    say: Narration
    requests: int = 0
    rows: int = 0
    first_release: str = ""
    earlier_seconds: float = 0.0
    _http: httpx.Client = field(default_factory=httpx.Client)
    _online: OnlinePublisher | None = None

    def run(self) -> Path:
        """Returns the report's path. Raises CrisplineError; Ctrl-C ends every process, and the state can be resumed."""
        began = time.monotonic()
        next_day = self.settings.start
        known = state_folder.load(self.state)
        if known is not None:
            next_day, self.first_release = parse_moment(known.next_day), known.first_release
            self.requests, self.rows, self.earlier_seconds = known.requests, known.rows, known.seconds
        finished = False
        try:
            with ExitStack() as stack:
                # The host ends last: a trigger that outlived it would start one anew for the run that it waits for.
                stack.enter_context(owned_host(self.state))
                supervisor = stack.enter_context(Supervisor(self.state / "logs", {PLATFORM_VARIABLE: str(self.state / "platform.json")}))
                serving = ServingStack(supervisor, self.platform, self.usecase.name, ENVIRONMENT, self.state, self.ports, moment_skew="unlimited")
                serving.start_support()
                Thread(target=import_module, args=("feast.infra.provider",), daemon=True).start()  # seconds that the pipelines' steps leave idle here
                if not self.first_release:
                    self._ingest_history()
                serving.start_feature_server()
                # Begun here, so that it has read the source by the time that the first model is in service.
                ahead = stack.enter_context(DayAhead(self.usecase.folder, self.platform.lake_uri, self.settings.end))
                policies = stack.enter_context(self._policies_beside())
                if not self.first_release:
                    self._first_training()
                self._give_first_model(policies)
                serving.start_serving(self._released())
                for day in self._days(next_day):
                    self._replay_day(serving, ahead, day)
                    next_day = day + DAY
                    state_folder.save(self.state, self._progress(next_day, began))
                    supervisor.check_alive()
                self._check_serving_skew(serving, self.settings.end)
                self.say.note("replay finished; waiting for the comparison of policies")
                if policies is not None and policies.wait() != 0:
                    raise CrisplineError(f"the comparison of policies failed; see {self.state / 'logs' / 'policies.log'}")
            finished = True
        finally:
            if self.first_release:
                report = self._report(next_day, began, finished)
        return report

    # --- before the replay ---------------------------------------------------------------------------------------------------------------

    @property
    def _training_start(self) -> dict[str, str]:
        return {"usecase": self.usecase.name, "training_start": format_moment(self.settings.start - self.usecase.config.retraining.training_window)}

    def _ingest_history(self) -> None:
        self._run("data", {**self._training_start, "start": format_moment(self.settings.history_start), "end": format_moment(self.settings.start)})

    def _first_training(self) -> None:
        self._run("training", {**self._training_start, "as_of": format_moment(self.settings.start), "environment": ENVIRONMENT, "cause": "first-training"})
        self.first_release = self._released()
        state_folder.save(self.state, self._progress(self.settings.start, time.monotonic()))

    def _run(self, pipeline: str, parameters: dict[str, str]) -> None:
        """Submit a run to this machine's run store, follow its steps, wait for its end; a run that succeeded earlier is not repeated."""
        runs = local_runs(self.state)
        name = "-".join([pipeline, *(parameters[key] for key in ("as_of", "end") if key in parameters)])
        run = runs.find(name) or runs.submit(name, pipeline, parameters, parameters.get("cause", ""))
        self.say.following(run, self.state)
        details = self._wait(runs, run)
        if details.run.state != "succeeded":
            raise CrisplineError(f"pipeline {pipeline} failed\n{details.error}")

    def _wait(self, runs: LocalRuns, run: Run) -> RunDetails:
        """Until the run has ended; tells of each step as its log appears."""
        seen: set[str] = set()
        while True:
            ended = runs.get(run.id).state in FINISHED
            logs = (self.state / "runs" / run.id).glob("*.log")
            for log in sorted(logs, key=lambda log: log.stat().st_mtime):
                if log.stem not in seen and log.stem != "kfp":
                    seen.add(log.stem)
                    self.say.step(run, log.stem)
            if ended:
                return runs.store.details(run.id)
            time.sleep(0.1)

    def _released(self) -> str:
        release = current_release(self.platform, self.usecase.name, ENVIRONMENT)
        if release is None:
            raise CrisplineError(f"no release was promoted to {ENVIRONMENT}: the data were a no-go or a gate refused; see {self.platform.records_uri}/gates")
        return release.release

    @contextmanager
    def _policies_beside(self) -> Iterator[subprocess.Popen[bytes] | None]:
        """The comparison with never and monthly retraining, by a process of its own; None when it was computed before. See `_give_first_model`."""
        folder = self.state / "policies"
        if (folder / "policies.parquet").exists():
            yield None
            return
        folder.mkdir(exist_ok=True)
        moments = {"--history-start": self.settings.history_start, "--start": self.settings.start, "--end": self.settings.end}
        command = [
            str(interpreter("pipeline")),
            "-m",
            "pipelines.demo.policies",
            "--usecase",
            str(self.usecase.folder),
            "--state",
            str(folder),
            "--first-model",
            str(self._first_model),
        ]
        command += [text for name, moment in moments.items() for text in (name, format_moment(moment))]
        with (self.state / "logs" / "policies.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True, preexec_fn=_in_the_background
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()

    def _give_first_model(self, policies: subprocess.Popen[bytes] | None) -> None:
        """The comparison has built its rows meanwhile and goes on."""
        if policies is not None:
            fetch_bundle(self.platform.bundles_uri, self.first_release, self._first_model)
            assert policies.stdin is not None
            with suppress(BrokenPipeError):  # it has failed, which is told when the replay has ended
                policies.stdin.write(b"\n")
                policies.stdin.close()

    @property
    def _first_model(self) -> Path:
        return self.state / "first_release"

    # --- the replay ----------------------------------------------------------------------------------------------------------------------

    def _days(self, first: datetime) -> Iterator[datetime]:
        day = first
        while day < self.settings.end:
            yield day
            day += DAY

    def _replay_day(self, serving: ServingStack, ahead: DayAhead, day: datetime) -> None:
        end = day + DAY
        prepared = ahead.take(day, self._served(serving))
        version = prepared.version
        self._publisher(serving).write(version, day, end, prepared.ticks)
        rows = read_entities(self.platform.lake_uri, self.usecase, version, day, end)
        rows = rows[self.settings.sample.of(rows["entity"])]
        predictions = self._endpoint(serving).predict(rows, self.usecase.features)
        self._give_feedback(serving, version, predictions, day)
        self.rows += len(rows)
        window = self.usecase.config.monitoring.window
        closed = floor_to(end - self.usecase.config.monitoring.lateness, window)
        # A window that ended by the start of the replay saw no prediction, so nobody closes it.
        if max(self.settings.start, floor_to(day - self.usecase.config.monitoring.lateness, window)) < closed:
            self._end_of_window(serving, version, closed, as_of=end)
        self.say.day(day)

    def _end_of_window(self, serving: ServingStack, version: DataVersion, closed: datetime, as_of: datetime) -> None:
        """What is scheduled once a window: estimate the window that closed, measure the one whose labels are complete, let the trigger decide."""
        window, delay = self.usecase.config.monitoring.window, self.usecase.config.data.label.delay
        self._settle(serving, closed)
        # Without a window of its own the pipeline assesses all that are due.
        self._run("monitoring", {"usecase": self.usecase.name, "window_start": "", "window_end": "", "as_of": format_moment(as_of)})
        labelled = floor_to(as_of - delay - self.usecase.config.data.prediction.lead, window)
        self._settle_accounts(version, labelled - window, labelled, as_of)
        self._settle(serving, closed)
        release = self._released()
        if release != serving.release:
            self._check_serving_skew(serving, as_of)
            self.say.note(f"{as_of:%d %b}: release {release[:12]} was promoted; rolling over")
            serving.roll_over(release)
            self._publisher(serving).serve(self._served(serving))

    def _check_serving_skew(self, serving: ServingStack, as_of: datetime) -> None:
        """What the last step of the data pipeline does after every period; here once for each release, when it leaves service or the replay ends."""
        version = current_version(self.platform.lake_uri, self.usecase, as_of)
        record = measure_serving_skew(self.usecase, self.platform, serving.release, version)
        if record is not None:
            RecordStore(self.platform.records_uri).append(record)

    def _settle(self, serving: ServingStack, closed: datetime) -> None:
        alive = serving.supervisor.check_alive
        wait_until(lambda: sidecar_is_settled(self._http, serving.supervisor.url("sidecar"), closed), "the sidecar", alive)
        wait_until(lambda: trigger_is_idle(self._http, serving.supervisor.url("trigger")), "the retrain trigger", alive)

    def _give_feedback(self, serving: ServingStack, version: DataVersion, predictions: pd.DataFrame, day: datetime) -> None:
        if predictions.empty:
            return
        departures = read_group(self.platform.lake_uri, version, "flights", "departure", known_from=day, columns=["flight_id", "dep_delay", "known_at"])
        self._endpoint(serving).give_feedback(disputes(predictions, departures, self.usecase.config.business.users[0]))

    def _settle_accounts(self, version: DataVersion, start: datetime, end: datetime, as_of: datetime) -> None:
        """The consumer's account of a window whose labels have come."""
        predictions = PredictionLog(self.platform.prediction_log_uri).read(self.usecase.name, start, end)
        if len(predictions):
            result = account(self.usecase, predictions, self._labels(version, start, as_of))
            RecordStore(self.platform.records_uri).append(account_record(self.usecase, start, end, as_of, result))

    def _labels(self, version: DataVersion, start: datetime, as_of: datetime) -> dict[str, bool]:
        label = self.usecase.config.data.label
        outcomes = read_group(self.platform.lake_uri, version, label.table, label.group, known_from=start)
        known = labels_as_of(self.usecase, outcomes, as_of)
        known = known[known["label"].notna()]
        return dict(zip(known["entity"], known["label"].astype(bool), strict=True))

    def _endpoint(self, serving: ServingStack) -> Endpoint:
        return Endpoint(self._http, serving.url, self.usecase.config.deployment.maximum_batch_rows, self._count)

    def _count(self) -> None:
        self.requests += 1

    def _publisher(self, serving: ServingStack) -> OnlinePublisher:
        if self._online is None:
            self._online = OnlinePublisher(self.usecase, self.platform, self._served(serving))
        return self._online

    def _served(self, serving: ServingStack) -> list[FeatureSet]:
        return feature_sets_to_serve(self.usecase.features, self.platform.bundles_uri, [serving.release])

    # --- after the replay ----------------------------------------------------------------------------------------------------------------

    def _progress(self, next_day: datetime, began: float) -> state_folder.Progress:
        return state_folder.Progress(
            settings=self.settings.described(),
            next_day=format_moment(next_day),
            first_release=self.first_release,
            requests=self.requests,
            rows=self.rows,
            seconds=self.earlier_seconds + time.monotonic() - began,
        )

    def _report(self, next_day: datetime, began: float, finished: bool) -> Path:
        seconds = self.earlier_seconds + time.monotonic() - began
        facts = LoopFacts(self.settings.start, next_day, self.settings.sample.share, self.requests, self.rows, seconds, finished)
        return write_report(self.usecase, self.platform, self.state, facts, self._comparison(next_day), read_drift_history(self.platform, self.usecase))

    def _comparison(self, until: datetime) -> PolicyComparison | None:
        computed = self.state / "policies" / "policies.parquet"
        if not computed.exists():
            return None
        config = self.usecase.config
        predictions = PredictionLog(self.platform.prediction_log_uri).read(self.usecase.name, self.settings.start, until)
        if predictions.empty:
            return None
        retrained = sum(record.outcome == "retrain" for record in RecordStore(self.platform.records_uri).list("retrain_decision"))
        return compare(pd.read_parquet(computed), predictions, retrained, config.retraining.metric, config.retraining.threshold)


def _in_the_background() -> None:
    yield_to_others()  # the loop never waits for it before its end
    die_with_parent()
