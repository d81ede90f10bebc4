"""The evaluation report: one self-contained HTML page that says whether the model may be promoted, and shows why."""

from __future__ import annotations

from components.contracts.evaluation import Comparison, EvaluationResult, GateReport, GateVerdict, MetricValue
from components.contracts.loading import LoadedUseCase
from components.contracts.report_page import Badge, Block, Details, Facts, Figure, Section, Table, Text, Tone, Verdict, page
from components.contracts.usecase import HIGHER_IS_BETTER, Metric
from components.evaluation.plots import (
    comparison_plot,
    importance_plot,
    precision_recall_plot,
    reliability_plot,
    robustness_plot,
    roc_plot,
    slice_importance_plot,
    slices_plot,
)
from components.evaluation.quality import quality_table

METRIC_WORDS: dict[Metric, str] = {
    "roc_auc": "chance that a positive row ranks above a negative one; 0.5 is guessing",
    "average_precision": "precision averaged over recall; the share of positives is guessing",
    "brier": "mean squared error of the probability",
    "log_loss": "surprise per row, in nats",
    "expected_cost": "money lost per row at the decision threshold",
    "calibration_error": "mean gap between predicted and observed share",
}


def report_page(usecase: LoadedUseCase, result: EvaluationResult, gates: GateReport) -> str:
    """The whole page."""
    passed = gates.outcome == "passed"
    headline = "The model may be promoted" if passed else "The model is refused"
    lead: list[Block] = [
        Verdict("good" if passed else "bad", headline, gates.reason),
        facts(result),
    ]
    sections = [
        Section("Gates", gate_blocks(gates)),
        Section("Metrics", metric_blocks(usecase, result)),
        Section("Ranking and calibration", _curves(result)),
        Section("Against baselines and champion", comparison_blocks(result)),
        Section("Slices", _slices(usecase, result)),
        Section("Robustness", _robustness(usecase, result)),
        Section("What the model looks at", _explanation(usecase, result)),
        Section("Leakage", _leakage(result)),
        Section("Speed and size", [_speed(result)]),
        Section("Quality risks", quality_table(usecase, gates)),
    ]
    subtitle = f"{usecase.name}, model {result.model_version}: {usecase.config.description}"
    footer = (
        f"Evaluation {result.id}, dataset {result.dataset}, data version {result.data_version}. Intervals: {result.confidence:.0%}, {result.bootstrap_samples} "
        f"bootstrap draws of whole days ({result.bootstrap_days} days), seed {result.seed}, quantiles expanded for few days (Hesterberg 2015)."
    )
    return page("Evaluation", sections, subtitle=subtitle, lead=lead, footer=footer)


def facts(result: EvaluationResult) -> Facts:
    unlabelled = ", ".join(f"{count} {outcome}" for outcome, count in result.outcomes.items()) or "none"
    return Facts(
        {
            "test period": f"{result.test_start:%d %b %Y} to {result.test_end:%d %b %Y}",
            "labelled rows": result.rows,
            "share of positives": f"{result.positives / result.rows:.1%}",
            "without a label (excluded)": unlabelled,
            "decided positive": f"{result.decisions.positive_share:.1%} (probability from {result.decision_threshold:.3f})",
            "champion": result.champion[:12] or "none in service",
        }
    )


def gate_blocks(gates: GateReport) -> list[Block]:
    """The table of all gates, with words beside the colours, and what could not be judged."""
    rows = [[each.name, _badge(each), each.limit, _numbers(each), each.why] for each in gates.verdicts]
    tones: dict[int, Tone] = {number: _tone(each) for number, each in enumerate(gates.verdicts) if each.outcome == "failed"}
    unjudged = sorted({part for each in gates.verdicts for part in each.not_judged})
    blocks: list[Block] = [Table(["gate", "outcome", "limit", "value", "why"], rows, tones=tones)]
    if unjudged:
        blocks.append(Text(f"Not judged, so neither passed nor failed: {'; '.join(unjudged)}."))
    return blocks


def metric_blocks(usecase: LoadedUseCase, result: EvaluationResult) -> list[Block]:
    rows = [
        [metric, value.value, _range(value), "higher" if HIGHER_IS_BETTER[metric] else "lower", METRIC_WORDS[metric]]
        for metric, value in result.metrics.items()
    ]
    business = usecase.config.business
    costs = (
        f"A false alarm costs {business.cost_false_alarm:g} {business.currency}, a miss {business.cost_miss:g} {business.currency}. "
        "Intervals draw whole days, because the rows of one day share its weather and disruptions; drawing rows would make them far too narrow. "
        "The calibration error is above zero even for a perfectly calibrated model, and its interval leans upward."
    )
    return [Table(["metric", "value", f"{result.confidence:.0%} interval", "better", "meaning"], rows), Text(costs, small=True)]


def comparison_blocks(result: EvaluationResult) -> list[Block]:
    blocks: list[Block] = []
    for each in sorted(result.comparisons, key=lambda one: ("champion", "simple", "constant").index(one.kind)):
        blocks.append(_comparison_table(each))
        if each.kind == "champion":
            blocks.append(
                Figure(comparison_plot(each), "Improvement over the champion, paired over the same draws of days. Left of zero: the champion is better.")
            )
            if each.parts:
                blocks.append(_parts_table(each))
    if not result.champion:
        blocks.insert(0, Text("There is no champion yet: this would be the first model in service."))
    blocks.append(Text("Positive improvement: this model is better. An interval that contains zero leaves open who is better.", small=True))
    return blocks


def _parts_table(comparison: Comparison) -> Table:
    rows = [
        [part.slice, part.part, part.rows, metric, loss.value, _range(loss), _who(loss.negated)]
        for part in comparison.parts
        for metric, loss in part.loss.items()
    ]
    ordered = sorted(rows, key=lambda row: -float(str(row[4])))
    return Table(
        ["slice", "part", "rows", "metric", "loss", "bounds", "verdict"],
        ordered,
        caption="Each part against the champion, the largest loss first. The bounds hold for all parts at once.",
    )


def _comparison_table(comparison: Comparison) -> Table:
    names = {"champion": f"Champion, release {comparison.name[:12]}", "simple": f"Simple model: {comparison.name}", "constant": f"Constant: {comparison.name}"}
    rows = [
        [metric, each.model, each.opponent, each.improvement.value, _range(each.improvement), _who(each.improvement)]
        for metric, each in comparison.differences.items()
    ]
    return Table(
        ["metric", "this model", "opponent", "improvement", "interval", "verdict"],
        rows,
        caption=f"{names[comparison.kind]}, on the same {comparison.rows} rows",
    )


def _who(improvement: MetricValue) -> Badge:
    if improvement.low > 0:
        return Badge("good", "better")
    return Badge("bad", "worse") if improvement.high < 0 else Badge("info", "undecided")


def _curves(result: EvaluationResult) -> list[Block]:
    return [
        Figure(roc_plot(result), "ROC curve. The dotted line is guessing.", wide=False),
        Figure(precision_recall_plot(result), "Precision and recall over all thresholds.", wide=False),
        Figure(
            reliability_plot(result), "Reliability: bins of equal mass, observed share with its interval. On the dotted line, probabilities mean what they say."
        ),
    ]


def _slices(usecase: LoadedUseCase, result: EvaluationResult) -> list[Block]:
    blocks: list[Block] = []
    gates = {gate.slice: gate for gate in usecase.config.evaluation.gates if gate.kind == "slice"}
    default: Metric = usecase.config.retraining.metric
    for name in dict.fromkeys(part.slice for part in result.slices):
        parts = [part for part in result.slices if part.slice == name]
        gate = gates.get(name)
        metric = gate.metric if gate is not None and gate.metric is not None else default if default in result.metrics else next(iter(result.metrics))
        judged = [part for part in parts if part.judged]
        protected = " (protected attribute: never a feature, evaluated for fairness)" if parts[0].protected else ""
        if len(judged) > 1 and metric in result.metrics:
            caption = f"{metric} by {name}{protected}. The band is the interval over all rows."
            blocks.append(Figure(slices_plot(parts, metric, result.metrics[metric], gate.limit if gate else None), caption))
        elif len(judged) == 1:
            blocks.append(Text(f"Of {name} only {judged[0].part} can be judged in the test period.", small=True))
        unjudged = [part for part in parts if not part.judged]
        if unjudged:
            blocks.append(Text(f"Not judged in {name}: " + "; ".join(f"{part.part} ({part.why_not})" for part in unjudged) + ".", small=True))
        metrics = list(result.metrics)
        rows = [
            [
                part.part,
                part.rows,
                f"{part.positives / part.rows:.1%}",
                *[part.metrics[each].value for each in metrics],
                _percent(part.decisions.positive_share if part.decisions else None),
                _percent(part.decisions.true_positive_rate if part.decisions else None),
                _percent(part.decisions.false_positive_rate if part.decisions else None),
            ]
            for part in judged
        ]
        if rows:
            columns = [name, "rows", "positives", *metrics, "decided positive", "true positive rate", "false positive rate"]
            blocks.append(Details(f"All metrics by {name}", [Table(columns, rows)]))
    return blocks


def _robustness(usecase: LoadedUseCase, result: EvaluationResult) -> list[Block]:
    gate = next((gate for gate in usecase.config.evaluation.gates if gate.kind == "robustness"), None)
    metric = gate.metric if gate is not None and gate.metric is not None else usecase.config.retraining.metric
    measured = [each for each in result.robustness.disturbances if metric in each.loss]
    if not measured:
        return [Text("No disturbance was measured.")]
    caption = f"Loss of {metric} when a feed or a feature is missing, or all numbers carry noise of {result.robustness.perturbation:g} standard deviations."
    rows = [[each.name, "yes" if each.judged else "no", *[_plain(each.loss.get(name)) for name in measured[0].loss]] for each in measured]
    return [
        Figure(robustness_plot(measured, metric, gate.limit if gate else None), caption),
        Details("All disturbances", [Table(["disturbance", "judged", *[f"loss of {name}" for name in measured[0].loss]], rows)]),
    ]


def _explanation(usecase: LoadedUseCase, result: EvaluationResult) -> list[Block]:
    caption = (
        f"SHAP contributions on {result.explanation.rows} rows. Orange: a higher value raises the probability; blue: lowers it; grey: neither, or a category."
    )
    names = list(dict.fromkeys(each.slice for each in result.explanation.by_slice))
    figures: list[Block] = [Figure(slice_importance_plot(result, name), f"Mean absolute contribution by {name}.") for name in names]
    folded: list[Block] = [Details("Contributions by slice", figures)] if figures else []
    views = [[view.name, sum(result.explanation.importance.get(name, 0.0) for name in view.feature_names), view.description] for view in usecase.features.views]
    views.append(["request-time fields", sum(result.explanation.importance.get(name, 0.0) for name in usecase.features.request_fields), "sent by the caller"])
    table = Table(["feed", "contribution", "what it is"], sorted(views, key=lambda row: -float(str(row[1]))))
    return [Figure(importance_plot(result), caption), table, *folded]


def _leakage(result: EvaluationResult) -> list[Block]:
    rows = [[each.feature, each.auc.value, _range(each.auc), each.rule] for each in result.leakage[:10]]
    text = "A feature that alone tells almost everything was probably not known at the prediction moment. Rule: by the order of its values, or by the label share that its bins had in training."
    return [Text(text), Table(["feature", "AUC alone", "interval", "rule"], rows)]


def _speed(result: EvaluationResult) -> Facts:
    latency = result.latency
    return Facts(
        {
            "one row, median": f"{latency.one_row_median_ms:.3g} ms",
            "one row, 95th percentile": f"{latency.one_row_p95_ms:.3g} ms",
            f"batch of {latency.batch_rows}": f"{latency.batch_median_ms:.3g} ms",
            "size of the model": f"{result.size_megabytes:.3g} MB",
        }
    )


def _badge(verdict: GateVerdict) -> Badge:
    if verdict.outcome == "passed":
        return Badge("good", "passed")
    return Badge("bad", "refused") if verdict.blocking else Badge("warn", "warning")


def _tone(verdict: GateVerdict) -> Tone:
    return "bad" if verdict.blocking else "warn"


def _numbers(verdict: GateVerdict) -> str:
    if verdict.value is None:
        return "no champion" if verdict.subject == "no champion" else "not judged"
    if verdict.low is None or verdict.high is None:
        return f"{verdict.value:.3g}"
    return f"{verdict.value:.3f} ({verdict.low:.3f} to {verdict.high:.3f})"


def _range(value: MetricValue) -> str:
    return f"{value.low:.4g} to {value.high:.4g}"


def _plain(value: MetricValue | None) -> str:
    return "—" if value is None else f"{value.value:.4g} ({_range(value)})"


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"
