"""`crispline status`: runs, released champions, the last decisions; from the files alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.contracts.artifacts import Release
from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import Record, RecordKind, RecordStore
from pipelines.runners.runs import RunDetails, RunStore

_MOST = 10
_NOT_DECISIONS = frozenset({"check", "data_version", "dataset", "training"})


def show_status(state: Path, usecase: str, as_json: bool) -> None:
    """Print what a state folder holds of a use case. Raises CrisplineError when there is no such folder."""
    file = state / "platform.json"
    if not file.exists():
        raise CrisplineError(f"{state} is no state folder (it has no platform.json); name one with --state, such as .crispline/demo")
    platform = Platform.load(file)
    runs = [details for details in RunStore(state).list() if details.run.parameters.get("usecase", usecase) == usecase][-_MOST:]
    champions = {release.environment: release for release in _releases(Path(platform.gitops_repository), usecase)}
    decisions = _decisions(RecordStore(platform.records_uri), usecase)[-_MOST:]
    if as_json:
        print(json.dumps(_plain(runs, champions, decisions), indent=2))
        return
    console = Console(highlight=False)
    console.print(_champions(champions), _runs(runs), _last(decisions), sep="\n")


def _releases(repository: Path, usecase: str) -> list[Release]:
    return [Release.model_validate_json(file.read_text()) for file in sorted(repository.glob(f"manifests/environments/*/{usecase}/release.json"))]


def _decisions(store: RecordStore, usecase: str) -> list[Record]:
    kinds: list[RecordKind] = [kind for kind in get_args(RecordKind) if kind not in _NOT_DECISIONS]
    found = [record for kind in kinds for record in store.list(kind) if record.usecase == usecase]
    return sorted(found, key=lambda record: (record.event_time, record.id))


def _plain(runs: list[RunDetails], champions: dict[str, Release], decisions: list[Record]) -> dict[str, Any]:
    return {
        "champions": {environment: release.model_dump(mode="json") for environment, release in champions.items()},
        "runs": [
            {
                "id": each.run.id,
                "name": each.run.name,
                "pipeline": each.run.pipeline,
                "cause": each.run.cause,
                "state": each.run.state,
                "submitted": _at(each.submitted),
            }
            for each in runs
        ],
        "decisions": [record.model_dump(mode="json") for record in decisions],
    }


def _champions(champions: dict[str, Release]) -> Table:
    table = _table("Released", "environment", "model", "release", "since", "cause")
    for environment, release in champions.items():
        table.add_row(environment, release.model_version, release.release[:12], format_moment(release.promoted), escape(release.cause))
    return table if champions else _nothing("Released", "no release yet; crispline run training")


def _runs(runs: list[RunDetails]) -> Table:
    table = _table("Runs (wall time)", "run", "pipeline", "state", "submitted", "seconds", "cause")
    for each in runs:
        took = f"{each.finished - each.started:.0f}" if each.finished and each.started else ""
        table.add_row(each.run.id, each.run.pipeline, each.run.state, _at(each.submitted), took, escape(each.run.cause))
    return table if runs else _nothing("Runs", "no run yet")


def _last(decisions: list[Record]) -> Table:
    table = _table("Last decisions (business time)", "time", "kind", "outcome", "reason")
    for record in decisions:
        table.add_row(format_moment(record.event_time), record.kind, record.outcome, escape(record.reason))
    return table if decisions else _nothing("Last decisions", "none yet")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _nothing(title: str, said: str) -> Table:
    table = _table(title)
    table.add_column("")
    table.add_row(said)
    return table


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
