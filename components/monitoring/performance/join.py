"""Join the prediction log with what became known of each prediction by a moment of business time, from the label table and from feedback."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from components.contracts.errors import CrisplineError
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.contracts.usecase import UseCase
from components.monitoring.feedback import FeedbackLabel, read_labels
from components.monitoring.prediction_log import FEATURE_PREFIX, PredictionLog

if TYPE_CHECKING:
    import pandas as pd

AWAITED, REPEATED = "awaited", "repeated"


@dataclass(frozen=True)
class JoinedWindow:
    """The predictions of one window, one row per model and entity.

    `rows`: columns of the log (features under their own names), plus `label` (nullable boolean), `outcome`, `label_known_at` and `state`:
    labelled, excluded, missing (closed) or pending (see `components.data_engineering.labels`).
    """

    rows: pd.DataFrame

    def of_model(self, model_version: str) -> JoinedWindow:
        return JoinedWindow(self.rows[self.rows["model_version"] == model_version].reset_index(drop=True))

    @property
    def models(self) -> list[str]:
        return sorted(self.rows["model_version"].unique().tolist())

    @property
    def labelled(self) -> pd.DataFrame:
        return self.rows[self.rows["state"] == "labelled"].reset_index(drop=True)

    @property
    def labelled_share(self) -> float:
        """Labelled rows among those that have a label or can still get one; 0 when there is none of either."""
        labelled, awaited = int((self.rows["state"] == "labelled").sum()), int((self.rows["state"] == "pending").sum())
        return labelled / (labelled + awaited) if labelled + awaited else 0.0

    @property
    def outcomes(self) -> dict[str, int]:
        """Rows by what became of them: labelled and closed outcomes by name, `awaited`, and `repeated` (earlier predictions of an entity, left out)."""
        counts = {str(name): int(count) for name, count in self.rows["outcome"].value_counts().sort_index().items()}
        awaited = int((self.rows["state"] == "pending").sum())
        repeated = int(self.rows["repeated"].sum())
        return counts | ({AWAITED: awaited} if awaited else {}) | ({REPEATED: repeated} if repeated else {})


def join_window(usecase: LoadedUseCase, platform: Platform, start: datetime, end: datetime, as_of: datetime) -> JoinedWindow:
    """Predictions with start <= prediction moment < end, and their labels as of `as_of` (nothing that became known later)."""
    predictions = PredictionLog(platform.prediction_log_uri).read(usecase.name, start, end)
    table = table_labels(usecase, platform.lake_uri, start, as_of) if len(predictions) else None
    return JoinedWindow(join(usecase, predictions, table, read_labels(platform.labels_uri, usecase.name, as_of), as_of))


def table_labels(usecase: LoadedUseCase, lake_uri: str, known_from: datetime, as_of: datetime) -> pd.DataFrame | None:
    """The label table as of a moment: columns entity, label, outcome, label_known_at; None when the lake holds nothing by then."""
    from components.data_engineering.labels import labels_as_of
    from components.data_engineering.lake import current_version, last_period, read_group

    last = last_period(lake_uri, usecase.name)
    if last is None:
        return None
    try:
        version = current_version(lake_uri, usecase, as_of)
    except CrisplineError:
        return None  # the first period was ingested later than `as_of`: then nothing was known
    label = usecase.config.data.label
    columns = [usecase.config.data.prediction.entity, label.column, label.outcome_column]
    return labels_as_of(usecase, read_group(lake_uri, version, label.table, label.group, known_from=known_from, columns=columns), as_of)


def join(usecase: LoadedUseCase, predictions: pd.DataFrame, table: pd.DataFrame | None, feedback: list[FeedbackLabel], as_of: datetime) -> pd.DataFrame:
    """Rows of `JoinedWindow`. The label table is official and goes before feedback; of several feedback labels the one known last counts.

    An entity predicted several times by one model counts once, with its last prediction: the one that was acted on.
    """
    import pandas as pd

    from components.data_engineering.labels import close_labels

    rows = predictions.rename(columns={name: name.removeprefix(FEATURE_PREFIX) for name in predictions.columns if name.startswith(FEATURE_PREFIX)})
    rows["prediction_moment"] = pd.to_datetime(rows["prediction_moment"], utc=True)
    rows = rows.sort_values(["prediction_moment", "id"], kind="stable")
    rows["repeated"] = rows.groupby(["model_version", "entity"])["id"].transform("size").astype("int64") - 1 if len(rows) else 0
    rows = rows.drop_duplicates(["model_version", "entity"], keep="last").reset_index(drop=True)
    closed = close_labels(usecase, rows, table if table is not None else _no_labels(), as_of)
    _fill_from_feedback(usecase.config, closed, feedback, as_of)
    return closed


def _fill_from_feedback(config: UseCase, rows: pd.DataFrame, feedback: list[FeedbackLabel], as_of: datetime) -> None:
    """Give rows without an official word the word of feedback, where it came before the row was closed."""
    known = sorted((label for label in feedback if label.known_at <= as_of), key=lambda label: (label.known_at, label.prediction_id, label.entity))
    if not known:
        return
    by_prediction = {label.prediction_id: label for label in known if label.prediction_id}
    by_entity = {label.entity: label for label in known if not label.prediction_id}
    open_rows = rows[rows["state"].isin(["pending", "missing"])]
    deadlines = (open_rows["prediction_moment"] + config.data.label.never_after).to_list()
    for number, id, entity, deadline in zip(open_rows.index, open_rows["id"].to_list(), open_rows["entity"].to_list(), deadlines, strict=True):
        found = by_prediction.get(id) or by_entity.get(entity)
        if found is None or found.known_at > deadline:
            continue
        rows.at[number, "label"] = found.label
        rows.at[number, "outcome"] = config.data.label.labelled_outcome if found.label is not None else found.outcome
        rows.at[number, "label_known_at"] = found.known_at
        rows.at[number, "state"] = "labelled" if found.label is not None else "excluded"


def _no_labels() -> pd.DataFrame:
    import pandas as pd

    empty = {"entity": "object", "label": "boolean", "outcome": "object", "label_known_at": "datetime64[us, UTC]"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in empty.items()})
