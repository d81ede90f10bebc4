"""What the last cycle taught: end users' words and the decisions that were taken, before the next model is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from components.contracts.durations import format_moment
from components.contracts.loading import LoadedUseCase
from components.contracts.records import Record, RecordKind, RecordStore, record_id
from components.contracts.report_page import Badge, Block, Bullets, Facts, Section, Table, Text, Tone, Verdict, page
from components.contracts.serving import Feedback

DECISIONS: tuple[RecordKind, ...] = ("feasibility", "gates", "registration", "promotion", "rollback", "retrain_decision")
_TONES: Mapping[str, Tone] = {"go": "good", "passed": "good", "promoted": "good", "no_go": "bad", "failed": "bad", "refused": "bad", "retrain": "warn"}
SHOWN = 50


@dataclass(frozen=True)
class Cycle:
    """`start` is the business time of the last training; None in the first iteration."""

    start: datetime | None
    as_of: datetime
    feedback: tuple[Feedback, ...]
    decisions: tuple[Record, ...]


def last_cycle(store: RecordStore, usecase: str, feedback: Sequence[Feedback], as_of: datetime) -> Cycle:
    """Feedback and decisions since the last training before `as_of`, in order of business time; all there is before `as_of` without one."""
    trainings = [record.event_time for record in store.list("training") if record.usecase == usecase and record.event_time < as_of]
    start = max(trainings, default=None)
    decisions = [
        record
        for kind in DECISIONS
        for record in store.list(kind)
        if record.usecase == usecase and record.event_time < as_of and (start is None or record.event_time >= start)
    ]
    words = [word for word in feedback if word.event_time < as_of and (start is None or word.event_time >= start)]
    return Cycle(start, as_of, tuple(words), tuple(sorted(decisions, key=lambda record: (record.event_time, record.kind, record.id))))


def summarise(usecase: LoadedUseCase, cycle: Cycle) -> Record:
    """The record `feedback_summary`: counts by kind, reasons by number, and how each decision came out."""
    disputes = sum(word.kind == "dispute" for word in cycle.feedback)
    corrections = len(cycle.feedback) - disputes
    outcomes = Counter(f"{record.kind}: {record.outcome}" for record in cycle.decisions)
    policy = usecase.config.retraining.feedback_for_training
    if cycle.start is None and not cycle.feedback and not cycle.decisions:
        outcome, reason = "nothing", "First iteration: no model has been trained, so there is no feedback and no decision yet."
    else:
        outcome = "summarised"
        use = "may enter training as labels" if policy == "corrections" else "stay out of training"
        reason = f"{disputes} disputes and {corrections} corrections since the last training, which {use}; {len(cycle.decisions)} decisions."
    return Record(
        kind="feedback_summary",
        id=record_id(
            "feedback_summary", usecase.name, cycle.as_of, *[record.id for record in cycle.decisions], *[word.model_dump_json() for word in cycle.feedback]
        ),
        usecase=usecase.name,
        event_time=cycle.as_of,
        outcome=outcome,
        reason=reason,
        inputs={"disputes": disputes, "corrections": corrections, "decisions": dict(sorted(outcomes.items()))},
        thresholds={"feedback_for_training": policy},
        details={
            "since": None if cycle.start is None else format_moment(cycle.start),
            "reasons": dict(_reasons(cycle.feedback)),
            "decision_records": [f"{record.kind}/{record.id}" for record in cycle.decisions],
        },
    )


def summary_page(usecase: LoadedUseCase, cycle: Cycle, record: Record) -> str:
    """The same for people, as one HTML page."""
    tone: Tone = "warn" if cycle.feedback else "info"
    facts = Facts(
        {
            "Since": "the beginning" if cycle.start is None else cycle.start,
            "Until": cycle.as_of,
            "Disputes": record.inputs["disputes"],
            "Corrections": record.inputs["corrections"],
            "Decisions": len(cycle.decisions),
            "Corrections in training": usecase.config.retraining.feedback_for_training,
        }
    )
    return page(
        f"Feedback and decisions: {usecase.name}",
        [Section("What end users said", _words(cycle.feedback)), Section("What was decided", _decisions(cycle.decisions))],
        subtitle=usecase.config.description,
        lead=[Verdict(tone, record.reason), facts],
        footer=f"Record feedback_summary/{record.id}",
    )


def _words(feedback: Sequence[Feedback]) -> list[Block]:
    if not feedback:
        return [Text("Nobody disputed or corrected a prediction in this period.")]
    latest = sorted(feedback, key=lambda word: word.event_time, reverse=True)[:SHOWN]
    table = Table(
        ["moment", "kind", "prediction of", "says", "reason", "by"],
        [[word.event_time, word.kind, word.entity, word.value, word.reason, word.by] for word in latest],
        caption=f"The latest {len(latest)} of {len(feedback)}.",
    )
    return [Text("Reasons, most frequent first:"), Bullets([f"{reason} ({count})" for reason, count in _reasons(feedback)]), table]


def _decisions(decisions: Sequence[Record]) -> list[Block]:
    if not decisions:
        return [Text("No decision was taken in this period.")]
    rows = [
        [record.event_time, record.kind.replace("_", " "), Badge(_TONES.get(record.outcome, "info"), record.outcome), record.reason] for record in decisions
    ]
    return [Table(["moment", "decision", "outcome", "reason"], rows)]


def _reasons(feedback: Sequence[Feedback]) -> list[tuple[str, int]]:
    """The ten most frequent reasons; the same words in another case count as one."""
    counts = Counter(" ".join(word.reason.lower().split())[:200] for word in feedback)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10]
