"""One cause, one effective run: processes are really killed, replicas really race, on the durable stores that are used in earnest."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.contracts.artifacts import Release
from components.contracts.errors import CrisplineError
from components.contracts.events import Performance
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.deployment.gitops import GitRepository
from components.deployment.releases import release_content, release_path
from components.monitoring.retrain_trigger.claims import Intent
from components.monitoring.retrain_trigger.effective_run import claim_effective
from components.monitoring.retrain_trigger.stores import open_store
from components.monitoring.retrain_trigger.trigger import Trigger

sys.path.insert(0, str(Path(__file__).parent))
from retrain_trigger_process import Runs, replica

pytestmark = pytest.mark.pipeline  # as the trigger itself

PROCESS = Path(__file__).with_name("retrain_trigger_process.py")
START = datetime(2013, 5, 2, tzinfo=UTC)
WEEK = timedelta(days=7)


def performance(week: int, value: float, model: str = "m1") -> Performance:
    start = START + week * WEEK
    return Performance(
        id=f"performance-{week}-{model}",
        usecase="flights",
        model_version=model,
        window_start=start,
        window_end=start + WEEK,
        as_of=start + WEEK + timedelta(days=15, hours=2),
        kind="measured",
        metric="roc_auc",
        value=value,
        low=value - 0.02,
        high=value + 0.02,
        threshold=0.65,
        rows=6000,
        labelled_share=1.0,
        sampling_error=0.01,
        backtest_error=0.01,
        outcomes={"arrived": 6000},
    )


CAUSE = performance(0, 0.55)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state in which the trigger has good windows behind it and one bad window that waits for a decision."""
    trigger = replica(tmp_path, "setup")
    for week in (-3, -2, -1):
        trigger.receive(performance(week, 0.72))
    trigger.work()
    trigger.receive(CAUSE)
    return tmp_path


def run_replica(state: Path, owner: str, point: str = "") -> int:
    return subprocess.run([sys.executable, str(PROCESS), str(state), owner, point], input="\n", text=True, timeout=60, stdout=subprocess.DEVNULL).returncode


def first_steps(state: Path) -> list[str]:
    """What every run's first step says, in order of submission."""
    platform = Platform.embedded(state)
    return [claim_effective(platform, run.cause, run.id) for run in Runs(state).list()]


@pytest.mark.parametrize("point", ["after_decision", "before_submission", "during_submission", "after_submission", "after_recording"])
def test_a_trigger_killed_at_any_point_starts_one_run(state: Path, point: str) -> None:
    assert run_replica(state, "a", point) == -signal.SIGKILL
    assert run_replica(state, "a") == 0
    runs = Runs(state).list()
    assert [(run.name, run.cause, run.pipeline) for run in runs] == [(f"retraining-{CAUSE.id}", CAUSE.id, "retraining")]
    assert first_steps(state) == ["effective"]
    claim = replica(state, "a").store.get(CAUSE.id)
    assert claim is not None
    assert (claim.state, claim.run_id) == ("submitted", runs[0].id)
    assert replica(state, "a").store.unhandled() == []


@pytest.mark.parametrize("point", ["before_submission", "during_submission", "after_submission"])
def test_another_replica_takes_over_when_the_lease_has_run_out_and_not_before(state: Path, point: str) -> None:
    assert run_replica(state, "a", point) == -signal.SIGKILL
    before, other = len(Runs(state).list()), replica(state, "b")
    held = other.store.get(CAUSE.id)
    assert held is not None
    other.work()
    if time.time() < held.lease_until:  # a busy machine may have let it run out
        assert (other.store.get(CAUSE.id), len(Runs(state).list())) == (held, before)
    time.sleep(max(0.0, held.lease_until - time.time()) + 0.05)
    other.work()
    assert len(Runs(state).list()) == 1
    assert first_steps(state) == ["effective"]


def test_replicas_that_race_start_one_run_and_tell_one_story(state: Path) -> None:
    replicas = [
        subprocess.Popen([sys.executable, str(PROCESS), str(state), f"replica-{number}", ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    for one in replicas:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in replicas:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    assert [one.wait(timeout=60) for one in replicas] == [0, 0, 0, 0]
    assert len(Runs(state).list()) == 1
    decisions = [one for one in RecordStore(Platform.embedded(state).records_uri).list("retrain_decision") if one.outcome == "retrain"]
    assert [one.lineage.cause for one in decisions] == [CAUSE.id]


def test_of_two_runs_for_one_cause_the_first_to_step_is_effective_and_the_other_leaves_a_record_only(state: Path) -> None:
    """What remains when a replica was only slow, not dead: it submits although its lease was taken."""
    store, runs, platform = replica(state, "a").store, Runs(state), Platform.embedded(state)
    intent = Intent("cause", "flights", {}, START)
    assert store.claim(intent, "a", lease_seconds=0.0)[1]
    time.sleep(0.01)
    assert store.claim(intent, "b")[1]
    one, two = (runs.submit(intent.run_name, "retraining", {}, "cause") for _ in range(2))
    assert claim_effective(platform, "cause", two.id) == "effective"
    assert claim_effective(platform, "cause", one.id) == "duplicate"
    assert claim_effective(platform, "cause", two.id) == "effective"  # a retried step
    assert claim_effective(platform, "cause", one.id) == "duplicate"
    assert store.bind("cause", one.id, "flights").run_id == two.id  # what the slow replica is told
    (record,) = RecordStore(platform.records_uri).list("run")
    assert (record.outcome, record.lineage.run, record.usecase, record.event_time) == ("duplicate", one.id, "flights", START)


def test_a_run_started_by_hand_holds_its_own_cause(state: Path) -> None:
    platform = Platform.embedded(state)
    assert claim_effective(platform, "manual-1", "run-1", "flights") == "effective"
    assert claim_effective(platform, "manual-1", "run-2", "flights") == "duplicate"
    replica(state, "a").work()  # a run that the run store does not know stops nobody
    with pytest.raises(CrisplineError, match="needs a cause"):
        claim_effective(platform, "", "run-3")


def test_a_finished_claim_stays_finished_and_frees_the_way(state: Path) -> None:
    trigger = replica(state, "a")
    trigger.work()
    (run,) = Runs(state).list()
    Runs(state).store.take()
    Runs(state).store.finish(run.id, "succeeded")
    trigger.work()
    claim = trigger.store.get(CAUSE.id)
    assert claim is not None
    assert (claim.state, claim.outcome) == ("finished", "succeeded")
    assert trigger.store.finish(CAUSE.id, "failed").outcome == "succeeded"
    assert trigger.store.unfinished() == []
    assert trigger.store.claim(Intent(CAUSE.id, "flights", {}, START), "b")[1] is False


def test_the_run_gets_the_business_time_of_its_cause(state: Path) -> None:
    replica(state, "a").work()
    (run,) = Runs(state).list()
    assert run.parameters == {
        "usecase": "flights",
        "as_of": "2013-05-24T02:00:00Z",
        "training_start": "2013-02-23T02:00:00Z",
        "environment": "dev",
        "cause": CAUSE.id,
        "data_version": "",
        "champion": "",
    }


def test_every_decision_is_a_record_also_a_no(state: Path) -> None:
    trigger = replica(state, "a")
    trigger.work()
    trigger.receive(performance(1, 0.55))
    trigger.work()
    records = list(RecordStore(trigger.platform.records_uri).list("retrain_decision"))
    assert [one.outcome for one in records] == ["nothing", "nothing", "nothing", "retrain", "nothing"]
    assert "under way" in records[-1].reason
    checks = [one for one in RecordStore(trigger.platform.records_uri).list("check") if one.details["check"] == "retraining_budget"]
    assert [one.outcome for one in checks] == ["passed"] * 5


def test_an_event_sent_again_is_not_decided_again(state: Path) -> None:
    trigger = replica(state, "a")
    assert trigger.receive(CAUSE) is False
    assert trigger.work() == 1
    assert trigger.receive(CAUSE) is False
    assert trigger.work() == 0


def test_a_replaced_model_is_left_alone(state: Path) -> None:
    trigger: Trigger = replica(state, "a")
    release = Release(
        usecase="flights", environment="dev", release="r2", model_version="m2", data_version="d", gates_record="g", cause="c", promoted=START, previous="r1"
    )
    repository = GitRepository(trigger.platform.gitops_repository)
    with repository.locked():
        repository.commit_file(release_path("flights", "dev"), release_content(release), "promote", START)
    trigger.work()
    assert Runs(state).list() == []
    decision = trigger.store.decision(CAUSE.id)
    assert decision is not None
    assert "no longer in service" in decision.reason


def test_a_store_that_is_none_is_refused(tmp_path: Path) -> None:
    for uri in ("", "postgres://x"):
        with pytest.raises(CrisplineError, match="must name a store for claims"):
            open_store(uri)
