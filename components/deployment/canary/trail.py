"""What a canary leaves behind: its commits, and its records. Together they are all the state there is; the controller keeps none.

A commit of the controller carries the whole judgement in its trailers, and its record is derived from the commit alone. A crash between
the two, or a record store that was away, is made good from Git at the next round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from components.contracts.artifacts import Release
from components.contracts.durations import format_moment, parse_moment
from components.contracts.records import Lineage, Record, RecordKind, RecordStore, record_id
from components.deployment.canary.plan import Canary, canary_path, content_of, next_stage, parse
from components.deployment.canary.policy import FINISH, ROLLBACK, STEP, by_controller
from components.deployment.gitops import FileVersion, GitRepository
from components.deployment.releases import KIND_TRAILER, release_in


@dataclass(frozen=True)
class Place:
    """Where a canary is."""

    usecase: str
    environment: str

    @property
    def path(self) -> str:
        return canary_path(self.usecase, self.environment)

    def __str__(self) -> str:
        return f"{self.usecase} in {self.environment}"


@dataclass(frozen=True)
class Stage:
    """A canary at one stage, as one commit put it. `key` names the stage in the records: the same commit against the same champion."""

    place: Place
    canary: Canary
    commit: str
    champion: str

    @property
    def key(self) -> str:
        return record_id(self.place.environment, self.place.usecase, self.commit, self.champion)

    def record_id(self, what: str, *more: int) -> str:
        return record_id("canary", what, self.key, *more)


@dataclass(frozen=True)
class State:
    """What Git says. `history`: versions of canary.yaml, newest first. `stages`: those of the present canary, newest first."""

    place: Place
    canary: Canary | None
    champion: Release | None
    history: tuple[FileVersion, ...]
    stages: tuple[Stage, ...]

    @property
    def stage(self) -> Stage:
        return self.stages[0]


def read_state(repository: GitRepository, place: Place) -> State:
    """Read it within `repository.locked()`, so that it is of one commit. Raises InvalidCanary or IntegrityError for files that are none of ours."""
    canary = parse(repository.read_file(place.path), place.path)
    champion = release_in(repository, place.usecase, place.environment)
    history = tuple(repository.history(place.path))
    stages: list[Stage] = []
    if canary is not None and champion is not None:
        for version in history:
            earlier = parse(version.content, place.path)
            if earlier is None or (earlier.release, earlier.plan) != (canary.release, canary.plan):
                break
            stages.append(Stage(place, earlier, version.commit, champion.release))
            if not by_controller(version.trailers):
                break
    return State(place, canary, champion, history, tuple(stages))


# --- commits -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A commit to make: the file's content and the message that says why."""

    content: bytes
    message: str


def step(stage: Stage, judged: Mapping[str, JsonValue], reason: str, moment: datetime) -> Change:
    following = next_stage(stage.canary)
    subject = f"Raise the canary of {stage.place} to {following.weight} %"
    return Change(content_of(following), _message(STEP, subject, stage, reason, moment, judged, f"{stage.canary.weight} -> {following.weight}"))


def rollback(stage: Stage, judged: Mapping[str, JsonValue], reason: str, moment: datetime) -> Change:
    subject = f"Roll back the canary of {stage.place} at {stage.canary.stage}"
    return Change(content_of(None), _message(ROLLBACK, subject, stage, reason, moment, judged, f"{stage.canary.weight} -> 0"))


def finish(stage: Stage, moment: datetime) -> Change:
    reason = f"Release {stage.canary.release[:12]} is the champion now; its canary has ended."
    return Change(content_of(None), _message(FINISH, f"End the canary of {stage.place}", stage, reason, moment, {}, f"{stage.canary.weight} -> 0"))


def _message(kind: str, subject: str, stage: Stage, reason: str, moment: datetime, judged: Mapping[str, JsonValue], weight: str) -> str:
    trailers = {
        KIND_TRAILER: kind,
        "Canary-Release": stage.canary.release,
        "Canary-Champion": stage.champion,
        "Canary-Stage": stage.canary.stage,
        "Canary-Weight": weight,
        "Canary-Moment": format_moment(moment),
        "Canary-Reason": " ".join(reason.split()),
        "Canary-Judged": json.dumps(judged, sort_keys=True),
    }
    return "\n".join([subject, "", reason, "", *(f"{name}: {value}" for name, value in trailers.items()), ""])


def record_of(place: Place, version: FileVersion) -> Record | None:
    """The record of a commit of the controller, from its trailers alone; None for another's commit."""
    trailers = version.trailers
    if not by_controller(trailers):
        return None
    kind = trailers[KIND_TRAILER]
    record_kind: RecordKind = "rollback" if kind == ROLLBACK else "canary"
    return Record(
        kind=record_kind,
        id=record_id("canary", "commit", place.environment, place.usecase, version.commit),
        usecase=place.usecase,
        event_time=parse_moment(trailers["Canary-Moment"]),
        outcome={STEP: "advanced", ROLLBACK: "rolled_back", FINISH: "finished"}[kind],
        reason=trailers["Canary-Reason"],
        inputs={"environment": place.environment, "stage": trailers["Canary-Stage"], "weight": trailers["Canary-Weight"]},
        details={"commit": version.commit, "what": "canary", "judged": json.loads(trailers["Canary-Judged"])},
        lineage=Lineage(release=trailers["Canary-Release"], champion=trailers["Canary-Champion"]),
    )


def make_good(records: RecordStore, state: State) -> None:
    """Write the records that commits of the controller lack, newest first, up to the first that has its record."""
    for version in state.history:
        record = record_of(state.place, version)
        if record is None:
            continue
        if records.find(record.kind, record.id) is not None:
            return
        records.append(record)


def judged_before(state: State) -> dict[str, JsonValue]:
    """What the judgement that led to the present stage rested on; empty at a canary's first stage."""
    newest = state.history[0].trailers
    return dict(json.loads(newest["Canary-Judged"])) if newest.get(KIND_TRAILER) == STEP else {}


# --- records of what is no commit ----------------------------------------------------------------------------------------------------------


def note(
    stage: Stage, what: str, outcome: str, reason: str, moment: datetime, details: Mapping[str, JsonValue], thresholds: Mapping[str, JsonValue], *more: int
) -> Record:
    """A record of a stage: `what` (awaited, in_effect, look, complete) with `more` (the look's number) identifies it within the stage."""
    return Record(
        kind="canary",
        id=stage.record_id(what, *more),
        usecase=stage.place.usecase,
        event_time=moment,
        outcome=outcome,
        reason=reason,
        inputs={"environment": stage.place.environment, "stage": stage.canary.stage, "weight": stage.canary.weight},
        thresholds=dict(thresholds),
        details={"commit": stage.commit, **details},
        lineage=Lineage(release=stage.canary.release, champion=stage.champion),
    )
