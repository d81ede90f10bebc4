"""How a run on Kubeflow Pipelines ended: a record, and a CloudEvent to whoever is to be told.

The final status that Kubeflow Pipelines hands to an exit task cannot be trusted alone. It comes from the metadata store, where the state of a
group of tasks is renewed by the launcher of each of its steps (backend/src/v2/metadata/client.go, UpdateDAGExecutionsState, 2.17): a branch
that was left out after the last step, or a last step out of the cache, leaves the group RUNNING though the run succeeded, and so does a pod
that was killed before its launcher could report. What the run decided stands in the records; they say what the status does not.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from components.contracts.durations import parse_moment
from components.contracts.events import RUN_ENDED
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.contracts.relative_moments import absolute_moment
from components.data_engineering.request_steps import default_cause

TOKEN_VARIABLE: Final = "CRISPLINE_NOTIFICATIONS_TOKEN"  # noqa: S105  the name of a variable, not a token
_ATTEMPTS: Final = 4
_TIMEOUT_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 1.0
_SUCCEEDED: Final = ("SUCCEEDED", "COMPLETE", "CACHED")

_log = logging.getLogger("crispline.run_end")


@dataclass(frozen=True)
class Ended:
    """What the exit task knows. `moment`: business time, RFC 3339; `state` is Kubeflow Pipelines' own."""

    usecase: str
    pipeline: str
    run: str
    moment: str
    cause: str
    state: str


def notify_of_end(usecase: str, *, pipeline: str, run: str, created: str, as_of: str, cause: str, state: str) -> str:
    """Write the record and post it to the platform's `notifications_url`; return the outcome. A duplicate of a cause is told to nobody.

    An endpoint that stays away does not make the run fail: the record is there, and the step's log says so.
    """
    platform, loaded = Platform.load(), load_usecase(usecase)
    records = RecordStore(platform.records_uri)
    moment = absolute_moment(as_of, parse_moment(created)) if as_of else created
    cause = cause or default_cause(pipeline, moment)
    if records.find("run", record_id("run", "duplicate", cause, run)) is not None:
        return "duplicate"
    record = records.append(end_record(Ended(loaded.name, pipeline, run, moment, cause, state), conclusion(records, loaded.name, cause)))
    if platform.notifications_url:
        tell(platform.notifications_url, record)
    return record.outcome


def conclusion(records: RecordStore, usecase: str, cause: str) -> Record | None:
    """The record of the last decision that was made under a cause: its promotion, or else the verdict of the gates; None without either."""
    for kind in ("promotion", "gates"):
        found = [record for record in records.list(kind) if record.usecase == usecase and record.lineage.cause == cause]
        if found:
            return found[-1]
    return None


def end_record(ended: Ended, decided: Record | None) -> Record:
    """Kind `run`; outcome succeeded, failed, or ended where neither the status nor a record tells. The same run gives the same record."""
    if ended.state == "FAILED":
        outcome, reason = "failed", f"Run {ended.run} of {ended.pipeline} failed; its steps' logs say why."
    elif ended.state in _SUCCEEDED or decided is not None:
        outcome, reason = "succeeded", f"Run {ended.run} of {ended.pipeline} ended."
    else:
        outcome, reason = "ended", f"Run {ended.run} of {ended.pipeline} ended; Kubeflow Pipelines does not say how ({ended.state})."
    if decided is not None:
        reason += f" {decided.kind.capitalize()}: {decided.outcome}. {decided.reason}"
    return Record(
        kind="run",
        id=record_id("run", "end", ended.run),
        usecase=ended.usecase,
        event_time=parse_moment(ended.moment),
        outcome=outcome,
        reason=reason,
        inputs={"pipeline": ended.pipeline, "run": ended.run, "state": ended.state},
        lineage=Lineage(run=ended.run, cause=ended.cause),
    )


def tell(url: str, record: Record, sleep: Callable[[float], None] = time.sleep) -> bool:
    """POST the record as a CloudEvent (binary mode); whether it was taken. Tries again after a growing pause when the endpoint is away or overloaded."""
    import httpx

    headers = {
        "ce-id": record.id,
        "ce-source": f"crispline/pipelines/{record.usecase}",
        "ce-type": RUN_ENDED,
        "ce-specversion": "1.0",
        "ce-subject": record.outcome,
        "content-type": "application/json",
    }
    token = os.environ.get(TOKEN_VARIABLE, "")
    if token:
        headers["authorization"] = f"Bearer {token}"
    said = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
        try:
            answer = httpx.post(url, content=record.model_dump_json(), headers=headers, timeout=_TIMEOUT_SECONDS)
        except httpx.HTTPError as error:
            said = f"{type(error).__name__}: {error}"
            continue
        if answer.is_success:
            return True
        said = f"{answer.status_code} {answer.text[:300]}"
        if answer.status_code < 500 and answer.status_code != 429:
            break
    _log.error("the end of run %s was not taken by %s: %s; its record is run/%s", record.lineage.run, url, said, record.id)
    return False
