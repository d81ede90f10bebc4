"""Evaluation's quality checks as records: the evidence for the risks that the use case declares (CRISP-ML(Q))."""

from __future__ import annotations

from datetime import datetime

from components.contracts.evaluation import EvaluationResult, GateReport, GateVerdict
from components.contracts.records import Record, record_id
from components.evaluation.gates import lineage_of

CHECKS = ("leakage", "baseline", "champion_comparison", "slices", "calibration", "robustness", "reproducibility", "latency")


def check_of(verdict: GateVerdict) -> str | None:
    """The quality check that a gate is evidence for; None for a gate that covers no check by itself (a threshold on AUC)."""
    if verdict.kind == "threshold":
        return "calibration" if verdict.metric == "calibration_error" else None
    if verdict.kind == "freshness":  # the check of this name is the server's
        return None
    return {
        "champion": "champion_comparison",
        "slice": "slices",
        "slice_champion": "slices",
        "fairness": "slices",
        "label_shuffle": "leakage",
        "size": "latency",
    }.get(verdict.kind, verdict.kind)


def check_records(report: GateReport, result: EvaluationResult, cause: str, event_time: datetime) -> list[Record]:
    """One record per check of this phase. Without a gate for it a check has measured but nothing to hold it against: outcome `not_judged`."""
    records = []
    for check in CHECKS:
        verdicts = [verdict for verdict in report.verdicts if check_of(verdict) == check]
        outcome = "failed" if any(verdict.outcome == "failed" for verdict in verdicts) else "passed" if verdicts else "not_judged"
        records.append(
            Record(
                kind="check",
                id=record_id("check", check, result.usecase, result.id, cause),
                usecase=result.usecase,
                event_time=event_time,
                outcome=outcome,
                reason="; ".join(f"{verdict.name}: {verdict.why}" for verdict in verdicts) or "no gate in usecase.yaml sets a limit; see the evaluation report",
                inputs={verdict.name: verdict.decisive for verdict in verdicts},
                thresholds={verdict.name: verdict.limit for verdict in verdicts},
                details={"check": check, "evaluation": result.id, "not_judged": [part for verdict in verdicts for part in verdict.not_judged]},
                lineage=lineage_of(result, cause),
            )
        )
    return records
