"""Schedules on Kubeflow Pipelines are changed in place: whoever is killed at whatever point, repeating the command finishes it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from pipelines.runners.kubeflow_cron import kubeflow_cron, same_clock
from pipelines.runners.kubeflow_runs import KubeflowRuns, PipelineVersion
from pipelines.runners.kubeflow_schedules import Schedule, Schedules
from tests.kfp_recording_server import RecordingKfp, Request

pytestmark = pytest.mark.pipeline

GOLDEN = Path(__file__).parent / "contract" / "golden"
NAME = "flights-dev-training"
PARAMETERS = {"usecase": "flights", "as_of": "now", "environment": "dev", "cause": ""}
OTHER = f"{NAME}-weekly"


@pytest.fixture
def kfp() -> Iterator[RecordingKfp]:
    with RecordingKfp() as server:
        server.add_version(NAME, (GOLDEN / "training.yaml").read_text())
        yield server
        assert not server.violations


def platform_of(url: str, tmp_path: Path) -> Platform:
    return Platform.embedded(tmp_path).model_copy(update={"pipelines_url": url})


def schedules_of(platform: Platform, said: list[str] | None = None) -> Schedules:
    return Schedules(KubeflowRuns(platform, 5), "UTC", (said if said is not None else []).append, sleep=lambda _: None)


def wanted(platform: Platform, cron: str = "0 3 * * 1", name: str = NAME) -> Schedule:
    return Schedule(name, version(platform), cron, "UTC", PARAMETERS)


def version(platform: Platform) -> PipelineVersion:
    return KubeflowRuns(platform, 5).newest_version("flights", "training")


def test_a_schedule_is_made_without_catch_up_and_with_one_run_at_a_time(kfp: RecordingKfp, tmp_path: Path) -> None:
    platform = platform_of(kfp.url, tmp_path)
    made = schedules_of(platform).apply(wanted(platform), 60)
    (stored,) = kfp.enabled()
    assert made.id == stored["recurring_run_id"]
    assert (stored["no_catchup"], stored["max_concurrency"]) == (True, "1")
    assert stored["trigger"]["cron_schedule"] == {"cron": "0 0 3 * * 1"}
    assert stored["pipeline_version_reference"]["pipeline_version_id"] == kfp.store.versions[0]["pipeline_version_id"]
    assert stored["runtime_config"]["parameters"]["as_of"] == "now"


def test_the_same_schedule_again_changes_nothing(kfp: RecordingKfp, tmp_path: Path) -> None:
    platform, said = platform_of(kfp.url, tmp_path), list[str]()
    first = schedules_of(platform).apply(wanted(platform), 60)
    posts = len(kfp.posted("/recurringruns"))
    again = schedules_of(platform, said).apply(wanted(platform), 60)
    assert (again.id, len(kfp.posted("/recurringruns"))) == (first.id, posts)
    assert said == [f"schedule {NAME} is as wanted"]


def test_a_change_waits_for_the_run_in_progress_and_ends_none(kfp: RecordingKfp, tmp_path: Path) -> None:
    platform = platform_of(kfp.url, tmp_path)
    schedules_of(platform).apply(wanted(platform), 60)
    (run,) = kfp.tick()
    waits = []

    def sleep(_: float) -> None:
        waits.append(len(kfp.enabled()))
        if len(waits) == 3:
            kfp.end_run(run)

    changed = Schedules(KubeflowRuns(platform, 5), "UTC", lambda _: None, sleep=sleep).apply(wanted(platform, "0 4 * * 1"), 60)
    assert waits == [0, 0, 0, 0]  # while it waits none is enabled; the last look comes after the runs ended
    assert kfp.ended_by_deletion == []
    assert [each["recurring_run_id"] for each in kfp.store.recurring_runs] == [changed.id]
    assert kfp.most_enabled == 1


def test_a_run_that_does_not_end_leaves_nothing_enabled_and_the_next_try_goes_on(kfp: RecordingKfp, tmp_path: Path) -> None:
    platform = platform_of(kfp.url, tmp_path)
    schedules_of(platform).apply(wanted(platform), 60)
    (run,) = kfp.tick()
    with pytest.raises(CrisplineError, match=r"1 runs have not ended within 0 s; no schedule is enabled now\. Repeat the command"):
        schedules_of(platform).apply(wanted(platform, "0 4 * * 1"), 0)
    assert kfp.enabled() == []
    kfp.end_run(run)
    changed = schedules_of(platform).apply(wanted(platform, "0 4 * * 1"), 60)
    assert [each["recurring_run_id"] for each in kfp.enabled()] == [changed.id]
    assert kfp.ended_by_deletion == []


def test_a_run_that_is_reported_late_is_waited_for(kfp: RecordingKfp, tmp_path: Path) -> None:
    """The controller started it just before the schedule was disabled; the API knows it only at the second look."""
    platform = platform_of(kfp.url, tmp_path)
    old = schedules_of(platform).apply(wanted(platform), 60)
    late: list[str] = []

    def sleep(_: float) -> None:
        if not late:
            body = next(each for each in kfp.store.recurring_runs if each["recurring_run_id"] == old.id)
            made = kfp._new_run({"display_name": "late", "experiment_id": body["experiment_id"], "recurring_run_id": old.id})
            late.append(made["run_id"])
        elif kfp.run("late")["state"] == "PENDING":
            kfp.end_run(late[0])

    Schedules(KubeflowRuns(platform, 5), "UTC", lambda _: None, sleep=sleep).apply(wanted(platform, "0 4 * * 1"), 60)
    assert late
    assert kfp.ended_by_deletion == []


def test_schedules_of_other_names_are_left_alone(kfp: RecordingKfp, tmp_path: Path) -> None:
    platform = platform_of(kfp.url, tmp_path)
    schedules = schedules_of(platform)
    other = schedules.apply(wanted(platform, name=OTHER), 60)
    schedules.apply(wanted(platform), 60)
    schedules.apply(wanted(platform, "0 4 * * 1"), 60)
    assert schedules.remove(NAME, 60) == 1
    assert [each.id for each in schedules.found()] == [other.id]
    assert [each["recurring_run_id"] for each in kfp.enabled()] == [other.id]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_creation_without_an_answer_makes_one(kfp: RecordingKfp, tmp_path: Path, when: str) -> None:
    platform = platform_of(kfp.url, tmp_path)
    kfp.fail("POST", "/recurringruns$", when)  # type: ignore[arg-type]
    if when == "before":
        with pytest.raises(CrisplineError, match="does not list it"):
            schedules_of(platform).apply(wanted(platform), 60)
    schedules_of(platform).apply(wanted(platform), 60)
    assert len(kfp.store.recurring_runs) == 1
    assert len(kfp.enabled()) == 1


def test_somebody_else_who_changes_the_schedule_meanwhile_is_noticed(kfp: RecordingKfp, tmp_path: Path) -> None:
    platform = platform_of(kfp.url, tmp_path)
    schedules_of(platform).apply(wanted(platform), 60)

    def meddle(number: int, request: Request, when: str) -> None:
        if request.path.endswith(":disable") and when == "after":
            kfp.on_request = None
            first = kfp.store.recurring_runs[0]
            kfp.store.recurring_runs.append({**first, "recurring_run_id": "theirs", "display_name": f"{NAME}@00000000", "status": "ENABLED"})

    kfp.on_request = meddle
    with pytest.raises(CrisplineError, match="somebody else enabled flights-dev-training@00000000 meanwhile"):
        schedules_of(platform).apply(wanted(platform, "0 4 * * 1"), 60)
    assert [each["recurring_run_id"] for each in kfp.enabled()] == ["theirs"]


def _change(platform: str, cron: str) -> None:
    """In a process of its own, which the test kills."""
    loaded = Platform.model_validate_json(platform)
    schedules_of(loaded).apply(wanted(loaded, cron), 60)


def _changed_until_killed(kfp: RecordingKfp, platform: Platform, cron: str, at: int, when: str) -> bool:
    """Change the schedule in another process that gets SIGKILL before or after the server acts on its request number `at`; whether it was killed."""
    seen = len(kfp.requests)
    process = multiprocessing.get_context("forkserver").Process(target=_change, args=(platform.model_dump_json(), cron))

    def kill(number: int, request: Request, moment: str) -> None:
        if number - seen == at and moment == when and process.pid:
            os.kill(process.pid, signal.SIGKILL)
            while Path(f"/proc/{process.pid}").exists():  # not join: two threads that wait for one process take its exit code from each other
                time.sleep(0.01)

    kfp.on_request = kill
    process.start()
    process.join(60)
    kfp.on_request = None
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_request_a_change_converges_when_it_is_repeated_and_two_are_never_enabled(tmp_path: Path, when: str) -> None:
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, "pipelines.runners.kubeflow_schedules"])
    killed, at = 0, 0
    while True:
        at += 1
        with RecordingKfp() as kfp:
            kfp.add_version(NAME, (GOLDEN / "training.yaml").read_text())
            platform = platform_of(kfp.url, tmp_path)
            schedules_of(platform).apply(wanted(platform), 60)
            kfp.tick()
            kfp.end_run(kfp.store.runs[0]["run_id"])
            seen = len(kfp.requests)
            if not _changed_until_killed(kfp, platform, "0 4 * * 1", at, when):
                break
            killed += 1
            assert len(kfp.enabled()) <= 1
            changed = schedules_of(platform).apply(wanted(platform, "0 4 * * 1"), 60)
            assert [each["recurring_run_id"] for each in kfp.store.recurring_runs] == [changed.id], at
            assert [each["recurring_run_id"] for each in kfp.enabled()] == [changed.id], at
            assert kfp.most_enabled == 1, at
            assert kfp.ended_by_deletion == []
            assert not kfp.violations
    undisturbed = kfp.requests[seen:]
    assert [request.path.rpartition(":")[2] if ":" in request.path else request.method for request in undisturbed if request.method != "GET"] == [
        "POST",
        "disable",
        "enable",
        "DELETE",
    ]
    assert killed == len(undisturbed)  # at every request of an undisturbed change


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_that_was_killed_can_be_given_up_for_the_old_schedule(tmp_path: Path, when: str) -> None:
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__, "pipelines.runners.kubeflow_schedules"])
    for at in (6, 9, 12):
        with RecordingKfp() as kfp:
            kfp.add_version(NAME, (GOLDEN / "training.yaml").read_text())
            platform = platform_of(kfp.url, tmp_path)
            schedules_of(platform).apply(wanted(platform), 60)
            _changed_until_killed(kfp, platform, "0 4 * * 1", at, when)
            back = schedules_of(platform).apply(wanted(platform), 60)
            assert [(each["recurring_run_id"], each["trigger"]["cron_schedule"]["cron"]) for each in kfp.enabled()] == [(back.id, "0 0 3 * * 1")]
            assert len(kfp.store.recurring_runs) == 1
            assert kfp.most_enabled == 1


@pytest.mark.parametrize(
    ("cron", "theirs"),
    [("0 3 * * 1", "0 0 3 * * 1"), ("*/15 * * * *", "0 */15 * * * *"), ("5 4 1,15 jan-mar MON-FRI", "0 5 4 1,15 jan-mar MON-FRI"), ("@daily", "@daily")],
)
def test_a_cron_gets_its_seconds(cron: str, theirs: str) -> None:
    assert kubeflow_cron(cron, "UTC", "UTC") == theirs


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 3 * *", "has 4 fields"),
        ("0 0 3 * * 1", "has 6 fields"),
        ("60 3 * * 1", "'60' is no minute"),
        ("0 3 * * 7", "'7' is no day of the week; .* Sunday is 0"),
        ("0 3 0 * *", "'0' is no day of the month"),
        ("0 3 * * 5-1", "runs backwards"),
        ("0 */0 * * *", "is no hour"),
        ("@reboot", "has 1 fields"),
    ],
)
def test_a_malformed_cron_is_refused_with_the_field(cron: str, said: str) -> None:
    with pytest.raises(CrisplineError, match=said):
        kubeflow_cron(cron, "UTC", "UTC")


def test_a_zone_that_the_installation_does_not_have_is_refused_with_the_setting_to_change() -> None:
    with pytest.raises(CrisplineError, match=r"so that Europe/Berlin is not to be had: .* CRON_SCHEDULE_TIMEZONE .* both to Europe/Berlin"):
        kubeflow_cron("0 3 * * 1", "Europe/Berlin", "UTC")
    assert kubeflow_cron("0 3 * * 1", "Europe/Berlin", "Europe/Berlin") == "0 0 3 * * 1"
    assert same_clock("Etc/UTC", "UTC") and not same_clock("Europe/London", "UTC")
    with pytest.raises(CrisplineError, match="there is no time zone 'Mars/Olympus'"):
        kubeflow_cron("0 3 * * 1", "Mars/Olympus", "UTC")
