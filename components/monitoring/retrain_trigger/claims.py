"""One cause, one effective run, however often a process dies.

A claim says which run a cause may have: claimed (somebody is about to submit) -> submitted (with the run's id) -> finished (with its
outcome). Submitting and recording cannot be one action, so a crash in between may leave a run that the claim does not name. Two things make
that harmless: the run's name carries the cause and is looked up before submitting, and a run's first step binds its own id to the claim or,
when another run was there first, ends as a duplicate without effects.

`TriggerStore` is what a durable back end has to offer: SQLite on one machine, objects of the Kubernetes API in a cluster. The wall clock
appears only in leases: who claims and then does not submit in time is taken to be dead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from components.contracts.errors import CrisplineError
from components.contracts.events import Alert, Performance
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.monitoring.retrain_trigger.policy import Decision, Retraining

ClaimState = Literal["claimed", "submitted", "finished"]
PIPELINE = "retraining"
# Submitting a run takes seconds; whoever holds a claim for a minute without having done so is dead or cut off. Too short costs a
# duplicate run that ends at its first step, too long costs that much delay after a crash.
LEASE_SECONDS = 60.0


class StoreUnavailable(CrisplineError):
    """The store cannot be read or written now; nothing is wrong with what was to be kept, and it may be sent again."""


@dataclass(frozen=True)
class Claim:
    """`owner` and `lease_until` (wall clock, seconds since the epoch) matter only while `claimed`."""

    cause: str
    usecase: str
    run_name: str
    parameters: Mapping[str, str]
    event_time: datetime
    state: ClaimState
    run_id: str = ""
    outcome: str = ""
    owner: str = ""
    lease_until: float = 0.0


@dataclass(frozen=True)
class Intent:
    """What a claim is about: fixed when it is made."""

    cause: str
    usecase: str
    parameters: Mapping[str, str]
    event_time: datetime

    @property
    def run_name(self) -> str:
        return run_name(self.cause)


class ClaimStore(Protocol):
    """Every method is atomic and durable when it returns."""

    def claim(self, intent: Intent, owner: str, lease_seconds: float = LEASE_SECONDS) -> tuple[Claim, bool]:
        """The cause's claim, made if there is none, and whether `owner` may submit now: it made it, holds it, or its lease ran out."""
        ...

    def bind(self, cause: str, run_id: str, usecase: str) -> Claim:
        """Name `run_id` as the cause's run unless one is named already; return the claim as it stands then. Makes the claim of an unclaimed cause."""
        ...

    def finish(self, cause: str, outcome: str) -> Claim:
        """Record the end of the cause's run; a claim that is finished stays as it is."""
        ...

    def get(self, cause: str) -> Claim | None: ...

    def unfinished(self) -> list[Claim]:
        """Claims that are claimed or submitted, in order of business time."""
        ...


class TriggerStore(ClaimStore, Protocol):
    """Claims, the events they come from and the decisions on them."""

    def receive(self, event: Alert | Performance, event_time: datetime) -> bool:
        """Keep an event; False when its id is known already (nothing changes then)."""
        ...

    def unhandled(self) -> list[Alert | Performance]:
        """Events without a completed decision, in order of business time."""
        ...

    def events(self) -> list[Alert | Performance]: ...

    def handled(self, id: str) -> None: ...

    def decide_once(self, cause: str, decide: Callable[[list[Retraining]], Decision]) -> Decision:
        """The decision on a cause: the stored one, or `decide` of the retrainings so far. No other decision is made in between, in any replica."""
        ...

    def decision(self, cause: str) -> Decision | None: ...

    def count(self) -> Mapping[str, int]:
        """For metrics: events, unhandled events, decisions by `decision_<outcome>`, unfinished claims."""
        ...


def run_name(cause: str) -> str:
    return f"{PIPELINE}-{cause}"


def open_store(uri: str, usecase: str = "") -> TriggerStore:
    """The store behind `Platform.claims_uri`: `sqlite:///<file>`, or `kubernetes:///<namespace>/<prefix>`, in which each use case has a store of
    its own. Raises CrisplineError for an empty or unknown one."""
    if uri.startswith("kubernetes:///"):
        from components.monitoring.retrain_trigger.kubernetes_store import open_kubernetes_store

        return open_kubernetes_store(uri, usecase)
    if not uri.startswith("sqlite:///"):
        raise CrisplineError(f"claims_uri is {uri!r}; it must name a store for claims: sqlite:///<file> or kubernetes:///<namespace>/<prefix>")
    from pathlib import Path

    from components.monitoring.retrain_trigger.sqlite_store import SqliteStore

    return SqliteStore(Path(uri.removeprefix("sqlite:///")))


def claim_effective(platform: Platform, cause: str, run_id: str, usecase: str = "") -> Literal["effective", "duplicate"]:
    """A run's first step: is this run the one for its cause? Asking again gives the same answer.

    A duplicate leaves a record of kind `run` and must do nothing else. For a cause that nobody claimed, a run started by hand, it makes the
    claim. `usecase`: whose claims these are.
    """
    if not cause or not run_id:
        raise CrisplineError(f"a retraining needs a cause and its run's id (cause {cause!r}, run {run_id!r}); name a cause, e.g. manual-2013-05-01")
    claim = open_store(platform.claims_uri, usecase).bind(cause, run_id, usecase)
    if claim.run_id == run_id:
        return "effective"
    RecordStore(platform.records_uri).append(
        Record(
            kind="run",
            id=record_id("run", "duplicate", cause, run_id),
            usecase=claim.usecase,
            event_time=claim.event_time,
            outcome="duplicate",
            reason=f"Run {run_id} ended without effects: cause {cause} has run {claim.run_id}.",
            inputs={"run": run_id, "effective_run": claim.run_id},
            lineage=Lineage(run=run_id, cause=cause),
        )
    )
    return "duplicate"


def started_by_hand() -> datetime:
    """Business time of a cause that no event has: a person acts now."""
    return datetime.now(UTC)
