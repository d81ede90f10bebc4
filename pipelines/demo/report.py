"""`report.html`: what the loop did with a year of data, on one self-contained page that a person understands in a minute.

Everything on it is read from the records, the prediction log and the label tables; nothing is remembered by the loop itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from components.contracts.events import Alert, Performance
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.contracts.records import Record, RecordStore
from components.contracts.report_page import Badge, Details, Facts, Figure, Link, Section, Table, Text, Tone, Verdict, page
from components.contracts.runs import Run
from components.contracts.storage import write_atomically
from components.contracts.usecase import QUALITY_CHECKS, Metric, Quality
from pipelines.demo import figures
from pipelines.demo.drift_history import DriftHistory
from pipelines.demo.figures import Happening
from pipelines.demo.policies import PolicyComparison
from pipelines.runners.environments import ROOT
from pipelines.runners.runs import RunDetails, RunStore
from pipelines.scorecard.catalogue import SECTIONS
from pipelines.scorecard.score import scorecard

PHASES = ("business", "data", "features", "model", "evaluation", "deployment", "monitoring", "retraining")
HTML_ARTIFACTS = ("report", "model_card")
_TONES: dict[str, Tone] = {
    "passed": "good", "go": "good", "promoted": "good", "paid": "good", "retrain": "info", "failed": "bad", "no_go": "bad", "page": "bad", "did_not_pay": "bad",
}  # fmt: skip

_MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)T00:00:00Z")
_TERMS = re.compile(rf"\b(?:{'|'.join((*get_args(Metric), *get_args(Alert.model_fields['kind'].annotation)))})\b")


def in_words(reason: str) -> str:
    """A record's reason as a person writes it: days without their midnight, terms without underscores."""
    days = _MIDNIGHT.sub(lambda found: f"{date.fromisoformat(found[1]):%-d %b}", reason)
    return _TERMS.sub(lambda found: found[0].replace("_", " "), days)


@dataclass(frozen=True)
class LoopFacts:
    """What only the loop knows: how it was run. `sample` is the replayed share of all rows; `requests` and `rows` were answered with 200."""

    start: datetime
    end: datetime
    sample: float
    requests: int
    rows: int
    seconds: float
    finished: bool


def write_report(usecase: LoadedUseCase, platform: Platform, state: Path, facts: LoopFacts, comparison: PolicyComparison | None, drift: DriftHistory) -> Path:
    """Write `<state>/report.html` and return its path. Links are relative to the state folder."""
    records = RecordStore(platform.records_uri)
    story = _Story(
        usecase,
        platform,
        state,
        performance=[Performance.model_validate(record.details) for record in records.list("performance")],
        records={
            kind: list(records.list(kind))
            for kind in (
                "alert",
                "retrain_decision",
                "gates",
                "promotion",
                "run",
                "training",
                "consumer_action",
                "check",
                "feasibility",
                "feedback_summary",
                "data_version",
            )
        },  # type: ignore[arg-type]
        runs=RunStore(state).list(),
    )
    sections = [
        Section("Live performance", story.performance_blocks(), "performance"),
        *([Section("Would another policy have done better?", story.policy_blocks(comparison), "policies")] if comparison else []),
        Section("Every decision and its reason", story.decision_blocks(), "decisions"),
        Section("Models in service", story.lineage_blocks(), "lineage"),
        Section("Drift of each feature", story.drift_blocks(drift), "drift"),
        Section("What acting on it came to", story.consumer_blocks(), "consumer"),
        Section("Risks and the checks that cover them", story.risk_blocks(), "risks"),
        Section("ML Test Score", story.score_blocks(), "score"),
        Section("Everything else", story.link_blocks(), "links"),
    ]
    text = page(
        f"{usecase.name}: the loop from {facts.start:%B} to {facts.end - timedelta(days=1):%B %Y}",
        sections,
        subtitle=usecase.config.description,
        lead=story.lead(facts, comparison),
        footer="Written by crispline from its records. Moments are business time, UTC.",
    )
    path = state / "report.html"
    write_atomically(path, text.encode())
    return path


@dataclass(frozen=True)
class _Story:
    usecase: LoadedUseCase
    platform: Platform
    state: Path
    performance: Sequence[Performance]
    records: Mapping[str, Sequence[Record]]
    runs: Sequence[RunDetails]

    @property
    def window(self) -> str:
        return "week" if self.usecase.config.monitoring.window == timedelta(days=7) else "window"

    @property
    def threshold(self) -> float:
        return self.usecase.config.retraining.threshold

    @property
    def metric(self) -> str:
        return self.usecase.config.retraining.metric.replace("_", " ")

    def measured(self) -> list[Performance]:
        return sorted((row for row in self.performance if row.kind == "measured"), key=lambda row: row.window_start)

    def lead(self, facts: LoopFacts, comparison: PolicyComparison | None) -> list[Any]:
        measured = self.measured()
        below = [row for row in measured if row.high < self.threshold]
        kept = bool(measured) and all(row.value >= self.threshold for row in measured)
        promoted, refused = self._count("gates", "passed"), self._count("gates", "failed")
        retrained = self._count("retrain_decision", "retrain")
        doubtful = sum(row.value < self.threshold for row in measured) - len(below)
        if not measured:
            headline = "Nothing could be measured yet"
        elif below:
            headline = f"The promise was broken in {len(below)} of {_counted(len(measured), self.window)}"
        elif doubtful:
            headline = f"No {self.window} is surely below the promise; {doubtful} of {len(measured)} lie below it within their error"
        else:
            headline = f"The promise was kept in every {self.window}"
        sentences = (
            f"{self.metric} was promised to stay above {self.threshold:g}. {_counted(len(self.records['alert']), 'alert')} came up, the trigger decided "
            f"{_counted(len(self.records['retrain_decision']), 'time')} and started {_counted(retrained, 'retraining')}; of {_counted(promoted + refused, 'model')} "
            f"that came to the gates, {promoted} passed and {refused} did not."
        )
        if comparison is not None:
            sentences += " " + comparison.sentence(self.metric)
        values: dict[str, object] = {
            "predictions": f"{facts.rows:,}",
            "requests": f"{facts.requests:,}, none dropped",
            "sample": f"{facts.sample:.1%} of all rows",
            f"mean {self.metric}": f"{np.mean([row.value for row in measured]):.3f}" if measured else "not measured",
            f"worst {self.window}": f"{min(row.value for row in measured):.3f}" if measured else "not measured",
            "loop took": f"{facts.seconds:.0f} s" + ("" if facts.finished else " (interrupted)"),
        }
        return [Verdict("good" if kept else "warn", headline, sentences), Facts(values)]

    def performance_blocks(self) -> list[Any]:
        alerts = [
            Happening("alerts", record.event_time, "page" if _alert_kind(record) in ("lost_events", "data_quality") else "alert")
            for record in self.records["alert"]
        ]
        decisions = [Happening("decisions", record.event_time, record.outcome) for record in self.records["retrain_decision"]]
        trainings = [Happening("trainings", record.event_time, record.outcome) for record in self.records["gates"]]
        releases = [Happening("releases", record.event_time, "promoted") for record in self.records["promotion"]]
        svg = figures.timeline(self.performance, [*alerts, *decisions, *trainings, *releases], self.threshold, self.metric)
        return [
            Figure(
                svg,
                f"Each point is one window. The band is the {self.usecase.config.evaluation.confidence:.0%} interval. Green lines are promotions.",
                "Live performance over time",
            ),
            Text(
                "Labels come late, so a window is first estimated and later measured. An estimate assumes that there is no concept drift; the measurement shows whether that held.",
                small=True,
            ),
            Details("The figures", [self._performance_table()]),
        ]

    def _performance_table(self) -> Table:
        rows = []
        for row in sorted(self.performance, key=lambda row: (row.window_start, row.model_version, row.kind)):
            tone: Tone = "bad" if row.high < self.threshold else "good" if row.low >= self.threshold else "info"
            rows.append(
                [
                    f"{row.window_start:%d %b}",
                    f"model {row.model_version}",
                    row.kind,
                    row.value,
                    f"{row.low:.3f} to {row.high:.3f}",
                    row.explained if row.explained is not None else "",
                    row.rows,
                    Badge(tone, {"bad": "below", "good": "above", "info": "not sure"}[tone]),
                ]
            )
        return Table([f"{self.window} of", "model", "kind", self.metric, "interval", "explained by inputs", "rows", "against the promise"], rows)

    def policy_blocks(self, comparison: PolicyComparison) -> list[Any]:
        months, values = comparison.by_month()
        rows = [
            [name, f"{comparison.runs[name]}", *(f"{value:.3f}" for value in series), f"{np.nanmean(series):.3f}", f"{np.nanmin(series):.3f}"]
            for name, series in values.items()
        ]
        return [
            Figure(
                figures.policies(months, values, self.threshold, self.metric),
                f"{self.metric} by month, on the same {comparison.rows:,} replayed and labelled rows.",
                "Policies compared",
            ),
            Table(["policy", "trainings", *months, "mean", "worst"], rows),
            Text(comparison.explanation(), small=True),
        ]

    def decision_blocks(self) -> list[Any]:
        rows = [
            [
                f"{record.event_time:%d %b}",
                Badge(_TONES.get(record.outcome, "info"), record.outcome.replace("_", " ")),
                in_words(record.reason),
                self._link("retrain_decision", record),
            ]
            for record in self.records["retrain_decision"]
        ]
        notable = [row for row, record in zip(rows, self.records["retrain_decision"], strict=True) if record.outcome != "nothing"]
        blocks: list[Any] = [
            Text("The trigger answers one question: is retraining needed to keep performance above the threshold? A no is a decision too, and has its reason.")
        ]
        if notable:
            blocks.append(Table(["when", "decision", "why", ""], notable))
        blocks.append(Details(f"All {len(rows)} decisions", [Table(["when", "decision", "why", ""], rows)]))
        alerts = [
            [f"{record.event_time:%d %b}", _alert_kind(record).replace("_", " "), in_words(record.reason), self._link("alert", record)]
            for record in self.records["alert"]
        ]
        blocks.append(Details(f"All {len(alerts)} alerts", [Table(["window's end", "kind", "what moved", ""], alerts)]))
        return blocks

    def lineage_blocks(self) -> list[Any]:
        rows = []
        for record in self.records["promotion"]:
            lineage = record.lineage
            rows.append(
                [
                    f"{record.event_time:%d %b}",
                    f"model {lineage.model_version}",
                    lineage.cause or "first training",
                    lineage.data_version[:12],
                    lineage.release[:12],
                    self._link("promotion", record),
                ]
            )
        refused = [
            [f"{record.event_time:%d %b}", Badge("bad", "refused"), in_words(record.reason), self._link("gates", record)]
            for record in self.records["gates"]
            if record.outcome == "failed"
        ]
        blocks: list[Any] = [Table(["promoted", "model", "cause", "data version", "release", ""], rows)]
        if refused:
            blocks.append(Table(["judged", "", "why", ""], refused, caption="Models that the gates refused"))
        return blocks

    def drift_blocks(self, drift: DriftHistory) -> list[Any]:
        if not drift.features:
            return [Text("No window was complete enough to be tested.")]
        return [
            Figure(
                figures.drift_heatmap(drift.windows, drift.features, drift.ratios),
                f"Blue is within what the reference period showed between its own {self.window}s; orange and red is beyond the alarm threshold.",
                "Drift per feature over time",
            ),
        ]

    def consumer_blocks(self) -> list[Any]:
        accounts = self.records["consumer_action"]
        if not accounts:
            return [Text("No labels have come yet, so nothing can be said.")]
        frame = pd.DataFrame([{**record.inputs, "month": datetime.fromisoformat(str(record.inputs["window_start"])).strftime("%b")} for record in accounts])
        by_month = frame.groupby("month", sort=False)[["rows", "acted", "right", "false_alarms", "misses", "cost", "cost_without"]].sum()
        currency = self.usecase.config.business.currency
        saved = float(by_month["cost_without"].sum() - by_month["cost"].sum())
        return [
            Text(
                f"{self.usecase.config.business.decision} Over the labelled part of the replay that {'saved' if saved > 0 else 'lost'} {abs(saved):,.0f} {currency} against never acting."
            ),
            Figure(
                figures.costs(list(by_month.index), by_month["cost"].tolist(), by_month["cost_without"].tolist(), currency),
                f"Cost in {currency} by month, of the replayed sample.",
                "Costs",
            ),
        ]

    def risk_blocks(self) -> list[Any]:
        latest: dict[str, Record] = {}
        for record in self.records["check"]:
            latest[str(record.details.get("check"))] = record
        rows = []
        for phase in PHASES:
            quality: Quality = getattr(self.usecase.config, phase).quality
            for risk in quality.risks:
                evidence = latest.get(risk.check)
                result: object = Badge(_TONES.get(evidence.outcome, "info"), evidence.outcome) if evidence else Badge("warn", "no evidence yet")
                rows.append(
                    [
                        phase,
                        risk.risk,
                        QUALITY_CHECKS[risk.check],
                        result,
                        in_words(evidence.reason) if evidence else "",
                        self._link("check", evidence) if evidence else "",
                    ]
                )
        return [Table(["phase", "risk", "covered by", "last result", "evidence", ""], rows)]

    def score_blocks(self) -> list[Any]:
        card = scorecard(self.usecase.folder, ROOT, self.platform)
        rows = [[title, f"{card.section(section):g} of 7"] for section, title in SECTIONS.items()]
        tests = [[SECTIONS[row.test.section], row.test.title, row.points, row.how] for row in card.rows]
        return [
            Text(
                f"{card.score:g}: the lowest section decides. Tests count as they last ran on this state of the code (make test), checks as this loop ran them."
            ),
            Table(["section", "points"], rows),
            Details("The 28 tests", [Table(["section", "test", "points", "how"], tests)]),
        ]

    def link_blocks(self) -> list[Any]:
        kinds = [[kind, len(found), Link(f"records/{kind}", f"records/{kind}/")] for kind, found in self.records.items() if found]
        pages = [[run.name, step, title, Link("open", href)] for run, step, title, href in self._pages()]
        rows = [
            [
                details.run.name,
                details.run.state,
                f"{max(0.0, details.finished - details.started):.1f} s",
                Link("logs and artifacts", f"runs/{details.run.id}/"),
            ]
            for details in self.runs
        ]
        return [
            Table(["record", "count", "folder"], kinds),
            Table(["run", "step", "page", ""], pages, caption="Reports and model cards"),
            Details(f"All {len(rows)} runs of pipelines", [Table(["run", "state", "took", ""], rows)]),
        ]

    def _pages(self) -> Iterator[tuple[Run, str, str, str]]:
        """The HTML artifacts that the runs made themselves: run, step, title, link. One that a cached step handed on is listed where it was made."""
        for details in self.runs:
            for step, artifacts in details.result.get("artifacts", {}).items():
                for name, path in artifacts.items():
                    if name in HTML_ARTIFACTS and step not in details.result.get("cached", []):
                        yield details.run, step.replace("_", " "), name.replace("_", " "), os.path.relpath(path, self.state)

    def _link(self, kind: str, record: Record) -> Link:
        return Link("record", f"records/{kind}/{record.id}.json")

    def _count(self, kind: str, outcome: str) -> int:
        return sum(record.outcome == outcome for record in self.records[kind])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _alert_kind(record: Record) -> str:
    return Alert.model_validate(record.details["alert"]).kind
