"""The steps at their edge: read artifacts and platform, write artifacts and records."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from components.contracts.evaluation import EvaluationResult
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Record, RecordStore
from components.contracts.storage import write_atomically


def run_evaluation(
    usecase: str, *, dataset: Path, manifest: Path, model: Path, baseline: Path, champion: str, evaluation: Path, report: Path, model_card: Path
) -> EvaluationResult:
    """Evaluate, write the result as JSON, the report and the model card as HTML, and the record of kind `evaluation`."""
    from components.contracts.artifacts import DatasetManifest, ModelManifest
    from components.evaluation.evaluate import evaluate_files
    from components.evaluation.gates import judge_gates, lineage_of
    from components.evaluation.model_card import model_card_page
    from components.evaluation.report import report_page

    loaded, platform = load_usecase(usecase), Platform.load()
    result = evaluate_files(loaded, dataset, manifest, model, baseline, champion, platform.bundles_uri)
    verdicts = judge_gates(loaded.config.evaluation, result)
    data = DatasetManifest.model_validate_json(manifest.read_text())
    trained = ModelManifest.model_validate_json((model / "model.json").read_text())
    write_atomically(report, report_page(loaded, result, verdicts).encode())
    write_atomically(model_card, model_card_page(loaded, result, verdicts, data, trained).encode())
    write_atomically(evaluation, result.model_dump_json(indent=1).encode())
    values: dict[str, JsonValue] = {str(metric): value.model_dump(mode="json") for metric, value in result.metrics.items()}
    RecordStore(platform.records_uri).append(
        Record(
            kind="evaluation",
            id=result.id,
            usecase=loaded.name,
            event_time=result.event_time,
            outcome="measured",
            reason=f"{result.rows} labelled test rows over {result.bootstrap_days} days",
            inputs=values,
            details={"outcomes": dict(result.outcomes), "rows": result.rows},
            lineage=lineage_of(result, ""),
        )
    )
    return result


def run_judge(usecase: str, *, evaluation: Path, cause: str, gates: Path) -> str:
    """Judge, store the gates' record and those of the checks, write the gates' record as the artifact. Returns `passed` or `failed`."""
    from components.evaluation.checks import check_records
    from components.evaluation.gates import judge, judge_gates

    loaded, platform = load_usecase(usecase), Platform.load()
    result = EvaluationResult.model_validate_json(evaluation.read_text())
    store = RecordStore(platform.records_uri)
    for check in check_records(judge_gates(loaded.config.evaluation, result), result, cause, result.event_time):
        store.append(check)
    record = store.append(judge(loaded, result, cause, result.event_time))
    write_atomically(gates, record.model_dump_json(indent=1).encode())
    return record.outcome


def run_serving_skew(usecase: str, *, data_version: Path, release: str) -> str:
    """Measure, store the check's record. Returns its outcome; `not_judged` without a release or with too few served rows."""
    from components.contracts.artifacts import DataVersion
    from components.evaluation.serving_skew import measure_serving_skew

    if not release:
        return "not_judged"
    platform = Platform.load()
    record = measure_serving_skew(load_usecase(usecase), platform, release, DataVersion.model_validate_json(data_version.read_text()))
    return "not_judged" if record is None else RecordStore(platform.records_uri).append(record).outcome
