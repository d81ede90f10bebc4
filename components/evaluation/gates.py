"""The gates: every condition of the use case held against what was measured, as one record. A refusal is a result, not an error.

Which number decides:
- `threshold`, `baseline`, `champion`, `robustness`, `leakage`: the interval's end on the cautious side, so chance does not promote a model.
- `slice`: the estimate of each part that can be judged. With a dozen parts some interval always reaches below a limit by chance, so the
  cautious end would refuse every model; sparse parts are protected by `minimum_rows` and listed as not judged.
- `latency`: the 95th percentile of one row. `size`: the files' bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import JsonValue

from components.contracts.evaluation import EvaluationResult, GateReport, GateVerdict, MetricValue
from components.contracts.loading import LoadedUseCase
from components.contracts.records import Lineage, Record, record_id
from components.contracts.usecase import HIGHER_IS_BETTER, Evaluation, Gate


def judge(usecase: LoadedUseCase, result: EvaluationResult, cause: str, event_time: datetime) -> Record:
    """The decision as a record of kind `gates`, outcome `passed` or `failed`. The same evaluation and cause give the same record."""
    report = judge_gates(usecase.config.evaluation, result)
    details: dict[str, JsonValue] = {
        "evaluation": result.id,
        "gates": [verdict.model_dump(mode="json") for verdict in report.verdicts],
        "not_judged": [*sorted({part for verdict in report.verdicts for part in verdict.not_judged})],
        "warnings": [verdict.why for verdict in report.verdicts if verdict.outcome == "failed" and not verdict.blocking],
    }
    return Record(
        kind="gates",
        id=record_id("gates", result.usecase, result.id, cause),
        usecase=result.usecase,
        event_time=event_time,
        outcome=report.outcome,
        reason=report.reason,
        inputs={verdict.name: verdict.decisive for verdict in report.verdicts},
        thresholds={verdict.name: verdict.limit for verdict in report.verdicts},
        details=details,
        lineage=lineage_of(result, cause),
    )


def judge_gates(evaluation: Evaluation, result: EvaluationResult) -> GateReport:
    """Every gate's verdict, in the order of usecase.yaml."""
    verdicts = tuple(_JUDGES[gate.kind](gate, result) for gate in evaluation.gates)
    refusing = [verdict for verdict in verdicts if verdict.outcome == "failed" and verdict.blocking]
    warning = [verdict for verdict in verdicts if verdict.outcome == "failed" and not verdict.blocking]
    unjudged = sorted({part for verdict in verdicts for part in verdict.not_judged})
    sentences = [
        f"Refused by {len(refusing)} of {len(verdicts)} gates: " + "; ".join(f"{verdict.name}: {verdict.why}" for verdict in refusing)
        if refusing
        else f"All {sum(verdict.blocking for verdict in verdicts)} blocking gates passed",
        *(["Warnings: " + "; ".join(f"{verdict.name}: {verdict.why}" for verdict in warning)] if warning else []),
        *([f"Not judged for lack of rows or classes: {', '.join(unjudged)}"] if unjudged else []),
    ]
    return GateReport(outcome="failed" if refusing else "passed", reason=". ".join(sentences) + ".", verdicts=verdicts)


def lineage_of(result: EvaluationResult, cause: str) -> Lineage:
    return Lineage(
        data_version=result.data_version,
        dataset=result.dataset,
        model_version=result.model_version,
        champion=result.champion,
        cause=cause,
        code_version=result.code_version,
    )


def in_words(value: MetricValue) -> str:
    return f"{value.value:.4g} ({value.low:.4g} to {value.high:.4g})"


def _threshold(gate: Gate, result: EvaluationResult) -> GateVerdict:
    assert gate.metric is not None, "components.contracts.consistency refuses such a gate"
    value = result.metrics.get(gate.metric)
    if value is None:
        return _undecided(gate, f"{gate.metric} cannot be computed on the test split in half of the bootstrap's draws")
    higher = HIGHER_IS_BETTER[gate.metric]
    decisive = value.low if higher else value.high
    return _verdict(gate, f"{gate.metric} is {in_words(value)}, its {'lower' if higher else 'upper'} end", value, decisive, at_least=higher)


def _baseline(gate: Gate, result: EvaluationResult) -> GateVerdict:
    """Both the constant and the simple model must be beaten; the smaller improvement decides."""
    assert gate.metric is not None
    found = [
        (each.differences[gate.metric].improvement, f"{each.kind} model")
        for each in result.comparisons
        if each.kind in ("simple", "constant") and gate.metric in each.differences
    ]
    if not found:
        return _undecided(gate, "there is no baseline to compare with")
    value, name = min(found, key=lambda each: each[0].low)
    return _verdict(gate, f"improvement of {gate.metric} over the {name} is {in_words(value)}, its lower end", value, value.low, at_least=True, subject=name)


def _champion(gate: Gate, result: EvaluationResult) -> GateVerdict:
    assert gate.metric is not None
    comparison = result.comparison("champion")
    if not result.champion:
        return GateVerdict(
            name=gate.name,
            kind=gate.kind,
            blocking=gate.blocking,
            outcome="passed",
            limit=gate.limit,
            metric=gate.metric,
            subject="no champion",
            why="no champion: nothing is in service yet, so there is nothing to be worse than",
        )
    if comparison is None or gate.metric not in comparison.differences:
        return _undecided(gate, f"{gate.metric} could not be compared with the champion {result.champion}")
    loss = comparison.differences[gate.metric].improvement.negated
    why = f"loss of {gate.metric} against the champion on the same {comparison.rows} rows is {in_words(loss)}, its upper end"
    return _verdict(gate, why, loss, loss.high, at_least=False, subject=result.champion)


def _slice(gate: Gate, result: EvaluationResult) -> GateVerdict:
    assert gate.metric is not None
    parts = [part for part in result.slices if part.slice == gate.slice]
    unjudged = tuple(f"{part.slice} {part.part} ({part.why_not})" for part in parts if not part.judged)
    judged = [(part.metrics[gate.metric], part) for part in parts if part.judged]
    if not judged:
        return _undecided(gate, f"no part of slice {gate.slice} can be judged", unjudged)
    higher = HIGHER_IS_BETTER[gate.metric]
    value, worst = (min if higher else max)(judged, key=lambda each: each[0].value)
    beyond = [part.part for each, part in judged if (each.value < gate.limit if higher else each.value > gate.limit)]
    what = f"{gate.metric} is worst in {gate.slice} {worst.part} with {in_words(value)}" + (f", beyond the limit in {', '.join(beyond)}" if beyond else "")
    return _verdict(gate, f"{what}; the estimate", value, value.value, at_least=higher, subject=f"{worst.slice} {worst.part}", not_judged=unjudged)


def _robustness(gate: Gate, result: EvaluationResult) -> GateVerdict:
    assert gate.metric is not None
    found = [(each.loss[gate.metric], each.name) for each in result.robustness.disturbances if each.judged and gate.metric in each.loss]
    if not found:
        return _undecided(gate, "no disturbance could be measured")
    loss, name = max(found, key=lambda each: each[0].high)
    return _verdict(gate, f"{gate.metric} loses most with {name}: {in_words(loss)}, its upper end", loss, loss.high, at_least=False, subject=name)


def _leakage(gate: Gate, result: EvaluationResult) -> GateVerdict:
    if not result.leakage:
        return _undecided(gate, "no feature could be judged alone")
    worst = max(result.leakage, key=lambda each: each.auc.high)
    why = f"the most telling single feature is {worst.feature} with an AUC of {in_words(worst.auc)}, its upper end"
    return _verdict(gate, why, worst.auc, worst.auc.high, at_least=False, subject=worst.feature)


def _latency(gate: Gate, result: EvaluationResult) -> GateVerdict:
    measured = result.latency
    why = f"one row takes {measured.one_row_median_ms:.3g} ms in the median; the 95th percentile of {measured.repeats}"
    return _verdict(gate, why, None, measured.one_row_p95_ms, at_least=False, unit=" ms")


def _size(gate: Gate, result: EvaluationResult) -> GateVerdict:
    return _verdict(gate, "the model's files together, in megabytes", None, result.size_megabytes, at_least=False, unit=" MB")


_JUDGES: dict[str, Callable[[Gate, EvaluationResult], GateVerdict]] = {
    "threshold": _threshold,
    "baseline": _baseline,
    "champion": _champion,
    "slice": _slice,
    "robustness": _robustness,
    "leakage": _leakage,
    "latency": _latency,
    "size": _size,
}


def _verdict(
    gate: Gate, why: str, value: MetricValue | None, decisive: float, *, at_least: bool, subject: str = "", unit: str = "", not_judged: tuple[str, ...] = ()
) -> GateVerdict:
    passed = decisive >= gate.limit if at_least else decisive <= gate.limit
    bound = "at least" if at_least else "at most"
    return GateVerdict(
        name=gate.name,
        kind=gate.kind,
        blocking=gate.blocking,
        outcome="passed" if passed else "failed",
        limit=gate.limit,
        metric=gate.metric,
        subject=subject,
        why=f"{why}, {decisive:.4g}{unit}, {'is' if passed else 'is not'} {bound} {gate.limit:g}{unit}",
        value=decisive if value is None else value.value,
        low=None if value is None else value.low,
        high=None if value is None else value.high,
        decisive=decisive,
        not_judged=not_judged,
    )


def _undecided(gate: Gate, why: str, not_judged: tuple[str, ...] = ()) -> GateVerdict:
    """Nothing to judge by is no reason to pass."""
    return GateVerdict(
        name=gate.name,
        kind=gate.kind,
        blocking=gate.blocking,
        outcome="failed",
        limit=gate.limit,
        metric=gate.metric,
        why=f"{why}, and what cannot be judged does not pass",
        not_judged=not_judged,
    )
