"""The trigger's durable state in one SQLite file, shared by replicas on one machine.

Write-ahead log, full synchronisation (an answer means it is on disk), and BEGIN IMMEDIATE around every read that a write depends on.
A connection per call: calls come from several threads, and are few.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from components.contracts.durations import format_moment, parse_moment
from components.contracts.errors import CrisplineError
from components.contracts.events import Alert, Performance
from components.monitoring.retrain_trigger.claims import LEASE_SECONDS, Claim, Intent, run_name, started_by_hand
from components.monitoring.retrain_trigger.policy import Decision, Retraining

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, kind TEXT NOT NULL, event_time TEXT NOT NULL, body TEXT NOT NULL, handled INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS decisions (cause TEXT PRIMARY KEY, event_time TEXT NOT NULL, outcome TEXT NOT NULL, run INTEGER NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS claims (
    cause TEXT PRIMARY KEY, usecase TEXT NOT NULL, run_name TEXT NOT NULL, parameters TEXT NOT NULL, event_time TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('claimed', 'submitted', 'finished')),
    run_id TEXT NOT NULL DEFAULT '', outcome TEXT NOT NULL DEFAULT '', owner TEXT NOT NULL DEFAULT '', lease_until REAL NOT NULL DEFAULT 0
);
"""
_BUSY_SECONDS = 30.0


class SqliteStore:
    """A `TriggerStore` in `file` (created with its folder). Safe for several threads and processes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)

    # --- claims

    def claim(self, intent: Intent, owner: str, lease_seconds: float = LEASE_SECONDS) -> tuple[Claim, bool]:
        with self._transaction() as connection:
            now = time.time()
            connection.execute(
                "INSERT INTO claims (cause, usecase, run_name, parameters, event_time, state) VALUES (?, ?, ?, ?, ?, 'claimed') ON CONFLICT DO NOTHING",
                (intent.cause, intent.usecase, intent.run_name, json.dumps(dict(intent.parameters), sort_keys=True), format_moment(intent.event_time)),
            )
            taken = connection.execute(
                "UPDATE claims SET owner = ?, lease_until = ? WHERE cause = ? AND state = 'claimed' AND (owner = ? OR lease_until < ?)",
                (owner, now + lease_seconds, intent.cause, owner, now),
            )
            return self._claim(connection, intent.cause), taken.rowcount == 1

    def bind(self, cause: str, run_id: str, usecase: str) -> Claim:
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO claims (cause, usecase, run_name, parameters, event_time, state) VALUES (?, ?, ?, '{}', ?, 'claimed') ON CONFLICT DO NOTHING",
                (cause, usecase, run_name(cause), format_moment(started_by_hand())),
            )
            connection.execute("UPDATE claims SET run_id = ?, state = 'submitted' WHERE cause = ? AND run_id = ''", (run_id, cause))
            return self._claim(connection, cause)

    def finish(self, cause: str, outcome: str) -> Claim:
        with self._transaction() as connection:
            connection.execute("UPDATE claims SET state = 'finished', outcome = ? WHERE cause = ? AND state != 'finished'", (outcome, cause))
            return self._claim(connection, cause)

    def get(self, cause: str) -> Claim | None:
        with self._connection() as connection:
            row = connection.execute("SELECT * FROM claims WHERE cause = ?", (cause,)).fetchone()
            return _claim(row) if row is not None else None

    def unfinished(self) -> list[Claim]:
        with self._connection() as connection:
            return [_claim(row) for row in connection.execute("SELECT * FROM claims WHERE state != 'finished' ORDER BY event_time, cause")]

    # --- events

    def receive(self, event: Alert | Performance, event_time: datetime) -> bool:
        with self._transaction() as connection:
            added = connection.execute(
                "INSERT INTO events (id, kind, event_time, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (event.id, type(event).__name__, format_moment(event_time), event.model_dump_json()),
            )
            return added.rowcount == 1

    def unhandled(self) -> list[Alert | Performance]:
        return self._events("WHERE handled = 0")

    def events(self) -> list[Alert | Performance]:
        return self._events("")

    def handled(self, id: str) -> None:
        with self._transaction() as connection:
            connection.execute("UPDATE events SET handled = 1 WHERE id = ?", (id,))

    # --- decisions

    def decide_once(self, cause: str, decide: Callable[[list[Retraining]], Decision]) -> Decision:
        with self._transaction() as connection:
            stored = connection.execute("SELECT body FROM decisions WHERE cause = ?", (cause,)).fetchone()
            if stored is not None:
                return _decision(stored["body"])
            decision = decide(self._retrainings(connection))
            connection.execute(
                "INSERT INTO decisions (cause, event_time, outcome, run, body) VALUES (?, ?, ?, ?, ?)",
                (cause, format_moment(decision.event_time), decision.outcome, int(decision.run), _dump(decision)),
            )
            return decision

    def decision(self, cause: str) -> Decision | None:
        with self._connection() as connection:
            row = connection.execute("SELECT body FROM decisions WHERE cause = ?", (cause,)).fetchone()
            return _decision(row["body"]) if row is not None else None

    def count(self) -> Mapping[str, int]:
        with self._connection() as connection:
            counts = {
                "events": connection.execute("SELECT count(*) FROM events").fetchone()[0],
                "unhandled": connection.execute("SELECT count(*) FROM events WHERE handled = 0").fetchone()[0],
                "unfinished_claims": connection.execute("SELECT count(*) FROM claims WHERE state != 'finished'").fetchone()[0],
            }
            outcomes = connection.execute("SELECT outcome, count(*) AS number FROM decisions GROUP BY outcome ORDER BY outcome")
            return counts | {f"decision_{row['outcome']}": row["number"] for row in outcomes}

    # ---

    def _retrainings(self, connection: sqlite3.Connection) -> list[Retraining]:
        rows = connection.execute(
            "SELECT d.cause, d.event_time, d.run, c.state, c.outcome FROM decisions d LEFT JOIN claims c ON c.cause = d.cause "
            "WHERE d.outcome = 'retrain' ORDER BY d.event_time"
        )
        return [Retraining(row["cause"], parse_moment(row["event_time"]), _retraining_state(row)) for row in rows]

    def _events(self, where: str) -> list[Alert | Performance]:
        kinds: dict[str, type[Alert] | type[Performance]] = {"Alert": Alert, "Performance": Performance}
        with self._connection() as connection:
            rows = connection.execute(f"SELECT kind, body, event_time FROM events {where} ORDER BY rowid").fetchall()  # noqa: S608  `where` is ours
        ordered = sorted(rows, key=lambda row: parse_moment(row["event_time"]))  # stable: what arrived first goes first
        return [kinds[row["kind"]].model_validate_json(row["body"]) for row in ordered]

    def _claim(self, connection: sqlite3.Connection, cause: str) -> Claim:
        row = connection.execute("SELECT * FROM claims WHERE cause = ?", (cause,)).fetchone()
        if row is None:
            raise CrisplineError(f"cause {cause} has no claim in {self.file}")
        return _claim(row)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.file, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
        finally:
            connection.close()


def _claim(row: sqlite3.Row) -> Claim:
    values = dict(row) | {"parameters": json.loads(row["parameters"]), "event_time": parse_moment(row["event_time"])}
    return Claim(**values)


def _retraining_state(row: sqlite3.Row) -> Any:
    if not row["run"]:
        return "dry_run"
    if row["state"] != "finished":
        return "open"
    return "failed" if row["outcome"] == "failed" else "succeeded"


def _dump(decision: Decision) -> str:
    return json.dumps(asdict(decision) | {"event_time": format_moment(decision.event_time)})


def _decision(body: str) -> Decision:
    values = json.loads(body)
    return Decision(**(values | {"event_time": parse_moment(values["event_time"])}))
