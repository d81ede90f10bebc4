"""The first step of a run that a cause started."""

from __future__ import annotations

from typing import Literal

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.monitoring.retrain_trigger.stores import open_store


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
