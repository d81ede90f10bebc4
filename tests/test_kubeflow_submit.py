"""`crispline submit` and `crispline schedule` against the recording server: what is uploaded, started, followed and said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError, StepFailed
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.data_engineering.ingest import ingest_period
from components.data_engineering.tests.small_source import FIRST, START, SmallSource
from components.deployment.environment_file import Access, EnvironmentFile
from pipelines.commands import kubeflow
from pipelines.commands.choices import WrongUsage
from pipelines.commands.kubeflow import arguments
from pipelines.commands.schedule import schedule
from pipelines.commands.submit import submit
from pipelines.runners import kubeflow_follow, kubeflow_schedules
from pipelines.runners.kubeflow_follow import Follower, follow, steps_of
from pipelines.runners.kubeflow_runs import KubeflowRuns
from tests.kfp_recording_server import RecordingKfp, Request

pytestmark = pytest.mark.pipeline

AS_OF = "2013-05-01T00:00:00Z"


@pytest.fixture
def kfp() -> Iterator[RecordingKfp]:
    with RecordingKfp() as server:
        yield server
        assert not server.violations


@pytest.fixture
def environment(kfp: RecordingKfp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnvironmentFile:
    """`dev`, with its data on this machine."""
    platform = Platform.embedded(tmp_path / "state").model_copy(update={"pipelines_url": kfp.url, "pipelines_ui_url": "http://kubeflow.example.org"})
    file = EnvironmentFile(platform=platform, access=Access(namespace="crispline-dev", registry="localhost:5000"))
    monkeypatch.setattr(kubeflow, "load_environment", lambda _: file)
    monkeypatch.setattr(kubeflow_follow, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(kubeflow_schedules, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(kubeflow_schedules, "POLL_SECONDS", 0.02)
    for name in ("PIPELINE", "MONITORING"):
        monkeypatch.setenv(f"CRISPLINE_IMAGE_{name}", f"localhost:5000/crispline-{name.lower()}:test")
    return file


def asked(pipeline: str = "training", follow: bool = True, **parameters: str) -> dict[str, Any]:
    given = parameters or {"as_of": AS_OF}
    return {"pipeline": pipeline, "usecase": "flights", "environment": "dev", "parameters": given, "follow": follow, "timeout": 30}


def run_to(kfp: RecordingKfp, state: str, *stages: dict[str, str], cached: frozenset[str] = frozenset()) -> None:
    """Each look at the run brings its next stage; after the last it has ended."""
    waiting = list(stages)

    def look(_: int, request: Request, when: str) -> None:
        if when == "before" and request.method == "GET" and request.path.startswith("/runs/"):
            id = request.path.rpartition("/")[2]
            kfp.start_run(id)
            shown = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            kfp.set_tasks(id, shown, cached)
            if shown is stages[-1]:
                kfp.end_run(id, state, error="step failed" if state == "FAILED" else "")

    kfp.on_request = look


DONE = {"root": "SUCCEEDED", "resolve-request-driver": "SUCCEEDED", "resolve-request": "SUCCEEDED", "train": "SUCCEEDED", "condition-2": "SKIPPED"}


def test_a_run_is_uploaded_started_followed_and_its_result_said(kfp: RecordingKfp, environment: EnvironmentFile, capsys: pytest.CaptureFixture[str]) -> None:
    run_to(kfp, "SUCCEEDED", {"resolve-request": "RUNNING"}, {"resolve-request": "SUCCEEDED", "train": "RUNNING"}, DONE, cached=frozenset({"train"}))
    RecordStore(environment.platform.records_uri).append(
        Record(
            kind="gates",
            id=record_id("gates", "1"),
            usecase="flights",
            event_time=datetime(2013, 5, 1, tzinfo=UTC),
            outcome="failed",
            reason="Refused by 1 of 4 gates.",
            lineage=Lineage(cause=f"training-{AS_OF}"),
        )
    )
    assert submit(asked()) == 0
    said, progress = capsys.readouterr()
    result = json.loads(said)
    run = kfp.run(f"training-{AS_OF}")
    assert (result["run"], result["state"], result["name"]) == (run["run_id"], "succeeded", f"training-{AS_OF}")
    assert result["links"] == {"run": f"http://kubeflow.example.org/#/runs/details/{run['run_id']}"}
    assert {name: (step["state"], step["cached"]) for name, step in result["steps"].items()} == {
        "resolve_request": ("SUCCEEDED", False),
        "train": ("SUCCEEDED", True),
    }
    assert result["decisions"] == [{"kind": "gates", "id": record_id("gates", "1"), "outcome": "failed", "reason": "Refused by 1 of 4 gates."}]
    assert [line for line in progress.splitlines() if line.startswith(("resolve_request", "train"))] == [
        "resolve_request: started",
        "resolve_request: done in 1.0 s",
        "train: started",
        "train: cached",
    ]
    assert run["runtime_config"]["parameters"]["cause"] == f"training-{AS_OF}"
    assert run["description"] == f"Training of flights; cause: training-{AS_OF}; as of: {AS_OF}"


def test_an_unchanged_pipeline_is_uploaded_once(kfp: RecordingKfp, environment: EnvironmentFile, capsys: pytest.CaptureFixture[str]) -> None:
    for as_of in (AS_OF, "2013-06-01T00:00:00Z"):
        submit(asked(follow=False, as_of=as_of))
    assert len(kfp.posted("/upload_version")) == 1
    assert [line.rpartition(": ")[2] for line in capsys.readouterr().err.splitlines() if line.startswith("version")] == ["uploaded", "there already"]
    (version,) = kfp.store.versions
    assert version["display_name"] == f"flights-dev-training-{version['name']}" and len(version["name"]) == 12
    assert {each["pipeline_version_reference"]["pipeline_version_id"] for each in kfp.store.runs} == {version["pipeline_version_id"]}


def test_the_data_version_stands_among_the_parameters_and_in_the_description(kfp: RecordingKfp, environment: EnvironmentFile) -> None:
    version = ingest_period(load_usecase("flights"), environment.platform.lake_uri, START, FIRST, SmallSource(5).read_period)
    submit(asked(follow=False, as_of=format_moment(FIRST)))
    (run,) = kfp.store.runs
    assert run["runtime_config"]["parameters"]["data_version"] == version.id
    assert f"data version: {version.id}" in run["description"]


def test_a_failed_run_names_the_step_and_where_to_look(kfp: RecordingKfp, environment: EnvironmentFile) -> None:
    run_to(kfp, "FAILED", {"resolve-request": "SUCCEEDED"}, {"resolve-request": "SUCCEEDED", "train": "FAILED", "evaluate": "PENDING", "notify": "SUCCEEDED"})
    with pytest.raises(StepFailed, match=r"failed at train: step failed\n    http://kubeflow\.example\.org/#/runs/details/") as failed:
        submit(asked())
    assert failed.value.exit_code == 5


def test_a_run_that_goes_on_is_followed_instead_of_started_again(kfp: RecordingKfp, environment: EnvironmentFile) -> None:
    submit(asked(follow=False))
    run_to(kfp, "SUCCEEDED", DONE)
    assert submit(asked()) == 0
    assert len(kfp.posted("/runs$")) == 1


def test_after_a_run_that_ended_the_same_request_starts_another(kfp: RecordingKfp, environment: EnvironmentFile) -> None:
    submit(asked(follow=False))
    kfp.end_run(kfp.store.runs[0]["run_id"], "FAILED")
    submit(asked(follow=False))
    assert len(kfp.store.runs) == 2


@pytest.mark.parametrize("path", ["/runs$", "/upload_version$", "/pipelines$", "/experiments$"])
def test_an_answer_that_is_lost_is_looked_for(kfp: RecordingKfp, environment: EnvironmentFile, path: str) -> None:
    kfp.fail("POST", path, "after")
    try:
        submit(asked(follow=False))
    except CrisplineError:
        assert path == "/experiments$"  # nothing was started yet: the command can be repeated
        submit(asked(follow=False))
    assert (len(kfp.store.runs), len(kfp.store.versions), len(kfp.store.pipelines), len(kfp.store.experiments)) == (1, 1, 1, 1)


def test_a_restart_of_the_api_server_is_waited_for(kfp: RecordingKfp, environment: EnvironmentFile) -> None:
    run_to(kfp, "SUCCEEDED", {"train": "RUNNING"}, DONE)
    kfp.fail("GET", "/runs/[^/]+$", times=3)
    assert submit(asked()) == 0


def test_relative_moments_of_a_single_run_are_made_definite_at_once(kfp: RecordingKfp, environment: EnvironmentFile) -> None:
    submit(asked("data", follow=False, start="last", end="now/d"))
    (run,) = kfp.store.runs
    parameters = run["runtime_config"]["parameters"]
    assert parameters["start"] == "last"
    assert datetime.fromisoformat(parameters["end"]).hour == 0
    assert run["display_name"] == f"data-{parameters['end']}"


def test_an_unknown_pipeline_is_wrong_usage() -> None:
    with pytest.raises(WrongUsage, match="there is no pipeline 'serving'; there are data, training"):
        submit(asked("serving"))


def test_monitoring_is_asked_by_its_own_names() -> None:
    assert arguments("monitoring", "flights", "dev", {"start": "a", "end": "b"}) == {"usecase": "flights", "window_start": "a", "window_end": "b", "as_of": "b"}
    assert arguments("monitoring", "flights", "dev", {"as_of": "now"}) == {"usecase": "flights", "window_start": "", "window_end": "", "as_of": "now"}
    assert arguments("batch_scoring", "flights", "dev", {"start": "a", "end": "b"})["as_of"] == "b"


def test_a_run_that_does_not_end_is_left_to_itself_with_its_link(kfp: RecordingKfp, environment: EnvironmentFile) -> None:
    submit(asked(follow=False))
    runs = KubeflowRuns(environment.platform)
    with pytest.raises(CrisplineError, match=r"has not ended within 0 s; it goes on: http://kubeflow\.example\.org"):
        follow(runs, kfp.store.runs[0]["run_id"], kubeflow_follow.Progress, 0, lambda _: None)  # type: ignore[arg-type]


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, step: str) -> None:
        self.lines.append(f"{step} started")

    def finished(self, step: str, _: float, cached: bool) -> None:
        self.lines.append(f"{step} {'cached' if cached else 'done'}")

    def failed(self, step: str, _: float) -> None:
        self.lines.append(f"{step} failed")


def test_every_shard_is_shown_and_what_is_no_step_is_not(kfp: RecordingKfp, environment: EnvironmentFile) -> None:
    submit(asked("batch-scoring", follow=False, start="2013-05-01T00:00:00Z", end="2013-05-02T00:00:00Z"))
    id = kfp.store.runs[0]["run_id"]
    tasks = {"exit-handler-1": "RUNNING", "for-loop-1": "RUNNING", "score-batch": "SUCCEEDED", "score-batch#2": "FAILED", "list-shards-driver": "SUCCEEDED"}
    kfp.set_tasks(id, tasks)
    runs, heard = KubeflowRuns(environment.platform), Heard()
    follower = Follower(heard)
    for _ in range(2):
        found = runs.details(id)
        follower.look(steps_of(found, runs.step_names(found)))
    assert heard.lines == ["score_batch started", "score_batch done", "score_batch-2 started", "score_batch-2 failed"]


def scheduled(action: str = "apply", pipeline: str = "training", cron: str = "0 3 * * 1", **more: Any) -> dict[str, Any]:
    request = {"action": action, "pipeline": pipeline, "usecase": "flights", "environment": "dev", "name": "", "cron": cron, "time_zone": ""}
    return {**request, "parameters": {}, "timeout": 30, **more}


def test_a_schedule_asks_for_moments_relative_to_each_run(kfp: RecordingKfp, environment: EnvironmentFile, capsys: pytest.CaptureFixture[str]) -> None:
    schedule(scheduled(pipeline="data", cron="15 * * * *"))
    (stored,) = kfp.enabled()
    assert stored["runtime_config"]["parameters"] == {"usecase": "flights", "environment": "dev", "start": "last", "end": "now"}
    assert stored["display_name"].startswith("flights-dev-data@")
    capsys.readouterr()
    schedule(scheduled("list"))
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["schedule"], listed["enabled"], listed["cron"]) == ("flights-dev-data", True, "0 15 * * * *")
    assert listed["said"] == f"15 * * * * (UTC), version {kfp.store.versions[0]['display_name']}"


def test_a_new_version_replaces_the_scheduled_one_when_the_command_is_repeated(
    kfp: RecordingKfp, environment: EnvironmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule(scheduled())
    first = kfp.enabled()[0]["pipeline_version_reference"]
    schedule(scheduled())
    assert kfp.enabled()[0]["pipeline_version_reference"] == first
    compiled = kubeflow_pipeline_with_another_user()
    monkeypatch.setattr("pipelines.kubeflow_pipeline.load_settings", compiled)
    schedule(scheduled())
    (now,) = kfp.store.recurring_runs
    assert now["pipeline_version_reference"] != first and now["status"] == "ENABLED"


def kubeflow_pipeline_with_another_user() -> Callable[..., Any]:
    from pipelines.kubernetes_settings import KubernetesSettings

    return lambda *_: KubernetesSettings(user=10002)


def test_a_schedule_is_removed(kfp: RecordingKfp, environment: EnvironmentFile, capsys: pytest.CaptureFixture[str]) -> None:
    schedule(scheduled())
    schedule(scheduled("remove"))
    assert kfp.store.recurring_runs == []
    schedule(scheduled("remove"))
    assert "there was none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (scheduled(pipeline="retraining"), "started by the retrain trigger"),
        (scheduled(cron="0 3 * *"), "has 4 fields"),
        (scheduled(time_zone="Europe/Berlin"), "CRON_SCHEDULE_TIMEZONE"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_before_anything_is_uploaded(
    kfp: RecordingKfp, environment: EnvironmentFile, request_: dict[str, Any], said: str
) -> None:
    with pytest.raises(CrisplineError, match=said):
        schedule(request_)
    assert not kfp.posted("/")
