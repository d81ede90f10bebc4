"""Decisions are data: every automatic decision is a small immutable record, stored once under an id derived from what it is about.

Writing the same decision again is a no-op; writing another one under the same id is an error. Records are JSON files
`<records>/<kind>/<id>.json`, read by the report, the registry and the audit trail alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from upath import UPath

from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.storage import create_atomically, read_folder, read_whole, storage_path
from components.contracts.usecase import Moment

RecordKind = Literal[
    "check",  # a quality check of a phase: evidence for a risk
    "feasibility",
    "data_version",
    "dataset",
    "training",
    "evaluation",
    "gates",
    "registration",
    "release",
    "promotion",
    "rollback",
    "canary",
    "alert",
    "performance",
    "feedback_summary",
    "retrain_decision",
    "run",
    "consumer_action",
]


class Lineage(BaseModel):
    """Ids of what a decision rests on; absent parts are empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_version: str = ""
    dataset: str = ""
    model_version: str = ""
    champion: str = ""
    release: str = ""
    run: str = ""
    cause: str = ""
    code_version: str = ""


class Record(BaseModel):
    """One decision.

    `event_time`: business time of the decision. `outcome`: one word such as passed, failed, go, no_go, retrain, nothing, duplicate.
    `reason`: a sentence for a person. `inputs` and `thresholds`: what was compared, by name. `details`: anything else worth keeping.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: RecordKind
    id: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,199}$")
    usecase: str
    event_time: Moment
    outcome: str
    reason: str
    inputs: dict[str, JsonValue] = Field(default_factory=dict)
    thresholds: dict[str, JsonValue] = Field(default_factory=dict)
    details: dict[str, JsonValue] = Field(default_factory=dict)
    lineage: Lineage = Lineage()


def record_id(*parts: str | datetime | int) -> str:
    """A stable id (24 hex digits) from the parts that make a decision the same decision."""
    canonical = json.dumps([part.isoformat() if isinstance(part, datetime) else part for part in parts])
    return hashlib.sha256(canonical.encode()).hexdigest()[:24]


class RecordStore:
    """Records under a path or URI. Safe for several writers: a record is written whole, once, and of two different ones under one id the first stays."""

    def __init__(self, uri: str | UPath) -> None:
        self.root = storage_path(uri)

    def append(self, record: Record) -> Record:
        """Store, or return the one already stored under this id. Raises IntegrityError when that one says something else."""
        if create_atomically(self._path(record.kind, record.id), record.model_dump_json(indent=2).encode()):
            return record
        stored = self.get(record.kind, record.id)
        if stored != record:
            raise IntegrityError(f"record {record.kind}/{record.id} exists with another content; records are immutable, use a new id")
        return stored

    def get(self, kind: RecordKind, id: str) -> Record:
        found = self.find(kind, id)
        if found is None:
            raise CrisplineError(f"no record {kind}/{id} under {self.root}")
        return found

    def find(self, kind: RecordKind, id: str) -> Record | None:
        try:
            return Record.model_validate_json(read_whole(self._path(kind, id)))
        except FileNotFoundError:
            return None

    def list(self, kind: RecordKind) -> Iterator[Record]:
        """All records of a kind in order of business time, then id."""
        found = [Record.model_validate_json(content) for content in read_folder(self.root / kind, lambda name: name.endswith(".json")).values()]
        return iter(sorted(found, key=lambda record: (record.event_time, record.id)))

    def _path(self, kind: RecordKind, id: str) -> UPath:
        return self.root / kind / f"{id}.json"
