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


def started_by_hand() -> datetime:
    """Business time of a cause that no event has: a person acts now."""
    return datetime.now(UTC)
