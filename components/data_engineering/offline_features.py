"""Training frames and batch-scoring rows: the point-in-time join of Feast on exactly one recorded data version."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts.artifacts import DatasetManifest, DataVersion
from components.contracts.durations import floor_to
from components.contracts.errors import InvalidData
from components.contracts.features import Aggregate, FeatureSet, FeatureView
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.contracts.storage import storage_path, write_atomically
from components.data_engineering.content_hash import ContentHash
from components.data_engineering.entities import PREDICTION_MOMENT, read_entities
from components.data_engineering.feature_events import read_events
from components.data_engineering.feature_repository import feature_references, offline_store
from components.data_engineering.feature_tables import EVENT_TIMESTAMP, STAMP, build_view, join_key_columns, tick_key, tick_numbers
from components.data_engineering.labels import MISSING, close_labels, fill_with_corrections, labels_as_of
from components.data_engineering.lake import TIMESTAMP, read_group
from components.data_engineering.split import embargo_holds, split_by_time
from components.monitoring.feedback import feedback_for_training, read_feedback

LABEL, OUTCOME, LABEL_KNOWN_AT, SPLIT = "label", "outcome", "label_known_at", "split"
_ROW = "__row__"


def training_frame(usecase: LoadedUseCase, platform: Platform, data_version: DataVersion, training_start: datetime) -> tuple[pd.DataFrame, DatasetManifest]:
    """All rows whose label is known, or closed, as of the data version, with their features as they were at the prediction moment.

    Rows: prediction moments from `training_start` on, sorted by entity. Columns: `entity`, `prediction_moment`, `event_time`, join keys, request
    fields and slice columns, every feature (float64, missing is NaN; text stays text), `label` (nullable boolean; null for a row that its outcome
    closed without a label), `outcome`, `label_known_at`, `split`. The same version gives the same frame, whatever was appended since.

    Leaves the check records `rows_preserved` and `embargo`. Raises InvalidData when the join loses or doubles rows, or too few rows remain.
    """
    rows = _closed_rows(usecase, platform, data_version, training_start)
    frame = request_features(usecase, platform, data_version, rows)
    model = usecase.config.model
    parts = split_by_time(frame, usecase.config.data.label.delay, model.test_period, model.validation_share)
    frame[SPLIT] = parts.split
    manifest = _manifest(usecase, data_version, frame, parts.boundaries)
    held = embargo_holds(frame[SPLIT], frame)
    reason = "no label of the training or validation rows became known after the first test prediction"
    _record_check(
        usecase,
        platform,
        data_version,
        "embargo",
        held,
        reason if held else f"not true: {reason}",
        manifest.id,
        {"rows_by_split": dict(manifest.rows_by_split)},
    )
    if not held:
        raise InvalidData(f"the embargo does not hold: it is not true that {reason}")
    return frame, manifest


def request_features(
    usecase: LoadedUseCase, platform: Platform, data_version: DataVersion, entities: pd.DataFrame, feature_set: FeatureSet | None = None
) -> pd.DataFrame:
    """`entities` (`entity`, `prediction_moment`, join keys, request fields, anything else) with the features of each row's prediction moment.

    Same rows, same order, new index; one column more per feature of `feature_set` (default: the use case's own). A value that was older than
    its view's `max_staleness` at the prediction moment is missing. Leaves the check record `rows_preserved`; raises InvalidData when it fails.
    """
    features = usecase.features if feature_set is None else feature_set
    rows = entities.reset_index(drop=True)
    joined = _join(usecase, platform, data_version, rows, features)
    kept = len(joined) == len(rows) and bool((joined[_ROW].to_numpy() == np.arange(len(rows))).all())
    reason = f"the point-in-time join returned {len(joined)} rows for {len(rows)}"
    _record_check(usecase, platform, data_version, "rows_preserved", kept, reason, features.definition_hash, {"rows_in": len(rows), "rows_out": len(joined)})
    if not kept:
        raise InvalidData(f"{reason}; it must return exactly the rows that it was asked for")
    columns = {name: _typed(joined[name]) for view in features.views for name in view.feature_names}
    return rows.assign(**columns)


def export_snapshot(
    usecase: LoadedUseCase, platform: Platform, data_version: DataVersion, views: Iterable[FeatureView], first: datetime, last: datetime
) -> dict[str, str]:
    """Write what each view published for prediction moments in [first, last], computed from the recorded version; returns the paths by served name.

    Feast reads a Delta table without a version, silently the newest (measured, 0.67), so it gets files whose names carry the version's id
    and the view's hash. A tick counts as published when the version holds all that was known at it: before the version's `as_of`.
    """
    folder = storage_path(platform.feature_store_uri) / "snapshots" / data_version.id
    paths = {}
    for view in views:
        start = floor_to(first - view.max_staleness, view.cadence)
        end = min(last + timedelta(microseconds=1), data_version.as_of)
        path = folder / f"{view.served_name}.{start:%Y%m%dT%H%M%S}-{end:%Y%m%dT%H%M%S.%f}.parquet"
        if not path.exists():
            events = read_events(platform.lake_uri, usecase, data_version, view, start, end)
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pandas(build_view(view, events, start, end), _snapshot_schema(usecase, view), preserve_index=False), buffer)
            write_atomically(path, buffer.getvalue())
        paths[view.served_name] = str(path)
    return paths


def _snapshot_schema(usecase: LoadedUseCase, view: FeatureView) -> pa.Schema:
    """Types as declared: those of the values are none where a view published no row, and a join on a key of type null fails."""
    columns = usecase.config.data.tables[view.table].columns
    keys = [(key, pa.int64() if key == tick_key(view) or columns[key].type == "integer" else pa.string()) for key in join_key_columns(view)]
    numeric = ("integer", "float", "boolean")
    features = [
        (feature.name, pa.float64() if isinstance(feature, Aggregate) or columns[feature.column].type in numeric else pa.string()) for feature in view.features
    ]
    return pa.schema([*keys, (EVENT_TIMESTAMP, TIMESTAMP), *features])


def _join(usecase: LoadedUseCase, platform: Platform, data_version: DataVersion, rows: pd.DataFrame, features: FeatureSet) -> pd.DataFrame:
    if rows.empty:
        return pd.DataFrame({_ROW: [], **{name: [] for view in features.views for name in view.feature_names}})
    moments = rows[PREDICTION_MOMENT]
    paths = export_snapshot(usecase, platform, data_version, features.views, moments.min().to_pydatetime(), moments.max().to_pydatetime())
    asked = pd.DataFrame({_ROW: np.arange(len(rows)), EVENT_TIMESTAMP: moments.astype(STAMP)})
    for view in features.views:
        for key in join_key_columns(view):
            asked[key] = tick_numbers(view, moments) if key == tick_key(view) else rows[key]
    with offline_store(usecase.config, features.views, paths) as store, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's engine warns of its own calls
        joined: pd.DataFrame = store.get_historical_features(entity_df=asked, features=feature_references(features)).to_df()
    return joined.sort_values(_ROW, ignore_index=True)


def _closed_rows(usecase: LoadedUseCase, platform: Platform, data_version: DataVersion, training_start: datetime) -> pd.DataFrame:
    """Rows to predict from `training_start` on with `label`, `outcome`, `label_known_at`; those still awaited are not among them.

    Users' corrections enter as `retraining.feedback_for_training` declares; one that came `never_after` the prediction is too late, as a label is.
    """
    label = usecase.config.data.label
    rows = read_entities(platform.lake_uri, usecase, data_version, training_start, data_version.as_of)
    outcomes = read_group(platform.lake_uri, data_version, label.table, label.group, known_from=training_start)
    words = read_feedback(platform.labels_uri, usecase.name, data_version.as_of)
    labels = fill_with_corrections(labels_as_of(usecase, outcomes, data_version.as_of), feedback_for_training(usecase.config, words))
    closed = close_labels(usecase, rows, labels, data_version.as_of)
    lost = closed["state"] == MISSING
    closed.loc[lost, LABEL_KNOWN_AT] = closed.loc[lost, PREDICTION_MOMENT] + label.never_after  # when it was given up
    return closed[closed["state"] != "pending"].drop(columns="state").reset_index(drop=True)


def _manifest(usecase: LoadedUseCase, data_version: DataVersion, frame: pd.DataFrame, boundaries: dict[str, datetime]) -> DatasetManifest:
    content = ContentHash.of(pa.Table.from_pandas(frame, preserve_index=False)).hexdigest
    by_split = frame.groupby(SPLIT)[LABEL]
    return DatasetManifest(
        id=record_id(usecase.name, data_version.id, usecase.features.definition_hash, content),
        usecase=usecase.name,
        data_version=data_version,
        feature_set=usecase.features.definition_hash,
        rows=len(frame),
        rows_by_split={str(name): int(size) for name, size in by_split.size().items()},
        label_share_by_split={str(name): float(share) for name, share in by_split.mean().items() if not pd.isna(share)},
        outcomes={str(name): int(size) for name, size in frame[OUTCOME].value_counts().sort_index().items()},
        boundaries=boundaries,
        content_hash=content,
    )


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.astype("float64") if pd.api.types.is_numeric_dtype(column.dtype) else column.astype(object).where(column.notna(), None)


def _record_check(
    usecase: LoadedUseCase, platform: Platform, data_version: DataVersion, check: str, passed: bool, reason: str, subject: str, details: dict[str, Any]
) -> None:
    RecordStore(platform.records_uri).append(
        Record(
            kind="check",
            id=record_id(check, usecase.name, data_version.id, subject, str(details)),
            usecase=usecase.name,
            event_time=data_version.as_of,
            outcome="passed" if passed else "failed",
            reason=reason,
            details={"check": check, **details},
            lineage=Lineage(data_version=data_version.id, dataset=subject if check == "embargo" else ""),
        )
    )
