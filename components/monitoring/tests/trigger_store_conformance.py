"""What every `TriggerStore` has to do, as a class of tests: a subclass in a test file gives `open_store`, which opens the same store once more,
as another replica does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest

from components.contracts.errors import CrisplineError
from components.contracts.events import Alert, Performance
from components.monitoring.retrain_trigger.claims import Intent, TriggerStore
from components.monitoring.retrain_trigger.policy import Decision, Retraining

START = datetime(2013, 5, 2, tzinfo=UTC)
DAY = timedelta(days=1)
Result = TypeVar("Result")
OpenStore = Callable[[], TriggerStore]


def performance(id: str, value: float = 0.55) -> Performance:
    return Performance(
        id=id,
        usecase="flights",
        model_version="m1",
        window_start=START,
        window_end=START + 7 * DAY,
        as_of=START + 22 * DAY,
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


def alert(id: str, effect: str = "mix of the carriers moved by 0.1 — 10 %") -> Alert:
    return Alert(
        id=id,
        usecase="flights",
        kind="data_drift",
        detector="ks",
        model_version="m1",
        release="r",
        window_start=START,
        window_end=START + 7 * DAY,
        rows=10,
        subject="carrier",
        statistic=0.25,
        threshold=0.1,
        effect=effect,
        details={"p": 1e-9, "whole": 3.0},
    )


def intent(cause: str = "cause", at: datetime = START) -> Intent:
    return Intent(cause, "flights", {"usecase": "flights", "as_of": "2013-05-02T00:00:00Z"}, at)


def decision(cause: str, at: datetime = START, outcome: str = "retrain", run: bool = True) -> Decision:
    return Decision(cause, at, outcome, f"Why {cause}.", run, {"value": 0.55, "explained": None, "rows": 6000}, {"cooldown": "28d", "budget_runs": 6})  # type: ignore[arg-type]


def refuse(_: list[Retraining]) -> Decision:
    raise AssertionError("this cause was decided already")


def at_once(call: Callable[[int], Result]) -> list[Result]:
    """Results of four calls that start at the same moment, each in a thread of its own; each gets its number."""
    barrier = threading.Barrier(4)

    def wait_and_call(number: int) -> Result:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(wait_and_call, range(4)))


class TriggerStoreConformance:
    @pytest.fixture
    def open_store(self) -> OpenStore:
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_store: OpenStore) -> TriggerStore:
        return open_store()

    # --- events

    def test_an_event_is_kept_as_it_came_for_every_replica(self, store: TriggerStore, open_store: OpenStore) -> None:
        assert store.receive(performance("p"), START) is True
        assert store.receive(alert("a"), START + DAY) is True
        other = open_store()
        assert other.events() == other.unhandled() == [performance("p"), alert("a")]

    def test_an_event_that_comes_again_changes_nothing(self, store: TriggerStore, open_store: OpenStore) -> None:
        store.receive(alert("a"), START)
        assert open_store().receive(alert("a", effect="another text"), START) is False
        store.handled("a")
        assert store.receive(alert("a"), START) is False
        assert store.unhandled() == []
        assert store.events() == [alert("a")]

    def test_of_replicas_that_get_one_event_at_once_one_keeps_it(self, open_store: OpenStore) -> None:
        replicas = [open_store() for _ in range(4)]
        assert sorted(at_once(lambda number: replicas[number].receive(alert("a"), START))) == [False, False, False, True]
        assert replicas[0].events() == [alert("a")]

    def test_events_come_in_order_of_business_time_and_of_arrival_within_it(self, store: TriggerStore) -> None:
        for id, day in (("late", 2), ("z-first", 1), ("a-second", 1)):
            store.receive(alert(id), START + day * DAY)
        assert [one.id for one in store.unhandled()] == ["z-first", "a-second", "late"]
        store.handled("a-second")
        assert [one.id for one in store.unhandled()] == ["z-first", "late"]
        assert [one.id for one in store.events()] == ["z-first", "a-second", "late"]

    def test_an_unknown_event_is_handled_without_effect(self, store: TriggerStore) -> None:
        store.handled("unknown")
        assert store.events() == []
        assert store.count()["events"] == 0

    # --- decisions

    def test_a_cause_is_decided_once_and_the_decision_comes_back_as_it_was(self, store: TriggerStore, open_store: OpenStore) -> None:
        store.receive(performance("p"), START)
        assert store.decision("p") is None
        made = store.decide_once("p", lambda _: decision("p"))
        assert made == decision("p")
        assert open_store().decide_once("p", refuse) == made
        assert open_store().decision("p") == made

    def test_a_decision_that_fails_leaves_nothing(self, store: TriggerStore) -> None:
        store.receive(performance("p"), START)
        with pytest.raises(AssertionError):
            store.decide_once("p", refuse)
        assert store.decision("p") is None
        assert store.decide_once("p", lambda _: decision("p")) == decision("p")

    def test_a_decision_knows_the_retrainings_before_it_and_how_they_ended(self, store: TriggerStore, open_store: OpenStore) -> None:
        for number, (cause, ends) in enumerate({"won": "succeeded", "lost": "failed", "running": "", "claimed": "", "undone": ""}.items()):
            store.decide_once(cause, lambda _, cause=cause, number=number: decision(cause, START + number * DAY))  # type: ignore[misc]
            if cause == "undone":
                continue
            store.claim(intent(cause), "a")
            if cause != "claimed":
                store.bind(cause, f"run-{cause}", "flights")
            if ends:
                store.finish(cause, ends)
        store.decide_once("dry", lambda _: decision("dry", START + 9 * DAY, run=False))
        store.decide_once("no", lambda _: decision("no", outcome="nothing", run=False))
        seen: list[Retraining] = []
        open_store().decide_once("next", lambda history: seen.extend(history) or decision("next", outcome="nothing", run=False))  # type: ignore[func-returns-value]
        assert [(one.cause, one.state) for one in seen] == [
            ("won", "succeeded"),
            ("lost", "failed"),
            ("running", "open"),
            ("claimed", "open"),
            ("undone", "open"),
            ("dry", "dry_run"),
        ]
        assert [one.event_time for one in seen[:3]] == [START, START + DAY, START + 2 * DAY]

    def test_no_decision_is_made_between_another_ones_look_and_its_word(self, open_store: OpenStore) -> None:
        """Each would retrain if nobody had decided so before; of decisions made at once in four replicas, one does."""
        replicas = [open_store() for _ in range(4)]
        for number, one in enumerate(replicas):
            one.receive(performance(f"p{number}"), START)

        def decide(number: int) -> str:
            def unless_before(history: list[Retraining]) -> Decision:
                return decision(f"p{number}", outcome="nothing" if history else "retrain", run=not history)

            return replicas[number].decide_once(f"p{number}", unless_before).outcome

        assert sorted(at_once(decide)) == ["nothing", "nothing", "nothing", "retrain"]
        assert replicas[0].count()["decision_retrain"] == 1

    def test_replicas_that_decide_one_cause_at_once_say_the_same(self, open_store: OpenStore) -> None:
        replicas = [open_store() for _ in range(4)]
        made = at_once(lambda number: replicas[number].decide_once("p", lambda _: replace(decision("p"), reason=f"replica {number}")))
        assert len({one.reason for one in made}) == 1

    # --- claims

    def test_a_claim_is_held_by_one_until_its_lease_runs_out(self, store: TriggerStore, open_store: OpenStore) -> None:
        claim, mine = store.claim(intent(), "a", lease_seconds=60)
        assert mine
        assert (claim.cause, claim.usecase, claim.run_name, claim.state, claim.owner) == ("cause", "flights", "retraining-cause", "claimed", "a")
        assert (claim.parameters, claim.event_time, claim.run_id, claim.outcome) == (intent().parameters, START, "", "")
        other = open_store()
        assert other.claim(intent(), "b") == (claim, False)
        assert other.get("cause") == claim
        renewed, mine = store.claim(intent(), "a", lease_seconds=-1)  # its own holder goes on at once; this lease has run out
        assert mine
        assert renewed.lease_until < claim.lease_until
        taken, mine = other.claim(intent(), "b")
        assert (taken.owner, mine) == ("b", True)
        assert store.claim(intent(), "a") == (taken, False)

    def test_of_replicas_that_claim_at_once_one_may_submit(self, open_store: OpenStore) -> None:
        replicas = [open_store() for _ in range(4)]
        first = at_once(lambda number: replicas[number].claim(intent(), f"first-{number}"))
        assert sorted(mine for _, mine in first) == [False, False, False, True]
        (holder,) = {claim.owner for claim, _ in first}
        assert replicas[0].claim(intent(), holder, lease_seconds=-1)[1]
        second = at_once(lambda number: replicas[number].claim(intent(), f"second-{number}"))
        assert sorted(mine for _, mine in second) == [False, False, False, True]

    def test_a_claim_keeps_what_it_was_made_for(self, store: TriggerStore) -> None:
        store.claim(intent(), "a", lease_seconds=-1)
        claim, _ = store.claim(Intent("cause", "flights", {"as_of": "2014-01-01T00:00:00Z"}, START + DAY), "b")
        assert (claim.parameters, claim.event_time) == (intent().parameters, START)

    def test_the_first_run_is_the_claims_run(self, store: TriggerStore, open_store: OpenStore) -> None:
        store.claim(intent(), "a")
        bound = store.bind("cause", "run-1", "flights")
        assert (bound.run_id, bound.state) == ("run-1", "submitted")
        assert open_store().bind("cause", "run-2", "flights") == bound
        assert store.claim(intent(), "a") == (bound, False)

    def test_of_runs_that_bind_at_once_all_are_told_the_same_one(self, open_store: OpenStore) -> None:
        replicas = [open_store() for _ in range(4)]
        bound = at_once(lambda number: replicas[number].bind("manual", f"run-{number}", "flights").run_id)
        assert len(set(bound)) == 1

    def test_a_run_of_an_unclaimed_cause_makes_its_claim(self, store: TriggerStore) -> None:
        claim = store.bind("manual", "run-1", "flights")
        assert (claim.cause, claim.usecase, claim.run_id, claim.state, claim.run_name) == ("manual", "flights", "run-1", "submitted", "retraining-manual")
        assert store.claim(intent("manual"), "a")[1] is False
        assert store.receive(performance("manual"), START) is True  # its event may come later, and is decided on
        assert store.unhandled() == [performance("manual")]

    def test_an_end_is_kept(self, store: TriggerStore) -> None:
        store.claim(intent(), "a")
        store.bind("cause", "run-1", "flights")
        ended = store.finish("cause", "failed")
        assert (ended.state, ended.outcome, ended.run_id) == ("finished", "failed", "run-1")
        assert store.finish("cause", "succeeded") == ended
        assert store.bind("cause", "run-2", "flights") == ended
        assert store.claim(intent(), "a") == (ended, False)
        assert store.get("unknown") is None
        with pytest.raises(CrisplineError, match="unknown"):
            store.finish("unknown", "failed")

    def test_unfinished_claims_come_in_order_of_business_time(self, store: TriggerStore) -> None:
        for cause, day in (("third", 3), ("first", 1), ("ended", 0), ("second", 2)):
            store.claim(intent(cause, START + day * DAY), "a")
        store.bind("second", "run-2", "flights")
        store.bind("ended", "run-0", "flights")
        store.finish("ended", "succeeded")
        assert [(one.cause, one.state) for one in store.unfinished()] == [("first", "claimed"), ("second", "submitted"), ("third", "claimed")]

    def test_it_counts(self, store: TriggerStore) -> None:
        assert store.count() == {"events": 0, "unhandled": 0, "unfinished_claims": 0}
        for id in ("p", "q"):
            store.receive(performance(id), START)
        store.decide_once("p", lambda _: decision("p"))
        store.claim(intent("p"), "a")
        store.decide_once("q", lambda _: decision("q", outcome="page", run=False))
        store.handled("q")
        assert store.count() == {"events": 2, "unhandled": 1, "unfinished_claims": 1, "decision_retrain": 1, "decision_page": 1}
