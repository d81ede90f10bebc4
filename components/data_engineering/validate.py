"""Hold one ingested period against the contract and against what came before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

import pandas as pd

from components.contracts.artifacts import DataVersion
from components.contracts.durations import format_duration, format_moment
from components.contracts.errors import InvalidData
from components.contracts.loading import LoadedUseCase
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.contracts.usecase import Table
from components.data_engineering.contract_schema import breaches, group_schema
from components.data_engineering.labels import labels_as_of
from components.data_engineering.lake import KNOWN_AT, groups, periods, read_group

SAMPLE_ROWS = 5
# Below this many rows the sampling error of a share or of a volume (one standard deviation: five points, a tenth) hides what is looked for.
ENOUGH_ROWS = 100
EARLIER_PERIODS = 3


@dataclass(frozen=True)
class Finding:
    """One check of one table. `not_judged` says why in `message` and stops nothing. `sample`: rows as text, column by column."""

    table: str
    check: Literal["contract", "unique_key", "volume", "freshness", "label_share"]
    outcome: Literal["passed", "failed", "not_judged"]
    message: str
    column: str = ""
    rows: int = 0
    sample: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Validation:
    usecase: str
    data_version: DataVersion
    start: datetime
    end: datetime
    rows: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.outcome == "failed")

    @property
    def passed(self) -> bool:
        return not self.failures


def validate_period(usecase: LoadedUseCase, lake_uri: str, version: DataVersion, start: datetime, end: datetime) -> Validation:
    """Check all rows that became known in [start, end) at the recorded version. Everything found is returned, not only the first breach.

    Of earlier rows only key and moments are read. Business time alone decides: freshness is judged at `end`.
    """
    findings: list[Finding] = []
    counts: dict[str, int] = {}
    edges = [period.end for period in periods(lake_uri, usecase.name) if period.end < start] + [start]
    for table, group in groups(usecase.config):
        contract, name = usecase.config.data.tables[table], f"{table}.{group}"
        rows = read_group(lake_uri, version, table, group, known_from=start, known_before=end)
        moments = read_group(lake_uri, version, table, group, columns=list(dict.fromkeys([*contract.key, contract.event_time])))
        counts[name] = len(rows)
        findings += _contract(usecase, table, group, rows, start, end)
        findings.append(_unique_key(name, contract, rows, moments, start))
        if contract.minimum_rows_per_day:
            latest = contract.known_at[group].latest
            findings += _volume(name, contract, moments[contract.event_time], latest, edges, end)
            findings.append(_freshness(usecase, lake_uri, version, table, group, moments, start, end))
    findings.append(_label_share(usecase, lake_uri, version, start, end))
    return Validation(usecase.name, version, start, end, counts, tuple(findings))


def validation_record(validation: Validation) -> Record:
    """The evidence of the quality check `data_validation`."""
    failures = validation.failures
    return Record(
        kind="check",
        id=record_id(validation.usecase, "data_validation", validation.data_version.id, validation.start, validation.end),
        usecase=validation.usecase,
        event_time=validation.end,
        outcome="passed" if validation.passed else "failed",
        reason="; ".join(f"{finding.table}: {finding.message}" for finding in failures[:5]) or "every row holds the contract",
        inputs={"start": format_moment(validation.start), "end": format_moment(validation.end), "rows": dict(validation.rows)},
        details={
            "check": "data_validation",
            "findings": [{"table": f.table, "check": f.check, "column": f.column, "outcome": f.outcome, "message": f.message} for f in validation.findings],
        },
        lineage=Lineage(data_version=validation.data_version.id),
    )


def refuse_failed(records: RecordStore, version: DataVersion) -> None:
    """Raises InvalidData when a validation of this version is on record as failed: nothing may be built on it or appended to it."""
    for record in records.list("check"):
        if record.details.get("check") == "data_validation" and record.lineage.data_version == version.id and record.outcome == "failed":
            raise InvalidData(
                f"data version {version.id} (as of {format_moment(version.as_of)}) failed its validation: {record.reason}. Correct source.py, take the "
                "period back with `crispline step data_engineering.withdraw`, and ingest it again"
            )


def _contract(usecase: LoadedUseCase, table: str, group: str, rows: pd.DataFrame, start: datetime, end: datetime) -> list[Finding]:
    name = f"{table}.{group}"
    schema = group_schema(usecase.config, table, group, start, end)
    found = breaches(schema, rows)
    found = found[~found["check"].astype(str).str.contains("unique")]  # judged with all earlier rows by _unique_key
    if found.empty:
        return [Finding(name, "contract", "passed", f"{len(rows)} rows hold types, ranges, categories and nulls")]
    findings = []
    for (column, check), cases in found.groupby(["column", "check"], dropna=False, sort=False):
        places = cases["index"].dropna().astype(int)
        affected = rows.loc[places] if len(places) else rows
        message = f"{len(cases)} of {len(rows)} rows break `{check}`; found {', '.join(map(repr, cases['value'].head(3)))}"
        findings.append(Finding(name, "contract", "failed", message, str(column), len(cases), _sample(affected)))
    return findings


def _unique_key(name: str, contract: Table, rows: pd.DataFrame, moments: pd.DataFrame, start: datetime) -> Finding:
    keys = _keys(rows, contract)
    earlier = _keys(moments[moments[KNOWN_AT] < pd.Timestamp(start)], contract)
    repeated = keys.duplicated(keep=False) | keys.isin(earlier)
    column = ", ".join(contract.key)
    if not repeated.any():
        return Finding(name, "unique_key", "passed", "no key occurs twice, nor did one before", column)
    message = f"{int(repeated.sum())} rows have a key that occurs more than once, here or in an earlier period"
    return Finding(name, "unique_key", "failed", message, column, int(repeated.sum()), _sample(rows[repeated]))


def _volume(name: str, contract: Table, events: pd.Series[Any], latest: timedelta, edges: list[datetime], end: datetime) -> list[Finding]:
    """Events per day that must be known by each period's end: against the declared minimum and the median of the earlier periods.

    A period's events lie between its start and its end, both moved back by `latest`, so a group that is known late is not judged too early.
    """
    if events.empty or events.min() > pd.Timestamp(end - latest):
        return [Finding(name, "volume", "not_judged", "no event is old enough that it must be known by now")]
    start = max(pd.Timestamp(edges[-1] - latest), events.min().floor("D"))
    days = (pd.Timestamp(end - latest) - start) / pd.Timedelta(days=1)
    if days < 1:
        return [Finding(name, "volume", "not_judged", f"{days:.1f} days are too short to judge a volume that changes over the day")]
    rate = int(events.between(start, pd.Timestamp(end - latest), inclusive="left").sum()) / days
    findings = []
    if rate < contract.minimum_rows_per_day:
        findings.append(Finding(name, "volume", "failed", f"{rate:.0f} rows a day, fewer than minimum_rows_per_day {contract.minimum_rows_per_day:g}"))
    bounds = [pd.Timestamp(edge - latest) for edge in edges]
    earlier = [
        int(events.between(first, last, inclusive="left").sum()) / ((last - first) / pd.Timedelta(days=1))
        for first, last in pairwise(bounds)
        if first >= events.min() and last - first >= pd.Timedelta(days=1)
    ]
    if len(earlier) < EARLIER_PERIODS:
        return findings or [Finding(name, "volume", "passed", f"{rate:.0f} rows a day; fewer than {EARLIER_PERIODS} earlier periods to compare with")]
    usual, limit = float(pd.Series(earlier).median()), contract.maximum_volume_change
    if not usual / limit <= rate <= usual * limit:
        findings.append(Finding(name, "volume", "failed", f"{rate:.0f} rows a day against usually {usual:.0f}: more than a factor of {limit:g}"))
    return findings or [Finding(name, "volume", "passed", f"{rate:.0f} rows a day against usually {usual:.0f}")]


def _freshness(
    usecase: LoadedUseCase, lake_uri: str, version: DataVersion, table: str, group: str, moments: pd.DataFrame, start: datetime, end: datetime
) -> Finding:
    """The table's earliest group: was anything heard in the last day? The others: is every row there that is due by `latest`?"""
    contract, name = usecase.config.data.tables[table], f"{table}.{group}"
    first = min(contract.known_at, key=lambda other: contract.known_at[other].latest)
    latest = contract.known_at[group].latest
    if group == first:
        if moments.empty:
            return Finding(name, "freshness", "not_judged", "nothing was ever delivered")
        newest = moments[contract.event_time].max()
        limit = max(latest, timedelta(days=1))
        message = f"the newest event is of {newest:%Y-%m-%d %H:%M} UTC, the period ends at {end:%Y-%m-%d %H:%M}"
        fresh = newest >= pd.Timestamp(end - limit)
        return Finding(name, "freshness", "passed" if fresh else "failed", message + ("" if fresh else f": older than {format_duration(limit)}"))
    base = read_group(lake_uri, version, table, first, columns=[*contract.key, contract.event_time])
    due = base[base[contract.event_time].between(pd.Timestamp(start - latest), pd.Timestamp(end - latest), inclusive="left")]
    if due.empty:
        return Finding(name, "freshness", "not_judged", f"no row is due: nothing happened {format_duration(latest)} before this period")
    overdue = due[~_keys(due, contract).isin(_keys(moments, contract))]
    share = len(overdue) / len(due)
    message = f"{len(overdue)} of {len(due)} rows ({share:.1%}) are not known {format_duration(latest)} after the event"
    failed = share > contract.maximum_overdue_share
    return Finding(name, "freshness", "failed" if failed else "passed", message, contract.event_time, len(overdue), _sample(overdue) if failed else [])


def _label_share(usecase: LoadedUseCase, lake_uri: str, version: DataVersion, start: datetime, end: datetime) -> Finding:
    """Share of positive labels that became known in the period (at least one monitoring window) against all earlier ones."""
    label, limit = usecase.config.data.label, usecase.config.data.maximum_label_share_change
    name = f"{label.table}.{label.group}"
    contract = usecase.config.data.tables[label.table]
    columns = list(dict.fromkeys([*contract.key, label.column, label.outcome_column]))
    outcomes = read_group(lake_uri, version, label.table, label.group, columns=columns)
    outcomes = outcomes[outcomes[label.outcome_column].isin([label.labelled_outcome, *label.outcomes])]
    outcomes = outcomes[(outcomes[label.outcome_column] != label.labelled_outcome) | outcomes[label.column].notna()]
    labels = labels_as_of(usecase, outcomes, end).dropna(subset=["label"])
    recent = labels["label_known_at"] >= pd.Timestamp(min(start, end - usecase.config.monitoring.window))
    if min(int(recent.sum()), int((~recent).sum())) < ENOUGH_ROWS:
        return Finding(name, "label_share", "not_judged", f"fewer than {ENOUGH_ROWS} labels in the period or before it", label.column)
    now, before = float(labels.loc[recent, "label"].mean()), float(labels.loc[~recent, "label"].mean())
    failed = abs(now - before) > limit
    message = f"{now:.1%} positive labels against {before:.1%} before" + (f": a change of more than {limit:g}" if failed else "")
    return Finding(name, "label_share", "failed" if failed else "passed", message, label.column, int(recent.sum()))


def _keys(rows: pd.DataFrame, contract: Table) -> pd.Index[Any]:
    """One hashable value per row; a MultiIndex would sort all of them first."""
    columns = [rows[name] for name in contract.key]
    return pd.Index(columns[0]) if len(columns) == 1 else pd.Index(list(zip(*columns, strict=True)), tupleize_cols=False)


def _sample(rows: pd.DataFrame) -> list[dict[str, str]]:
    return [{str(name): str(value) for name, value in row.items()} for row in rows.head(SAMPLE_ROWS).to_dict("records")]
