"""The rows to predict: who, when, and what a request about them carries."""

from __future__ import annotations

from datetime import datetime

import pandas as pd
import pyarrow as pa

from components.contracts.artifacts import DataVersion
from components.contracts.features import FeatureSet
from components.contracts.loading import LoadedUseCase
from components.data_engineering.lake import KNOWN_AT, TIMESTAMP, read_table

ENTITY, PREDICTION_MOMENT, EVENT_TIME = "entity", "prediction_moment", "event_time"


def read_entities(
    lake_uri: str, usecase: LoadedUseCase, data_version: DataVersion, start: datetime, end: datetime, feature_set: FeatureSet | None = None
) -> pd.DataFrame:
    """Rows of the prediction table whose prediction moment lies in [start, end), sorted by entity.

    Columns: `entity`, `prediction_moment`, `event_time`, the join keys and request-time fields of `feature_set` (default: the use
    case's own) and the columns of the declared slices.
    All of them come from groups that are known at the prediction moment; a row that became known only after it could not be predicted and is
    left out.
    """
    features = usecase.features if feature_set is None else feature_set
    prediction = usecase.config.data.prediction
    table = usecase.config.data.tables[prediction.table]
    slices = [part.column for part in usecase.config.evaluation.slices if part.column in table.columns]
    wanted = list(dict.fromkeys([*features.join_keys, *features.request_fields, *slices]))
    always = {*table.key, table.event_time}
    by_group: dict[str, list[str]] = {table.columns[prediction.entity].known_at: []}
    for column in wanted:
        if column not in always:
            by_group.setdefault(table.columns[column].known_at, []).append(column)
    period = [
        (table.event_time, ">=", pa.scalar(start + prediction.lead, TIMESTAMP)),
        (table.event_time, "<", pa.scalar(end + prediction.lead, TIMESTAMP)),
    ]
    rows: pd.DataFrame | None = None
    for group, columns in by_group.items():
        part: pd.DataFrame = read_table(lake_uri, data_version, prediction.table, group, [*table.key, table.event_time, *columns], period).to_pandas()
        part = part[part[KNOWN_AT] <= part[table.event_time] - prediction.lead].drop(columns=KNOWN_AT)
        rows = part if rows is None else rows.merge(part.drop(columns=table.event_time), on=table.key, how="inner", validate="one_to_one")
    assert rows is not None
    rows = rows.assign(**{ENTITY: rows[prediction.entity], EVENT_TIME: rows[table.event_time]})
    rows[PREDICTION_MOMENT] = rows[EVENT_TIME] - prediction.lead
    return rows[list(dict.fromkeys([ENTITY, PREDICTION_MOMENT, EVENT_TIME, *wanted]))].sort_values([ENTITY, PREDICTION_MOMENT], ignore_index=True)
