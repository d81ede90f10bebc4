"""The gates: every condition of the use case held against what was measured, as one record. A refusal is a result, not an error.

Which number decides:
- `threshold`, `baseline`, `champion`, `robustness`, `leakage`: the interval's end on the cautious side, so chance does not promote a model.
- `slice`: the estimate of each part that can be judged. With a dozen parts some interval always reaches below a limit by chance, so the
  cautious end would refuse every model; sparse parts are protected by `minimum_rows` and listed as not judged.
- `slice_champion`: the other way round: refused when a part is worse by more than the limit beyond chance, with bounds that hold for all
  parts at once (`components.evaluation.simultaneous`). `champion` already asks for proof that the whole is not worse.
- `fairness`: the estimate, between the parts that can be judged. `label_shuffle`: the interval's upper end. `freshness`: the worst view.
- `reproducibility`: the largest difference of a probability. `latency`: the 95th percentile of one row. `size`: the files' bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from pydantic import JsonValue

from components.contracts.evaluation import EvaluationResult, GateReport, GateVerdict, MetricValue, SlicePart
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
    unjudged = _unjudged(parts)
    judged = [(part.metrics[gate.metric], part) for part in parts if part.judged]
    if not judged:
        return _undecided(gate, f"no part of slice {gate.slice} can be judged", unjudged)
    higher = HIGHER_IS_BETTER[gate.metric]
    value, worst = (min if higher else max)(judged, key=lambda each: each[0].value)
    beyond = [part.part for each, part in judged if (each.value < gate.limit if higher else each.value > gate.limit)]
    what = f"{gate.metric} is worst in {gate.slice} {worst.part} with {in_words(value)}" + (f", beyond the limit in {', '.join(beyond)}" if beyond else "")
    return _verdict(gate, f"{what}; the estimate", value, value.value, at_least=higher, subject=f"{worst.slice} {worst.part}", not_judged=unjudged)


def _unjudged(parts: Iterable[SlicePart]) -> tuple[str, ...]:
    return tuple(f"{part.slice} {part.part} ({part.why_not})" for part in parts if not part.judged)


def _slice_champion(gate: Gate, result: EvaluationResult) -> GateVerdict:
    assert gate.metric is not None
    if not result.champion:
        return _champion(gate, result)
    comparison = result.comparison("champion")
    wanted = [part for part in result.slices if gate.slice in (None, part.slice)]
    unjudged = _unjudged(wanted)
    parts = [each for each in (comparison.parts if comparison is not None else ()) if gate.slice in (None, each.slice) and gate.metric in each.loss]
    if not parts:
        return _undecided(gate, f"no part could be compared with the champion {result.champion} by {gate.metric}", unjudged)
    worst = max(parts, key=lambda each: each.loss[gate.metric].low)  # type: ignore[index]
    loss = worst.loss[gate.metric]
    why = f"{gate.metric} loses most surely in {worst.slice} {worst.part}, {in_words(loss)} for all {len(parts)} parts at once; its lower end"
    return _verdict(gate, why, loss, loss.low, at_least=False, subject=f"{worst.slice} {worst.part}", not_judged=unjudged)


def _fairness(gate: Gate, result: EvaluationResult) -> GateVerdict:
    """The largest difference of the rate between two parts of one protected attribute; parts of few rows are listed, not judged."""
    assert gate.rate is not None
    protected = [part for part in result.slices if part.protected]
    unjudged = _unjudged(protected)
    rates: dict[str, dict[str, float]] = {}
    for part in protected:
        rate = getattr(part.decisions, gate.rate, None)
        if part.judged and rate is not None:
            rates.setdefault(part.slice, {})[part.part] = rate
    gaps = {name: (max(found.values()) - min(found.values()), found) for name, found in rates.items() if len(found) > 1}
    if not gaps:
        return _undecided(gate, "no protected attribute has two parts that can be judged", unjudged)
    name, (gap, found) = max(gaps.items(), key=lambda each: each[1][0])
    low, high = min(found, key=lambda part: found[part]), max(found, key=lambda part: found[part])
    why = f"{gate.rate.replace('_', ' ')} is {found[high]:.3f} for {name} {high} and {found[low]:.3f} for {low}; the difference"
    return _verdict(gate, why, None, gap, at_least=False, subject=f"{name}: {high} against {low}", not_judged=unjudged)


def _label_shuffle(gate: Gate, result: EvaluationResult) -> GateVerdict:
    found = result.shuffled_labels
    if found is None:
        return _undecided(gate, "nothing was learned from shuffled labels")
    why = f"models of shuffled labels rank the true ones with an AUC of {in_words(found.auc)} (mean of {found.shuffles}), its upper end"
    return _verdict(gate, why, found.auc, found.auc.high, at_least=False)


def _freshness(gate: Gate, result: EvaluationResult) -> GateVerdict:
    if not result.freshness:
        return _undecided(gate, "the model uses no feature view whose freshness could be judged")
    worst = result.freshness[0]
    return _verdict(gate, f"share of test rows without a fresh value, worst in {worst.view}", None, worst.stale_share, at_least=False, subject=worst.view)


def _reproducibility(gate: Gate, result: EvaluationResult) -> GateVerdict:
    found = result.reproduction
    if found is None:
        return _undecided(gate, "the model came without the record of its training")
    what = "with the same bytes" if found.same_bytes else "with other bytes"
    return _verdict(gate, f"trained again from its record, {what}; the largest difference of a probability", None, found.largest_difference, at_least=False)


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
    "slice_champion": _slice_champion,
    "fairness": _fairness,
    "label_shuffle": _label_shuffle,
    "freshness": _freshness,
    "reproducibility": _reproducibility,
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
