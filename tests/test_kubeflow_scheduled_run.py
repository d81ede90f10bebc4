"""A schedule of charts/platform: each occurrence starts one run in Kubeflow Pipelines, whatever happens to its pod on the way."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError
from components.contracts.platform import PLATFORM_VARIABLE, Platform
from pipelines.kubernetes_settings import KubernetesSettings
from pipelines.on_kubeflow import compile_for_kubeflow
from pipelines.runners.kubeflow_api import PipelinesSilent
from pipelines.runners.kubeflow_runs import KubeflowRuns
from pipelines.runners.scheduled_run import main, start_once
from tests.kfp_recording_server import RecordingKfp

pytestmark = pytest.mark.pipeline

PARAMETERS = {"usecase": "flights", "environment": "dev", "start": "last", "end": "now/h"}
FIRST, SECOND = "crispline-flights-data-29384012", "crispline-flights-data-29384072"


@functools.cache
def data_pipeline() -> str:
    return compile_for_kubeflow("data", "flights-dev-data", KubernetesSettings(), {})


@pytest.fixture
def kfp() -> Iterator[RecordingKfp]:
    with RecordingKfp() as server:
        server.add_version("flights-dev-data", data_pipeline())
        yield server
        assert not server.violations


@pytest.fixture
def platform(kfp: RecordingKfp, tmp_path: Path) -> Platform:
    return Platform.embedded(tmp_path).model_copy(update={"pipelines_url": kfp.url})


def start(platform: Platform, occurrence: str) -> tuple[str, str]:
    run, done = start_once(KubeflowRuns(platform, timeout_seconds=2), "flights-data", occurrence, "data", PARAMETERS)
    return run.name, done


def test_an_occurrence_starts_one_run_under_its_name(platform: Platform, kfp: RecordingKfp) -> None:
    assert start(platform, FIRST) == ("flights-data-29384012", "started")
    assert start(platform, FIRST) == ("flights-data-29384012", "found")
    parameters = kfp.run("flights-data-29384012")["runtime_config"]["parameters"]
    assert {name: parameters[name] for name in PARAMETERS} == PARAMETERS


def test_a_post_whose_answer_was_lost_is_found_by_the_next_try(platform: Platform, kfp: RecordingKfp) -> None:
    kfp.fail("POST", "/runs", "after")
    with pytest.raises(PipelinesSilent):
        start(platform, FIRST)
    assert start(platform, FIRST) == ("flights-data-29384012", "found")


def test_nothing_is_started_while_an_earlier_run_has_not_ended(platform: Platform, kfp: RecordingKfp) -> None:
    start(platform, FIRST)
    assert start(platform, SECOND) == ("flights-data-29384012", "busy")
    kfp.end_run(kfp.run("flights-data-29384012")["run_id"], "FAILED")
    assert start(platform, SECOND) == ("flights-data-29384072", "started")


def test_a_run_that_a_person_started_does_not_keep_the_schedule_from_its_own(platform: Platform) -> None:
    KubeflowRuns(platform).submit("data-2013-05-01", "data", PARAMETERS, "")
    assert start(platform, FIRST)[1] == "started"


def test_a_name_that_is_no_jobs_of_the_schedule_is_refused(platform: Platform) -> None:
    with pytest.raises(CrisplineError, match="must be the name of the schedule's Job"):
        start(platform, "crispline-flights-training-29384012")


def test_the_program_reads_what_the_chart_gives_it(
    platform: Platform, kfp: RecordingKfp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "platform.json"
    file.write_text(platform.model_dump_json())
    monkeypatch.setenv(PLATFORM_VARIABLE, str(file))
    given = ["--schedule=flights-data", f"--occurrence={FIRST}", "--usecase=flights", "--pipeline=data", "--parameter=start=last", "--parameter=end=now-1d/d"]
    assert main(given) == 0
    assert "run flights-data-29384012" in capsys.readouterr().out
    assert kfp.run("flights-data-29384012")["runtime_config"]["parameters"]["end"] == "now-1d/d"
    with pytest.raises(SystemExit) as wrong:
        main([*given[:-1], "--parameter=end"])
    assert wrong.value.code == 2
