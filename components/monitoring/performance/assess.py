"""Judge each model in a window: measured once its labels are in, estimated until then; both kept as records."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from components.contracts.durations import floor_to, format_moment
from components.contracts.errors import InvalidData
from components.contracts.events import MixExpectation, Performance, Trial
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.contracts.usecase import Column, Slice
from components.monitoring.performance import estimate as cbpe
from components.monitoring.performance.join import JoinedWindow, join_window
from components.monitoring.performance.live_trial import live_trial
from components.monitoring.performance.loss import loss_price, window_loss
from components.monitoring.performance.measure import Rows, by_slice, measure
from components.monitoring.performance.metric import block_length, days_of, metric_value
from components.monitoring.prediction_log import PredictionLog

if TYPE_CHECKING:
    import pandas as pd

# Labelled share from which a window is measured. The rest can be biased (the worst delays are reported last): at 0.95 the few missing
# rows move an AUC by at most about their share, and waiting for all would hand the clock to one lost report, until `never_after`.
MEASURED_FROM = 0.95


@dataclass(frozen=True)
class Window:
    """One window to judge. `kind`: what its labels should allow as of the moment asked for."""

    start: datetime
    end: datetime
    kind: str


def due_windows(usecase: str | LoadedUseCase, platform: Platform, as_of: datetime) -> list[Window]:
    """Windows to judge as of a moment, in order of time: closed and never judged (`estimated`), or with all labels due (`measured`).

    Windows are whole multiples of `monitoring.window` since the epoch over the prediction moment, closed `monitoring.lateness` after
    their end. Labels are due `lead` + `label.delay` after it. A window that was measured for any model is done.
    """
    loaded = usecase if isinstance(usecase, LoadedUseCase) else load_usecase(usecase)
    config = loaded.config
    days = PredictionLog(platform.prediction_log_uri).days(config.name)
    if not days:
        return []
    known = read_performance(platform, config.name, as_of)
    measured = {one.window_start for one in known if one.kind == "measured"}
    estimated = {one.window_start for one in known if one.kind == "estimated"}
    length = config.monitoring.window
    starts = {floor_to(_midnight(day) + part, length) for day in days for part in _parts(length)}
    found = []
    for start in sorted(starts - measured):
        end = start + length
        if end + config.monitoring.lateness > as_of:
            continue
        if end + config.data.prediction.lead + config.data.label.delay <= as_of:
            found.append(Window(start, end, "measured"))
        elif start not in estimated:
            found.append(Window(start, end, "estimated"))
    return found


def assess_window(usecase: str | LoadedUseCase, platform: Platform, window_start: datetime, window_end: datetime, as_of: datetime) -> list[Performance]:
    """One Performance per model with at least `monitoring.minimum_rows` predictions in [window_start, window_end), as of `as_of`.

    Each is stored as records `performance` and `check`, under an id of use case, model, window and kind: the first assessment counts,
    asking again returns it. Raises NotEstimable when the promised metric cannot be estimated, IntegrityError for a broken release.
    """
    loaded = usecase if isinstance(usecase, LoadedUseCase) else load_usecase(usecase)
    cbpe.require_estimable(loaded.config.retraining.metric)
    records = RecordStore(platform.records_uri)
    joined = join_window(loaded, platform, window_start, window_end, as_of)
    found = []
    for model in joined.models:
        part = joined.of_model(model)
        if len(part.rows) < loaded.config.monitoring.minimum_rows:
            continue
        found.append(_assess(loaded, platform, records, part, model, window_start, window_end, as_of))
    return found


def read_performance(platform: Platform, usecase: str, until: datetime) -> list[Performance]:
    """Every assessment made up to `until` (its `as_of`), in order of that moment."""
    records = RecordStore(platform.records_uri).list("performance")
    return [Performance.model_validate(record.details) for record in records if record.usecase == usecase and record.event_time <= until]


def read_reference(bundles_uri: str, release: str) -> pd.DataFrame:
    """The labelled test rows of a release: prediction_moment, probability, label and every feature. No fitting step has seen them."""
    return _reference(bundles_uri, release).copy()


@lru_cache(maxsize=16)
def _reference(bundles_uri: str, release: str) -> pd.DataFrame:
    import pandas as pd

    from components.deployment.bundle import read_file

    needed = ["prediction_moment", "probability", "label", "split"]
    frame = pd.read_parquet(io.BytesIO(read_file(bundles_uri, release, "reference.parquet")))
    absent = [name for name in needed if name not in frame.columns]
    if absent:
        raise InvalidData(f"reference.parquet of release {release[:12]} lacks {', '.join(absent)}\n    remedy: fit the detectors again and make a new release")
    rows = frame.loc[(frame["split"] == "test") & frame["label"].notna()]
    return rows.astype({"label": "int64", "probability": "float64"}).reset_index(drop=True)


def _assess(
    usecase: LoadedUseCase, platform: Platform, records: RecordStore, part: JoinedWindow, model: str, start: datetime, end: datetime, as_of: datetime
) -> Performance:
    ids = {kind: record_id("performance", usecase.name, model, start, end, kind) for kind in ("measured", "estimated")}
    stored = records.find("performance", ids["measured"])
    if stored is not None:
        return _check(records, stored, Performance.model_validate(stored.details))
    release = str(part.rows.sort_values("prediction_moment")["release"].iloc[-1])
    reference = read_reference(platform.bundles_uri, release)
    record = cbpe.backtest(usecase.config.retraining.metric, reference, end - start)
    found = None
    if part.labelled_share >= MEASURED_FROM and len(part.labelled) >= usecase.config.monitoring.minimum_rows:
        trial = live_trial(usecase, platform, release, start, end, as_of, read_performance(platform, usecase.name, as_of), block_length(end - start))
        found = _measured(usecase, part, reference, record, trial, ids["measured"], model, start, end, as_of)
    if found is None:
        stored = records.find("performance", ids["estimated"])
        if stored is not None:
            return _check(records, stored, Performance.model_validate(stored.details))
        past = [one for one in read_performance(platform, usecase.name, as_of) if one.model_version == model and one.kind == "measured"]
        record += [
            cbpe.Difference(one.explained - one.value, one.sampling_error) for one in past if one.explained is not None and one.metric == _metric(usecase)
        ]
        found = _estimated(usecase, part, reference, record, ids["estimated"], model, start, end, as_of)
    _store(records, found, release)
    return found


def _measured(
    usecase: LoadedUseCase,
    part: JoinedWindow,
    reference: pd.DataFrame,
    record: list[cbpe.Difference],
    trial: Trial | None,
    id: str,
    model: str,
    start: datetime,
    end: datetime,
    as_of: datetime,
) -> Performance | None:
    rows, metric = part.labelled, _metric(usecase)
    error = cbpe.backtest_error(record)
    result = measure(metric, rows, end - start, error, usecase.config.evaluation.confidence)
    if result is None:
        return None
    label, probability = rows["label"].to_numpy(dtype=np.int64), rows["probability"].to_numpy(dtype=np.float64)
    loss = window_loss(label, probability, days_of(rows["prediction_moment"], block_length(end - start)))
    return Performance(
        id=id,
        usecase=usecase.name,
        model_version=model,
        window_start=start,
        window_end=end,
        as_of=as_of,
        kind="measured",
        metric=metric,
        value=result.value,
        low=result.low,
        high=result.high,
        threshold=usecase.config.retraining.threshold,
        rows=len(part.rows),
        labelled_share=part.labelled_share,
        sampling_error=result.error,
        backtest_error=error,
        explained=result.explained,
        concept_drift=result.concept_drift,
        slices=_by_slice(usecase, rows, lambda mask: metric_value(metric, label[mask], probability[mask])),
        mix=_from_mix(usecase, reference, rows),
        outcomes=part.outcomes,
        log_loss=loss.value,
        expected_log_loss=loss.expected,
        log_loss_error=loss.error,
        loss_price=loss_price(probability, usecase.config.business),
        trial=trial,
    )


def _estimated(
    usecase: LoadedUseCase,
    part: JoinedWindow,
    reference: pd.DataFrame,
    record: list[cbpe.Difference],
    id: str,
    model: str,
    start: datetime,
    end: datetime,
    as_of: datetime,
) -> Performance:
    probability, metric = part.rows["probability"].to_numpy(dtype=np.float64), _metric(usecase)
    result = cbpe.estimate(metric, probability, reference, record, usecase.config.evaluation.confidence)
    return Performance(
        id=id,
        usecase=usecase.name,
        model_version=model,
        window_start=start,
        window_end=end,
        as_of=as_of,
        kind="estimated",
        metric=metric,
        value=result.value,
        low=result.low,
        high=result.high,
        threshold=usecase.config.retraining.threshold,
        rows=len(part.rows),
        labelled_share=part.labelled_share,
        sampling_error=result.sampling_error,
        backtest_error=result.backtest_error,
        assumption=f"{cbpe.ASSUMPTION} Its error is taken from {result.record} earlier comparisons with the truth.",
        slices=_by_slice(usecase, part.rows, lambda mask: cbpe.expected_metric(metric, probability[mask])),
        mix=_from_mix(usecase, reference, part.rows),
        outcomes=part.outcomes,
    )


def _from_mix(usecase: LoadedUseCase, reference: pd.DataFrame, rows: pd.DataFrame) -> dict[str, MixExpectation]:
    """For each slice whose column both the reference and the log have."""
    from components.monitoring.performance.mix import expected_from_mix

    columns = usecase.config.data.tables[usecase.config.data.prediction.table].columns
    metric, confidence = usecase.config.retraining.metric, usecase.config.evaluation.confidence
    found = {}
    for part in usecase.config.evaluation.slices:
        if part.column in rows.columns and part.column in reference.columns:
            segments = [_segment(frame, part, columns.get(part.column)) for frame in (reference, rows)]
            expected = expected_from_mix(metric, reference, segments[0], segments[1], confidence)
            if expected is not None:
                found[part.name] = expected
    return found


def _segment(rows: pd.DataFrame, part: Slice, column: Column | None) -> pd.Series[str]:
    """Each row's part."""
    import pandas as pd

    segment = np.full(len(rows), "", dtype=object)
    for name, mask in _parts_of(rows, part, column):
        segment[mask] = name
    return pd.Series(segment.astype(str), index=rows.index)


def _metric(usecase: LoadedUseCase) -> str:
    return usecase.config.retraining.metric


def _by_slice(usecase: LoadedUseCase, rows: pd.DataFrame, statistic: object) -> dict[str, float]:
    """Slices over columns that the log has; the others need the label table's columns and are judged before deployment only."""
    columns = usecase.config.data.tables[usecase.config.data.prediction.table].columns
    present = [part for part in usecase.config.evaluation.slices if part.column in rows.columns]
    masks: dict[str, Rows] = {}
    minimum: dict[str, int] = {}
    for part in present:
        for name, mask in _parts_of(rows, part, columns.get(part.column)):
            masks[f"{part.name}={name}"], minimum[f"{part.name}={name}"] = mask, part.minimum_rows
    return by_slice(masks, minimum, statistic)  # type: ignore[arg-type]


def _parts_of(rows: pd.DataFrame, part: Slice, column: Column | None) -> Iterable[tuple[str, Rows]]:
    from components.evaluation.slices import parts_of

    values = rows[[part.column]]
    if column is not None and column.type == "integer":
        values = values.astype("Int64")  # the log keeps numbers as double
    return parts_of(values, part)


def _store(records: RecordStore, found: Performance, release: str) -> None:
    span = f"{format_moment(found.window_start)} to {format_moment(found.window_end)}"
    reason = (
        f"{found.metric} of model {found.model_version} {found.kind} at {found.value:.3f} ({found.low:.3f} to {found.high:.3f}) on {found.rows} rows, {span}"
    )
    reason += f"; promised is at least {found.threshold:g}" + (
        "; the inputs alone explain " + f"{found.explained:.3f}: concept drift" if found.concept_drift else ""
    )
    moved = max(found.mix, key=lambda name: abs(found.mix[name].change), default="")
    if moved and abs(found.mix[moved].change) >= 0.005:  # below that nobody would round differently
        expected = found.mix[moved]
        reason += f"; the mix by {moved} alone moves it by {expected.change:+.3f} ({expected.low:.3f} to {expected.high:.3f} expected)"
    record = records.append(
        Record(
            kind="performance",
            id=found.id,
            usecase=found.usecase,
            event_time=found.as_of,
            outcome=found.kind,
            reason=reason,
            inputs={found.metric: found.value, "low": found.low, "high": found.high, "rows": found.rows, "labelled_share": found.labelled_share},
            thresholds={found.metric: found.threshold},
            details=found.model_dump(mode="json"),
            lineage=Lineage(model_version=found.model_version, release=release),
        )
    )
    _check(records, record, found)


def _check(records: RecordStore, stored: Record, found: Performance) -> Performance:
    """The evidence for the risk; written again for a stored assessment, in case a crash came between the two."""
    records.append(
        stored.model_copy(
            update={
                "kind": "check",
                "id": record_id("check", "performance", found.id),
                "outcome": "failed" if found.value < found.threshold else "passed",
                "details": {"check": "performance", "kind": found.kind, "performance": found.id},
            }
        )
    )
    return found


def _midnight(day: object) -> datetime:
    from datetime import UTC, date

    assert isinstance(day, date)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _parts(length: timedelta) -> list[timedelta]:
    """Offsets within a day whose windows may differ."""
    day = timedelta(days=1)
    return [timedelta(0), day - timedelta(microseconds=1)] if length >= day else [number * length for number in range(-(-day // length))]
