"""The model card (Mitchell et al. 2019, https://doi.org/10.1145/3287560.3287596): what the model is for, how good it is and for whom, where it ends."""

from __future__ import annotations

from components.contracts.artifacts import DatasetManifest, ModelManifest
from components.contracts.durations import format_duration
from components.contracts.evaluation import EvaluationResult, GateReport
from components.contracts.features import Aggregate, Feature
from components.contracts.loading import LoadedUseCase
from components.contracts.report_page import Block, Bullets, Facts, Figure, Section, Table, Text, Verdict, page
from components.contracts.usecase import Quality
from components.evaluation.plots import reliability_plot, slices_plot
from components.evaluation.quality import PHASES
from components.evaluation.report import gate_blocks, metric_blocks


def model_card_page(usecase: LoadedUseCase, result: EvaluationResult, gates: GateReport, dataset: DatasetManifest, model: ModelManifest) -> str:
    """The whole page, in the order of the paper's sections."""
    passed = gates.outcome == "passed"
    lead: list[Block] = [
        Verdict("good" if passed else "bad", "Passed its gates" if passed else "Refused by its gates: not for use", gates.reason),
        Text(usecase.config.description),
    ]
    sections = [
        Section("Model details", _details(usecase, result, dataset, model)),
        Section("Intended use", _use(usecase)),
        Section("Factors", _factors(result)),
        Section("Metrics", metric_blocks(usecase, result)),
        Section("Evaluation data", _evaluation_data(result)),
        Section("Training data", _training_data(usecase, dataset)),
        Section("Inputs and the histories they use", _inputs(usecase)),
        Section("Quantitative analyses", _analyses(usecase, result)),
        Section("Ethical considerations", _ethics(usecase, result)),
        Section("Caveats and limits", _caveats(usecase, result)),
        Section("Gates", gate_blocks(gates)),
    ]
    footer = f"Model {model.version}, evaluation {result.id}, data version {result.data_version}, code {model.code.commit[:12] or model.code.tree_hash[:12]}."
    return page("Model card", sections, subtitle=f"{usecase.name}, model {model.version}", lead=lead, footer=footer)


def _details(usecase: LoadedUseCase, result: EvaluationResult, dataset: DatasetManifest, model: ModelManifest) -> list[Block]:
    return [
        Facts(
            {
                "owner": usecase.config.business.owner,
                "algorithm": f"{model.algorithm}, {model.best_iteration + 1} trees, {usecase.config.model.calibration} calibration",
                "built from data as of": f"{dataset.data_version.as_of:%d %b %Y %H:%M} UTC",
                "decides positive from": f"{model.decision_threshold:.3f}",
                "features": len(model.feature_names),
                "size": f"{result.size_megabytes:.3g} MB",
                "seed": str(model.seed),
                "code": (model.code.commit[:12] or model.code.tree_hash[:12]) + (" with uncommitted changes" if model.code.dirty else ""),
            }
        ),
        Table(["parameter", "value"], [[name, value] for name, value in sorted(model.parameters.items())]),
    ]


def _use(usecase: LoadedUseCase) -> list[Block]:
    business, data = usecase.config.business, usecase.config.data
    return [
        Text(business.problem),
        Bullets(
            [
                f"Users: {', '.join(business.users)}.",
                f"Decision: {business.decision}",
                f"Asked {format_duration(data.prediction.lead)} before {data.tables[data.prediction.table].event_time}, once for each {data.prediction.entity}.",
                f"A false alarm costs {business.cost_false_alarm:g} {business.currency}, a miss {business.cost_miss:g} {business.currency}; the threshold follows from them.",
                f"Success for the business: {business.success.business}",
            ]
        ),
        Text("Out of scope: any other population, moment of prediction or decision than these. " + " ".join(business.quality.constraints)),
    ]


def _factors(result: EvaluationResult) -> list[Block]:
    names = ", ".join(dict.fromkeys(part.slice for part in result.slices)) or "none"
    guarded = [part.slice for part in result.slices if part.protected]
    attributes = f"Protected attributes evaluated: {', '.join(dict.fromkeys(guarded))}." if guarded else "The data holds no protected attribute."
    return [Text(f"Performance is reported by {names}. {attributes}")]


def _evaluation_data(result: EvaluationResult) -> list[Block]:
    outcomes = ", ".join(f"{count} {name}" for name, count in result.outcomes.items()) or "none"
    return [
        Text(
            f"{result.rows} labelled rows predicted from {result.test_start:%d %b %Y} to {result.test_end:%d %b %Y}, later than all training rows and "
            f"seen by no fitting step; {result.positives / result.rows:.1%} are positive. Without a label, and excluded: {outcomes}."
        )
    ]


def _training_data(usecase: LoadedUseCase, dataset: DatasetManifest) -> list[Block]:
    data = usecase.config.data
    label = data.label
    rows = [
        [split, count, f"{dataset.label_share_by_split[split]:.1%}" if split in dataset.label_share_by_split else "—"]
        for split, count in dataset.rows_by_split.items()
    ]
    return [
        Text(f"{data.source}. Licence: {data.licence}."),
        Text(
            f"Label {label.name}: {label.column} above {label.threshold:g}; known up to {format_duration(label.delay)} after the event, "
            f"closed as missing after {format_duration(label.never_after)}. Excluded outcomes: {', '.join(label.outcomes) or 'none'}."
        ),
        Table(["split", "rows", "label share"], rows),
        Facts({name.replace("_", " "): f"{moment:%d %b %Y %H:%M} UTC" for name, moment in dataset.boundaries.items()}),
    ]


def _inputs(usecase: LoadedUseCase) -> list[Block]:
    config = usecase.config
    columns = config.data.tables[config.data.prediction.table].columns
    rows: list[list[object]] = [
        [name, "request", columns[name].description, columns[name].unit or "—", columns[name].classification, columns[name].owner]
        for name in usecase.features.request_fields
    ]
    for view in usecase.features.views:
        source = config.data.tables[view.table].columns
        for feature in view.features:
            contract = source[feature.column]
            rows.append(
                [
                    feature.name,
                    f"{view.name}, every {format_duration(view.cadence)}",
                    _words(feature),
                    contract.unit or "—",
                    contract.classification,
                    contract.owner,
                ]
            )
    return [
        Text("Histories used:"),
        Bullets(config.features.lags),
        Table(["feature", "from", "what it is", "unit of the source", "classification", "owner"], rows, caption="The contract of the inputs"),
        Text(f"When the feature server fails: {config.features.fallback.replace('_', ' ')}. A value older than its view allows counts as missing."),
    ]


def _words(feature: Feature) -> str:
    if isinstance(feature, Aggregate):
        above = f" {feature.threshold:g}" if feature.threshold is not None else ""
        return f"{feature.function.replace('_', ' ')}{above} of {feature.column} over {format_duration(feature.window)}"
    return f"latest {feature.column}" + (f", at most {format_duration(feature.max_age)} old" if feature.max_age else "")


def _analyses(usecase: LoadedUseCase, result: EvaluationResult) -> list[Block]:
    metric = usecase.config.retraining.metric
    blocks: list[Block] = [Figure(reliability_plot(result), "Reliability: observed share by predicted probability, with intervals.")]
    for name in dict.fromkeys(part.slice for part in result.slices):
        parts = [part for part in result.slices if part.slice == name]
        if metric in result.metrics and sum(part.judged for part in parts) > 1:
            blocks.append(Figure(slices_plot(parts, metric, result.metrics[metric], None), f"{metric} by {name}; the band is the interval over all rows."))
    return blocks


def _ethics(usecase: LoadedUseCase, result: EvaluationResult) -> list[Block]:
    columns = {name: column for table in usecase.config.data.tables.values() for name, column in table.columns.items()}
    personal = [name for name, column in columns.items() if column.classification == "personal"]
    protected = [name for name, column in columns.items() if column.protected]
    parts = [part for part in result.slices if part.protected and part.judged and part.decisions is not None]
    blocks: list[Block] = [
        Bullets(
            [
                f"Personal data: {', '.join(personal) if personal else 'none is used'}.",
                f"Protected attributes: {', '.join(protected) + ', evaluated and never a feature' if protected else 'none is declared'}.",
                *usecase.config.data.quality.constraints,
                f"A person decides: {usecase.config.business.decision}",
                "Those who use a prediction can dispute or correct it with a reason; whether that is used for training is declared: "
                f"{usecase.config.retraining.feedback_for_training}.",
            ]
        )
    ]
    if parts:
        rows = [
            [f"{part.slice} {part.part}", part.rows, part.decisions.positive_share, part.decisions.true_positive_rate, part.decisions.false_positive_rate]
            for part in parts
            if part.decisions
        ]
        blocks.append(
            Table(["group", "rows", "decided positive", "true positive rate", "false positive rate"], rows, caption="Decisions by protected attribute")
        )
    return blocks


def _caveats(usecase: LoadedUseCase, result: EvaluationResult) -> list[Block]:
    risks = []
    for phase in PHASES:
        quality: Quality = getattr(usecase.config, phase).quality
        risks += [f"{risk.risk} (watched by: {risk.check})" for risk in quality.risks]
    unjudged = [f"{part.slice} {part.part}: {part.why_not}" for part in result.slices if not part.judged]
    retraining = usecase.config.retraining
    return [
        Text(
            f"Measured on {result.bootstrap_days} days; another season may differ. Users were promised {retraining.metric} of at least {retraining.threshold:g}; "
            "monitoring watches it, and retraining is decided on it."
        ),
        Bullets([*([f"Nothing is known of {'; '.join(unjudged)}."] if unjudged else []), *risks]),
    ]
