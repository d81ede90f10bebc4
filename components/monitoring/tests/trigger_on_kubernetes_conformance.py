"""What replicas of the trigger over the Kubernetes API and the pipelines' API have to do, as a class of tests: processes are really killed, and
answers really lost. A subclass in a test file says which Kubernetes API; that of the pipelines is the recording server."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.monitoring.retrain_trigger.effective_run import claim_effective
from components.monitoring.tests.retrain_trigger_on_kubernetes import replica
from components.monitoring.tests.test_retrain_trigger_claims import CAUSE, performance
from pipelines.kubernetes_settings import KubernetesSettings
from pipelines.on_kubeflow import compile_for_kubeflow
from pipelines.runners.kubeflow_runs import KubeflowRuns
from tests.kfp_recording_server import RecordingKfp, Request

PROCESS = Path(__file__).with_name("retrain_trigger_on_kubernetes.py")
RUN_NAME = f"retraining-{CAUSE.id}"
Start = Callable[..., subprocess.Popen[str]]


@functools.cache
def retraining_pipeline() -> str:
    """As `crispline submit` uploads it."""
    return compile_for_kubeflow("retraining", "flights-dev-retraining", KubernetesSettings(), {})


class TriggerOnKubernetesConformance:
    @pytest.fixture
    def claims_uri(self) -> str:
        """A store of its own for each test; the environment variable KUBECONFIG leads to it."""
        raise NotImplementedError

    @pytest.fixture
    def kfp(self) -> Iterator[RecordingKfp]:
        with RecordingKfp() as server:
            server.add_version("flights-dev-retraining", retraining_pipeline())
            yield server
            assert not server.violations

    @pytest.fixture
    def platform(self, tmp_path: Path, claims_uri: str, kfp: RecordingKfp, monkeypatch: pytest.MonkeyPatch) -> Platform:
        """An installation in which good windows were decided on and one bad window waits."""
        platform = Platform.embedded(tmp_path).model_copy(update={"claims_uri": claims_uri, "pipelines_url": kfp.url})
        (tmp_path / "platform.json").write_text(platform.model_dump_json())
        monkeypatch.setenv("CRISPLINE_PLATFORM", str(tmp_path / "platform.json"))
        trigger = replica(platform, "setup")
        for week in (-3, -2, -1):
            trigger.receive(performance(week, 0.72))
        trigger.work()
        trigger.receive(CAUSE)
        return platform

    @pytest.fixture
    def start(self, platform: Platform) -> Iterator[Start]:  # noqa: ARG002  its file is what the processes read
        started: list[subprocess.Popen[str]] = []

        def begin(owner: str, point: str = "") -> subprocess.Popen[str]:
            command = [sys.executable, str(PROCESS), owner, point]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
            started.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield begin
        for process in started:
            process.kill()
            process.communicate()

    def test_a_replica_killed_before_the_post_leaves_no_run_and_the_next_one_starts_it(self, start: Start, platform: Platform, kfp: RecordingKfp) -> None:
        assert killed(start("a", "before_the_post"))
        assert kfp.posted("/runs") == []
        self.one_run_in_the_end(platform, kfp, "a")

    def test_a_replica_killed_after_the_decision_leaves_a_decision_that_the_next_one_carries_out(
        self, start: Start, platform: Platform, kfp: RecordingKfp
    ) -> None:
        assert killed(start("a", "after_the_decision"))
        assert replica(platform, "b").store.get(CAUSE.id) is None
        self.one_run_in_the_end(platform, kfp, "b")

    def test_a_replica_killed_after_the_post_and_before_its_answer_leaves_a_run_that_is_found(
        self, start: Start, platform: Platform, kfp: RecordingKfp
    ) -> None:
        process = start("a")

        def kill(_: int, request: Request, when: str) -> None:
            if (request.method, request.path, when) == ("POST", "/runs", "after"):
                process.kill()
                process.wait(timeout=20)

        kfp.on_request = kill
        assert killed(process)
        assert len(kfp.store.runs) == 1
        self.one_run_in_the_end(platform, kfp, "a")

    @pytest.mark.parametrize("point", ["after_the_answer", "after_the_binding"])
    def test_a_replica_killed_after_the_answer_leaves_a_run_that_is_found(self, start: Start, platform: Platform, kfp: RecordingKfp, point: str) -> None:
        assert killed(start("a", point))
        assert len(kfp.store.runs) == 1
        self.one_run_in_the_end(platform, kfp, "a")

    @pytest.mark.parametrize("when", ["after", "late"])
    def test_a_post_that_took_effect_without_an_answer_is_found(self, platform: Platform, kfp: RecordingKfp, when: str) -> None:
        kfp.fail("POST", "/runs$", when, seconds=4.0)  # type: ignore[arg-type]
        replica(platform, "a").work()
        assert len(kfp.store.runs) == 1
        self.one_run_in_the_end(platform, kfp, "a")

    def test_another_replica_takes_over_when_the_lease_has_run_out_and_looks_before_it_posts(self, start: Start, platform: Platform, kfp: RecordingKfp) -> None:
        assert killed(start("a", "after_the_answer"))
        other = replica(platform, "b")
        held = other.store.get(CAUSE.id)
        assert held is not None
        asked = len(kfp.requests)
        other.work()
        if time.time() < held.lease_until:  # a busy machine may have let it run out
            assert other.store.get(CAUSE.id) == held
            assert len(kfp.requests) == asked
        time.sleep(max(0.0, held.lease_until - time.time()) + 0.05)
        self.one_run_in_the_end(platform, kfp, "b")
        assert len(kfp.posted("/runs")) == 1

    def test_replicas_that_race_start_one_run_and_tell_one_story(self, start: Start, platform: Platform, kfp: RecordingKfp) -> None:
        replicas = [start(f"replica-{number}") for number in range(3)]
        for one in replicas:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        assert [one.wait(timeout=120) for one in replicas] == [0, 0, 0]
        self.one_run_in_the_end(platform, kfp, "replica-0")
        decisions = [one for one in RecordStore(platform.records_uri).list("retrain_decision") if one.outcome == "retrain"]
        assert [one.lineage.cause for one in decisions] == [CAUSE.id]

    def test_a_run_that_was_posted_twice_after_all_is_effective_once(self, platform: Platform, kfp: RecordingKfp) -> None:
        """What remains when a paused replica wakes up after its lease: the runs' first steps agree on one."""
        trigger = replica(platform, "a")
        trigger.work()
        first = kfp.run(RUN_NAME)
        second = trigger.runs.submit(RUN_NAME, "retraining", trigger.store.get(CAUSE.id).parameters, CAUSE.id)  # type: ignore[union-attr]
        assert claim_effective(platform, CAUSE.id, second.id, "flights") == "duplicate"
        assert claim_effective(platform, CAUSE.id, first["run_id"], "flights") == "effective"

    def test_a_run_of_another_environment_with_the_same_name_is_not_taken_for_this_ones(self, platform: Platform, kfp: RecordingKfp) -> None:
        """A promoted model has the same windows, and so the same causes, wherever it serves."""
        kfp.add_version("flights-staging-retraining", retraining_pipeline())
        staging = KubeflowRuns(platform.model_copy(update={"environment": "staging"}))
        other = staging.submit(RUN_NAME, "retraining", {"usecase": "flights", "as_of": "x", "environment": "staging", "cause": CAUSE.id}, CAUSE.id)
        trigger = replica(platform, "a")
        trigger.work()
        claim = trigger.store.get(CAUSE.id)
        assert claim is not None
        assert claim.run_id not in ("", other.id)
        assert len(kfp.store.runs) == 2

    def test_a_run_that_ended_frees_the_way(self, platform: Platform, kfp: RecordingKfp) -> None:
        trigger = replica(platform, "a")
        trigger.work()
        kfp.end_run(kfp.run(RUN_NAME)["run_id"], "FAILED")
        trigger.work()
        claim = trigger.store.get(CAUSE.id)
        assert claim is not None
        assert (claim.state, claim.outcome) == ("finished", "failed")

    def test_pipelines_that_are_away_hold_up_no_other_decision(self, platform: Platform, kfp: RecordingKfp) -> None:
        trigger = replica(platform, "a")
        kfp.fail("GET", "/", "before", times=1000)
        trigger.receive(performance(-4, 0.9))
        trigger.work()
        assert trigger.store.decision("performance--4-m1") is not None
        assert [one.id for one in trigger.store.unhandled()] == [CAUSE.id]
        assert kfp.store.runs == []

    def one_run_in_the_end(self, platform: Platform, kfp: RecordingKfp, owner: str) -> None:
        """Let a replica go on until nothing waits; then there is one run, bound, with its first step effective."""
        trigger = replica(platform, owner)
        deadline = time.monotonic() + 60
        while trigger.store.unhandled() or [claim for claim in trigger.store.unfinished() if claim.state == "claimed"]:
            assert time.monotonic() < deadline, "the replica did not get through"
            trigger.work()
            time.sleep(0.05)
        run = kfp.run(RUN_NAME)
        claim = trigger.store.get(CAUSE.id)
        assert claim is not None
        assert (claim.state, claim.run_id) == ("submitted", run["run_id"])
        assert run["runtime_config"]["parameters"]["cause"] == CAUSE.id
        assert claim_effective(platform, CAUSE.id, run["run_id"], "flights") == "effective"
        assert claim_effective(platform, CAUSE.id, "another", "flights") == "duplicate"


def killed(process: subprocess.Popen[str]) -> bool:
    """Let a replica work, until it is killed."""
    if process.poll() is None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return process.wait(timeout=60) == -signal.SIGKILL
