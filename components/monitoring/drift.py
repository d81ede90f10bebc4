"""The verdict on a closed window of one model: drift results, lost events, the alerts and check records that follow, and its file in the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from components.contracts.errors import IntegrityError
from components.contracts.events import Alert
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.contracts.storage import names_in, read_folder, storage_path, write_atomically
from components.contracts.usecase import Moment, Monitoring
from components.model_server.lookup_warnings import says_missing, says_stale
from components.monitoring.detectors.base import PROBABILITY, AlertKind, DetectorResult, Frozen
from components.monitoring.prediction_log import features_of
from components.monitoring.windows import ClosedWindows, LostEvents, Window

if TYPE_CHECKING:
    import pandas as pd

    from components.monitoring.detectors.fitting import DetectorSet

LOST_EVENTS: Literal["lost_events"] = "lost_events"
STALE_FEATURES = "stale_features"
_DOWNSTREAM = ("joint_drift", "prediction_drift", "class_mix_drift")  # what a broken input moves along with itself
_CHECKS = {
    "data_drift": ("data_drift", "joint_drift", "prediction_drift", "data_quality"),
    "mix_drift": ("class_mix_drift", "segment_mix_drift"),
}


class WindowDrift(Frozen):
    """One model in one window. `attributed`: detectors that alarmed only in the wake of a data-quality fault, so without an alert.
    `stale_rows`, `missing_rows`: answers that warned of a looked-up value that was too old, or missing for any reason."""

    usecase: str
    model_version: str
    release: str
    window_start: Moment
    window_end: Moment
    rows: int
    outcome: Literal["tested", "too_few_rows", "untested"]
    reason: str
    results: tuple[DetectorResult, ...]
    attributed: tuple[str, ...]
    answers_seen: int
    answers_lost: int
    stale_rows: int
    missing_rows: int

    @property
    def stale_share(self) -> float:
        return self.stale_rows / self.rows


def judge_window(
    usecase: str, monitoring: Monitoring, window: Window, rows: pd.DataFrame, detectors: DetectorSet | str, lost: LostEvents | None
) -> WindowDrift:
    """`rows`: one model's rows of the prediction log. `detectors`: the model's own, or why there are none."""
    results: tuple[DetectorResult, ...] = ()
    attributed: tuple[str, ...] = ()
    outcome: Literal["tested", "too_few_rows", "untested"]
    if isinstance(detectors, str):
        outcome, reason = "untested", detectors
    elif len(rows) < monitoring.minimum_rows:
        outcome, reason = "too_few_rows", f"{len(rows)} rows, at least {monitoring.minimum_rows} are needed"
    else:
        frame = features_of(rows, detectors.file.feature_names).assign(**{PROBABILITY: rows["probability"].to_numpy()})
        results, attributed = attribute_to_faults(detectors.test(frame))
        outcome, reason = "tested", "compared with the model's own reference"
    return WindowDrift(
        usecase=usecase,
        model_version=str(rows["model_version"].iloc[0]),
        release=str(rows["release"].iloc[-1]),
        window_start=window.start,
        window_end=window.end,
        rows=len(rows),
        outcome=outcome,
        reason=reason,
        results=results,
        attributed=attributed,
        answers_seen=lost.seen if lost else 0,
        answers_lost=lost.lost if lost else 0,
        stale_rows=_warned(rows, says_stale),
        missing_rows=_warned(rows, says_missing),
    )


def _warned(rows: pd.DataFrame, says: Callable[[str], bool]) -> int:
    return sum(any(says(str(warning)) for warning in warnings) for warnings in rows["warnings"])


def attribute_to_faults(results: Sequence[DetectorResult]) -> tuple[tuple[DetectorResult, ...], tuple[str, ...]]:
    """Tell faults from drift: where values went missing, are stuck or in another unit, neither the same column's drift nor what it does downstream is
    an alert of its own.

    Returns the results, with those alarms taken back, and the names of the detectors concerned. Statistics stay as they are.
    """
    faulty = {part.part for result in results if result.kind == "data_quality" and result.alarm for part in result.parts if part.alarm}
    if not faulty:
        return tuple(results), ()
    kept, attributed = [], []
    for result in results:
        others = [part for part in result.parts if part.alarm and part.part not in faulty]
        by_column = result.kind in ("data_drift", "segment_mix_drift") and not others
        if result.alarm and (result.kind in _DOWNSTREAM or by_column):
            attributed.append(result.detector)
            result = result.model_copy(update={"alarm": False, "effect": f"follows from a fault of {', '.join(sorted(faulty))}: {result.effect}"})
        elif result.alarm and result.kind == "data_drift":
            result = result.model_copy(update={"subject": ", ".join(part.part for part in others), "effect": "; ".join(part.text for part in others[:5])})
        kept.append(result)
    return tuple(kept), tuple(attributed)


def alerts_of(drift: WindowDrift, monitoring: Monitoring) -> list[Alert]:
    """One alert for each detector that alarmed, one for lost events above the limit, and one for a feed that is late: stale answers above theirs."""

    def alert(
        kind: AlertKind | Literal["lost_events"], detector: str, subject: str, statistic: float, threshold: float, effect: str, details: dict[str, float]
    ) -> Alert:
        return Alert(
            id=alert_id(drift.usecase, drift.model_version, detector, drift.window_start),
            usecase=drift.usecase,
            kind=kind,
            detector=detector,
            model_version=drift.model_version,
            release=drift.release,
            window_start=drift.window_start,
            window_end=drift.window_end,
            rows=drift.rows,
            subject=subject,
            statistic=statistic,
            threshold=threshold,
            effect=effect,
            details=details,
        )

    found = [
        alert(
            result.kind,
            result.detector,
            result.subject,
            result.statistic,
            result.threshold,
            result.effect,
            {part.part: part.effect for part in result.parts if part.alarm} | {"calibrated_p_value": result.p_value},
        )
        for result in drift.results
        if result.alarm
    ]
    lost = LostEvents(drift.answers_seen, drift.answers_lost)
    if lost.share > monitoring.maximum_lost_share:
        effect = f"{lost.lost} of {lost.seen + lost.lost} answers are not in the log ({100 * lost.share:.1f}%)"
        found.append(
            alert(LOST_EVENTS, LOST_EVENTS, "prediction log", lost.share, monitoring.maximum_lost_share, effect, {"seen": lost.seen, "lost": lost.lost})
        )
    stale = drift.stale_share
    if stale > monitoring.maximum_stale_share:
        effect = f"{drift.stale_rows} of {drift.rows} answers rested on values that were too old, or found no feature server ({100 * stale:.1f}%)"
        found.append(alert("data_quality", STALE_FEATURES, "feature views", stale, monitoring.maximum_stale_share, effect, {"stale": drift.stale_rows}))
    return found


def alert_id(usecase: str, model_version: str, detector: str, window_start: Moment) -> str:
    return record_id(usecase, model_version, detector, window_start)


def alert_record(alert: Alert) -> Record:
    """The decision to alert, as a record under the alert's own id."""
    return Record(
        kind="alert",
        id=alert.id,
        usecase=alert.usecase,
        event_time=alert.window_end,
        outcome=alert.kind,
        reason=alert.effect,
        inputs={"statistic": alert.statistic, "rows": alert.rows},
        thresholds={"statistic": alert.threshold},
        details={"alert": alert.model_dump(mode="json")},
        lineage=Lineage(model_version=alert.model_version, release=alert.release),
    )


def check_records(drift: WindowDrift, monitoring: Monitoring) -> list[Record]:
    """Evidence for the risks that monitoring covers: data_drift, mix_drift (where tested), lost_events and freshness.

    Only staleness fails `freshness`: that nothing is published for a key may be as it should be (an aircraft that no register knows).
    """
    records = []
    for check, kinds in _CHECKS.items():
        results = [result for result in drift.results if result.kind in kinds]
        if results:
            alarms = [result for result in results if result.alarm]
            reason = "; ".join(result.effect for result in alarms) or f"{len(results)} detectors, none above its limit"
            statistics: dict[str, JsonValue] = {result.detector: result.statistic for result in results}
            thresholds: dict[str, JsonValue] = {result.detector: result.threshold for result in results}
            records.append(_check(drift, check, not alarms, reason, statistics, thresholds))
    lost = LostEvents(drift.answers_seen, drift.answers_lost)
    reason = f"{lost.lost} of {lost.seen + lost.lost} answers are not in the log"
    records.append(
        _check(drift, "lost_events", lost.share <= monitoring.maximum_lost_share, reason, {"share": lost.share}, {"share": monitoring.maximum_lost_share})
    )
    stale_share, missing_share = drift.stale_share, drift.missing_rows / drift.rows
    reason = f"{drift.stale_rows} of {drift.rows} answers had a stale looked-up value or no feature server; {drift.missing_rows} missed a view's features"
    shares: dict[str, JsonValue] = {"stale_share": stale_share, "missing_share": missing_share}
    fresh = stale_share <= monitoring.maximum_stale_share
    records.append(_check(drift, "freshness", fresh, reason, shares, {"stale_share": monitoring.maximum_stale_share}))
    return records


def store_once(store: RecordStore, record: Record) -> Record:
    """Append, or take what another replica has stored for the same window: an issued alert does not change when late rows come."""
    try:
        return store.append(record)
    except IntegrityError:
        return store.get(record.kind, record.id)


def save_drift(drift: WindowDrift, closed: ClosedWindows) -> None:
    write_atomically(closed.folder(drift.window_start) / f"model-{drift.model_version}.json", drift.model_dump_json(indent=1).encode())


def read_window_drifts(prediction_log_uri: str, usecase: str) -> list[WindowDrift]:
    """All judged windows of a use case in order of window and model."""
    root = storage_path(prediction_log_uri) / usecase / "windows"
    files = [read_folder(root / folder, lambda name: name.startswith("model-") and name.endswith(".json")) for folder in names_in(root)]
    found = [WindowDrift.model_validate_json(content) for folder in files for content in folder.values()]
    return sorted(found, key=lambda drift: (drift.window_start, drift.model_version))


def read_drift(prediction_log_uri: str, usecase: str) -> pd.DataFrame:
    """Every tested part over time, for reports: columns usecase, model_version, release, window_start, window_end, rows, detector, kind, part (the
    feature, for kind data_drift), statistic, threshold, p_value, effect, unit, text, alarm, attributed."""
    import pandas as pd

    shared = ["usecase", "model_version", "release", "window_start", "window_end", "rows"]
    columns = [*shared, "detector", "kind", "part", "statistic", "threshold", "p_value", "effect", "unit", "text", "alarm", "attributed"]
    rows = [
        {**drift.model_dump(include=set(shared)), **part.model_dump(), "detector": result.detector, "kind": result.kind}
        | {"attributed": result.detector in drift.attributed}
        for drift in read_window_drifts(prediction_log_uri, usecase)
        for result in drift.results
        for part in result.parts
    ]
    frame = pd.DataFrame(rows, columns=columns)
    for name in ("window_start", "window_end"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    return frame


def _check(drift: WindowDrift, check: str, passed: bool, reason: str, inputs: dict[str, JsonValue], thresholds: dict[str, JsonValue]) -> Record:
    return Record(
        kind="check",
        id=record_id(drift.usecase, check, drift.model_version, drift.window_start),
        usecase=drift.usecase,
        event_time=drift.window_end,
        outcome="passed" if passed else "failed",
        reason=reason,
        inputs=inputs,
        thresholds=thresholds,
        details={"check": check, "rows": drift.rows},
        lineage=Lineage(model_version=drift.model_version, release=drift.release),
    )
