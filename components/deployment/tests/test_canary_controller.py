"""The controller raises a good challenger to the end, rolls a bad one back with its reasons, and survives whatever happens in between."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from components.contracts.errors import CrisplineError
from components.contracts.records import RecordStore
from components.deployment.canary import trail
from components.deployment.canary.calls import NoCalls
from components.deployment.canary.lifecycle import beginning, ended_by_promotion
from components.deployment.canary.options import ArgoCD
from components.deployment.canary.policy import ForbiddenChange, approved, by_controller, check_change
from components.deployment.canary.service import create_app
from components.deployment.gitops import GitRepository, NotFastForward
from components.deployment.releases import release_path
from components.deployment.tests.canary_world import CHALLENGER, CHAMPION, MINUTE, OTHER, PATH, PLACE, START, World
from components.monitoring.prediction_log import PredictionLog

pytestmark = pytest.mark.pipeline


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "state")


def to_step_two(world: World) -> None:
    world.begin()
    world.round()
    world.stage(45, 20)
    assert world.canary is not None and world.canary.weight == 50


# --- the good way ------------------------------------------------------------------------------------------------------------------------


def test_without_a_canary_nothing_happens(world: World) -> None:
    head = world.repository.head
    assert world.round() == "no canary"
    assert world.repository.head == head and world.trail == []


@pytest.mark.ml_test("infrastructure-6")
def test_a_good_challenger_goes_to_100_step_by_step(world: World) -> None:
    world.begin()
    seen = []
    for weight in (20, 50, 100):
        world.round()
        seen.append(world.canary.weight if world.canary else None)
        world.stage(45, weight)
    assert seen == [20, 50, 100]
    assert world.canary is not None and world.canary.weight == 100
    assert len(world.found("advanced")) == 2 and len(world.found("complete")) == 1
    assert world.found("rolled_back") == []
    complete = world.found("complete")[0]
    assert complete.lineage.release == CHALLENGER and complete.lineage.champion == CHAMPION
    assert "passed its whole plan" in complete.reason


def test_each_commit_of_the_controller_is_what_the_policy_allows_and_says_why(world: World) -> None:
    to_step_two(world)
    history = world.repository.history(PATH)
    newest, first = history[0], history[1]
    assert by_controller(newest.trailers) and not by_controller(first.trailers)
    plan = approved(history, PATH)
    assert plan is not None
    check_change({PATH: first.content}, {PATH: newest.content}, plan.plan)
    changed = subprocess.run(
        ["git", "-C", str(world.repository.folder), "show", "--name-only", "--format=%an", newest.commit], capture_output=True, text=True, check=True
    )
    assert changed.stdout.split() == ["crispline-canary", PATH]
    record = world.found("advanced")[0]
    assert record.details["commit"] == newest.commit and record.inputs["weight"] == "20 -> 50"
    assert "calls without an answer: 0 of" in record.reason and "predictions: distance" in record.reason


def test_the_observed_share_is_recorded_with_its_interval(world: World) -> None:
    to_step_two(world)
    share = world.found("advanced")[0].details["judged"]["share"]  # type: ignore[index, call-overload]
    assert share["low"] <= 0.2 <= share["high"] and share["low"] < share["observed"] < share["high"]  # type: ignore[index, call-overload, operator]


def test_no_stage_is_shorter_than_the_minimum_hold_however_much_traffic_there_is(world: World) -> None:
    world.begin()
    world.round()
    world.traffic(100, 20)
    world.round()
    world.pass_time()
    world.traffic(3_000, 20)
    world.round()
    assert world.canary is not None and world.canary.weight == 20 and world.trail == ["awaited", "in_effect", "safe"]
    world.pass_time(10 * MINUTE)
    world.round()
    assert world.canary is not None and world.canary.weight == 50


def test_too_little_traffic_waits(world: World) -> None:
    world.begin()
    world.round()
    for _ in range(10):
        world.traffic(20, 20)
        world.round()
        world.pass_time()
    assert world.canary is not None and world.canary.weight == 20
    assert "the first look is at 50" in world.round()


def test_a_shadow_is_judged_by_the_same_evidence_and_the_canary_follows(world: World) -> None:
    world.begin(shadow=True)
    world.round()
    assert world.canary is not None and world.canary.shadow
    for _ in range(12):
        world.traffic(100, 0, shadow=True)
        world.round()
        world.pass_time()
    assert world.canary is not None and not world.canary.shadow and world.canary.weight == 20


def test_a_harmful_shadow_is_ended(world: World) -> None:
    world.begin(plan=(), shadow=True)
    world.round()
    for _ in range(12):
        world.traffic(100, 0, shadow=True, shift=0.45)
        world.round()
        world.pass_time()
    assert world.canary is None and "predictions" in world.found("rolled_back")[0].reason


def test_a_shadow_without_a_plan_stays_when_it_is_safe(world: World) -> None:
    world.begin(plan=(), shadow=True)
    world.round()
    for _ in range(14):
        world.traffic(100, 0, shadow=True)
        world.round()
        world.pass_time()
    assert world.canary is not None and world.canary.shadow and len(world.found("complete")) == 1


# --- the bad way -------------------------------------------------------------------------------------------------------------------------


def test_a_challenger_that_answers_nothing_is_rolled_back_at_the_first_look(world: World) -> None:
    to_step_two(world)
    world.round()
    world.stage(40, 50, errors=1.0)
    assert world.canary is None
    record = world.found("rolled_back")[0]
    assert record.kind == "rollback" and record.inputs["weight"] == "50 -> 0"
    assert record.reason.startswith("Harmful: calls without an answer") and record.lineage.release == CHALLENGER
    assert record.details["judged"]["look"] <= 2  # type: ignore[index, call-overload, operator]


def test_a_challenger_that_never_answered_at_all_is_rolled_back_too(world: World) -> None:
    """No prediction of it is ever in the log."""
    world.begin()
    world.round()
    world.stage(20, 20, errors=1.0)
    assert world.canary is None and "calls without an answer" in world.found("rolled_back")[0].reason


def test_a_slow_challenger_is_rolled_back(world: World) -> None:
    to_step_two(world)
    world.round()
    world.stage(45, 50, slow=0.5)
    assert world.canary is None and "slow calls" in world.found("rolled_back")[0].reason


@pytest.mark.ml_test("infrastructure-6")
def test_a_challenger_with_a_wrong_model_is_rolled_back_on_its_predictions(world: World) -> None:
    to_step_two(world)
    world.round()
    world.stage(45, 50, shift=0.4)
    assert world.canary is None and "predictions: distance" in world.found("rolled_back")[0].reason


def test_labels_that_come_roll_back_a_challenger_that_ranks_worse(world: World) -> None:
    """Errors, latency and the distribution of predictions are the champion's; only the labels tell."""
    world.begin(plan=(40, 100))
    world.round()
    world.traffic(60, 40)
    world.round()
    world.pass_time()
    mine = set(world.traffic(2_600, 40))
    world.pass_time()
    rows = PredictionLog(world.platform.prediction_log_uri).received_since("flights", START)
    random = np.random.default_rng(1)
    late = dict(zip(rows["entity"], (random.random(len(rows)) < rows["probability"] ** 0.5).tolist(), strict=True))
    world.label({entity: (bool(random.random() < 0.5) if entity in mine else truth) for entity, truth in late.items()})
    world.round()
    assert world.canary is None
    reason = world.found("rolled_back")[0].reason
    assert "roc_auc" in reason and "worse than the champion" in reason


def test_a_weight_that_never_shows_in_the_traffic_is_rolled_back_after_the_deadline(world: World) -> None:
    """Its pods do not start, or the splitter does not split."""
    world.begin()
    world.round()
    for _ in range(29):
        world.traffic(20, 0)
        world.round()
        world.pass_time()
    assert world.canary is not None
    world.pass_time(2 * MINUTE)
    world.round()
    assert world.canary is None and "did not take effect within 30m" in world.found("rolled_back")[0].reason


def test_without_any_traffic_the_deadline_says_nothing(world: World) -> None:
    world.begin()
    world.round()
    world.pass_time(timedelta(hours=9))
    world.round()
    assert world.canary is not None


def test_what_is_not_shown_to_be_safe_in_time_is_rolled_back(world: World) -> None:
    world.begin()
    world.round()
    world.traffic(100, 20)
    world.round()
    world.traffic(400, 20)
    world.pass_time()
    world.round()
    assert world.canary is not None
    world.pass_time(timedelta(days=7))
    world.round()
    assert world.canary is None and "Not shown to be safe within 7d" in world.found("rolled_back")[0].reason


def test_harm_is_still_seen_at_100_while_the_promotion_is_awaited(world: World) -> None:
    world.begin(plan=(50, 100))
    world.round()
    world.stage(45, 50)
    for _ in range(14):
        world.traffic(45, 100)
        world.round()
        world.pass_time()
    assert len(world.found("complete")) == 1 and world.canary is not None
    for _ in range(6):
        world.traffic(300, 100, errors=0.5)
        world.round()
        world.pass_time()
    assert world.canary is None and len(world.found("rolled_back")) == 1


# --- evidence ----------------------------------------------------------------------------------------------------------------------------


def test_evidence_counts_from_the_first_prediction_at_the_new_weight(world: World) -> None:
    """What the challenger did wrong at 20 % is no evidence about 50 %, and what is logged before the weight is in effect is none either."""
    to_step_two(world)
    world.round()
    committed = world.now
    for _ in range(3):  # Argo CD has not looked yet: the traffic still runs at 20 %
        world.traffic(100, 20, shift=0.4)
        assert "not in effect" in world.round()
        world.pass_time()
    world.traffic(100, 50)
    world.round()
    in_effect = next(record for record in world.found("in_effect") if record.inputs["weight"] == 50)
    world.pass_time()
    world.traffic(200, 50)
    first = world.now
    world.round()
    judged = next(record for record in world.found() if record.outcome in ("hold", "safe") and record.inputs["weight"] == 50).details["judged"]
    assert in_effect.event_time >= committed + 3 * MINUTE
    assert judged["since"] == in_effect.details["start"]  # type: ignore[index, call-overload]
    assert judged["since"] <= judged["first_prediction"] <= first.isoformat().replace("+00:00", "Z")  # type: ignore[index, call-overload, operator]
    assert judged["challenger"]["total"] < 150  # type: ignore[index, call-overload, operator]
    assert world.canary is not None


def test_evidence_that_is_away_holds_everything(world: World) -> None:
    to_step_two(world)
    world.counters.away = NoCalls("Prometheus does not answer")
    world.pass_time(timedelta(days=30))
    assert "not judged: Prometheus does not answer" in world.round()
    assert world.canary is not None and world.canary.weight == 50
    world.counters.away = None
    world.round()
    assert world.canary is not None


def test_one_use_case_that_cannot_be_judged_does_not_stop_the_round(world: World) -> None:
    world.commit({PATH: b"canary: ["}, "somebody wrote nonsense")
    assert "is no YAML" in world.round()
    assert world.controller.finished_round == world.now


# --- Git, records, restarts --------------------------------------------------------------------------------------------------------------


def test_a_restart_at_every_round_leads_to_the_same_end(tmp_path: Path) -> None:
    ends = []
    for number, restarts in enumerate((False, True)):
        world = World(tmp_path / str(number))
        world.begin(plan=(50, 100))
        world.round()
        for _ in range(40):
            world.traffic(80, world.canary.weight if world.canary else 0)
            if restarts:
                world.restart()
            world.round()
            world.pass_time()
            if world.found("complete"):
                break
        ends.append([record.outcome for record in world.found() if record.outcome in ("advanced", "complete", "rolled_back")])
    assert ends == [["advanced", "complete"]] * 2


def test_a_restarted_controller_does_not_look_twice(world: World) -> None:
    world.begin()
    world.round()
    world.traffic(100, 20)
    world.round()
    world.pass_time()
    world.traffic(400, 20)
    world.round()
    looks = [record.id for record in world.found("hold")]
    assert looks
    for _ in range(3):
        world.restart()
        world.round()
    assert [record.id for record in world.found("hold")] == looks


def test_a_crash_between_commit_and_record_is_made_good(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    to_step_two(world)
    world.round()
    with monkeypatch.context() as patched:
        append = RecordStore.append

        def fail(store: RecordStore, record: object) -> object:
            if getattr(record, "outcome", "") == "rolled_back":
                raise CrisplineError("the record store is away")
            return append(store, record)  # type: ignore[arg-type]

        patched.setattr(RecordStore, "append", fail)
        world.stage(40, 50, errors=1.0)
    assert world.canary is None and world.found("rolled_back") == []
    world.restart()
    world.round()
    (record,) = world.found("rolled_back")
    assert record.details["commit"] == world.repository.history(PATH)[0].commit and "calls without an answer" in record.reason


def test_a_push_that_is_not_a_fast_forward_is_judged_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between judgement and push somebody ends the canary: there is nothing to raise any more."""
    world.begin()
    world.round()
    commit_files, raced = GitRepository.commit_files, []

    def race(repository: GitRepository, changes: dict[str, bytes], *rest: object, **more: object) -> str:
        if not raced and changes.get(PATH, b"").find(b"weight: 50") > 0:
            raced.append(True)
            pinned = repository._pinned
            commit_files(repository, {PATH: b"canary: {}\n"}, "a person was faster", world.now)
            repository._pinned = pinned
        return commit_files(repository, changes, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(GitRepository, "commit_files", race)
    world.stage(45, 20)
    assert raced and world.canary is None
    assert world.found("advanced") == [] and world.controller.seen["flights"].said == "no canary"


def test_another_commit_beside_it_does_not_stop_a_judgement(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.begin()
    world.round()
    commit_file, raced = GitRepository.commit_file, []

    def race(repository: GitRepository, path: str, *rest: object, **more: object) -> str:
        if not raced:
            raced.append(True)
            raise NotFastForward("main moved")
        return commit_file(repository, path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(GitRepository, "commit_file", race)
    world.stage(45, 20)
    assert raced and world.canary is not None and world.canary.weight == 50 and len(world.found("advanced")) == 1


def test_a_new_champion_in_the_middle_starts_the_evidence_anew(world: World) -> None:
    to_step_two(world)
    world.round()
    world.traffic(100, 50)
    world.round()
    assert [record.inputs["weight"] for record in world.found("in_effect")] == [20, 50]
    world.release(OTHER)
    world.pass_time()
    world.round()
    assert [record.lineage.champion for record in world.found("awaited")][-1] == OTHER


def test_argo_cd_is_asked_after_a_commit_and_only_then(tmp_path: Path) -> None:
    world = World(tmp_path, argocd=ArgoCD(application="flights-dev"))
    world.begin()
    world.round()
    assert world.refreshed == []
    world.stage(45, 20)
    assert world.refreshed == [ArgoCD(application="flights-dev")]


def test_argo_cd_that_is_away_does_not_undo_a_commit(tmp_path: Path) -> None:
    world = World(tmp_path, argocd=ArgoCD(application="flights-dev"))

    def away(_: ArgoCD) -> None:
        raise CrisplineError("Argo CD is away")

    world.controller._refresh = away
    to_step_two(world)
    assert len(world.found("advanced")) == 1


# --- beginning and end -------------------------------------------------------------------------------------------------------------------


def test_there_are_never_two_canaries_at_once(world: World) -> None:
    world.begin()
    with world.repository.locked(), pytest.raises(ForbiddenChange, match="never two at once"):
        beginning(world.repository, PLACE, OTHER, [5, 100])
    with world.repository.locked(), pytest.raises(CrisplineError, match="nothing else is promoted meanwhile"):
        ended_by_promotion(world.repository, world.records, PLACE, OTHER)


def test_a_promotion_ends_the_canary_that_passed_its_whole_plan_in_its_own_commit(world: World) -> None:
    with world.repository.locked():
        assert ended_by_promotion(world.repository, world.records, PLACE, CHALLENGER) == {}
    world.begin(plan=(50, 100))
    with world.repository.locked(), pytest.raises(CrisplineError, match="has not passed its whole plan"):
        ended_by_promotion(world.repository, world.records, PLACE, CHALLENGER)
    world.round()
    world.stage(45, 50)
    with world.repository.locked(), pytest.raises(CrisplineError, match="has not passed its whole plan"):
        ended_by_promotion(world.repository, world.records, PLACE, CHALLENGER)
    for _ in range(14):
        world.traffic(45, 100)
        world.round()
        world.pass_time()
    with world.repository.locked():
        change = ended_by_promotion(world.repository, world.records, PLACE, CHALLENGER)
    assert change == {PATH: b"canary: {}\n"}


def test_a_canary_whose_release_became_the_champion_is_ended(world: World) -> None:
    to_step_two(world)
    world.release(CHALLENGER)
    world.round()
    assert world.canary is None and [record.kind for record in world.found("finished")] == ["canary"]
    assert world.found("rolled_back") == []


def test_a_canary_where_nothing_is_released_is_not_judged(world: World) -> None:
    world.begin()
    world.commit({release_path("flights", "dev"): None}, "gone")  # type: ignore[dict-item]
    assert "nothing is released there" in world.round()


def test_a_record_of_a_commit_needs_the_commit_alone(world: World) -> None:
    to_step_two(world)
    history = world.repository.history(PATH)
    assert trail.record_of(PLACE, history[0]) == world.found("advanced")[0]
    assert trail.record_of(PLACE, history[1]) is None


# --- the process -------------------------------------------------------------------------------------------------------------------------


def test_the_process_shows_what_it_found(world: World) -> None:
    to_step_two(world)
    world.round()  # what is shown is what the last round found
    with TestClient(create_app(world.controller)) as client:
        answer: httpx.Response = client.get("/livez")
        assert answer.json()["usecases"]["flights"]["weight"] == 50
        assert 'crispline_canary_weight{usecase="flights"} 50' in client.get("/metrics").text
