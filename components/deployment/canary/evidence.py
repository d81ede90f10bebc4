"""Live evidence of a canary out of the prediction log and the labels: what its stages showed, as arrays that the rule can judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.deployment.canary.intervals import Labelled, Numbers, Stratum

if TYPE_CHECKING:
    import pandas as pd

CHAMPION = "default"  # the champion's predictor


@dataclass(frozen=True)
class Period:
    """A stage in the log: who answered for the challenger, from the moment its weight was in effect until its end (not included)."""

    predictor: str
    start: datetime
    end: datetime


def served(platform: Platform, usecase: str, since: datetime) -> pd.DataFrame:
    """Rows of the prediction log that were received from `since` on; columns as `PredictionLog.received_since`."""
    from components.monitoring.prediction_log import PredictionLog

    return PredictionLog(platform.prediction_log_uri).received_since(usecase, since)


def of_predictor(rows: pd.DataFrame, predictor: str, release: str, start: datetime, end: datetime) -> pd.DataFrame:
    """What one release answered as one predictor in a period of receipt."""
    import pandas as pd

    received = pd.to_datetime(rows["received"], utc=True)
    return rows[(rows["predictor"] == predictor) & (rows["release"] == release) & (received >= start) & (received < end)]


def one_a_request(rows: pd.DataFrame) -> Numbers:
    """The probability of each request's first row: rows of one request went the same way together, so they are one draw of the splitter."""
    first = rows[rows["id"].str.endswith("-0")]
    return np.asarray(first["probability"].to_numpy(), dtype=np.float64)


def strata(
    usecase: LoadedUseCase, platform: Platform, rows: pd.DataFrame, periods: Sequence[Period], challenger: str, champion: str, as_of: datetime
) -> list[Stratum]:
    """Labelled rows of each period, labels as of `as_of`. `challenger`, `champion`: release ids. A shadow answered the same rows: paired."""
    found = []
    for period in periods:
        ours = _labelled(usecase, platform, of_predictor(rows, period.predictor, challenger, period.start, period.end), as_of)
        theirs = _labelled(usecase, platform, of_predictor(rows, CHAMPION, champion, period.start, period.end), as_of)
        paired = period.predictor == "shadow"
        if paired:
            both = sorted(set(ours["entity"]) & set(theirs["entity"]))
            ours, theirs = (each.set_index("entity").loc[both].reset_index() for each in (ours, theirs))
        found.append(Stratum(_as_arrays(ours), _as_arrays(theirs), paired))
    return found


def _labelled(usecase: LoadedUseCase, platform: Platform, rows: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    from components.monitoring.feedback import read_labels
    from components.monitoring.performance.join import join, table_labels

    if not len(rows):
        return rows.assign(label=[])
    table = table_labels(usecase, platform.lake_uri, rows["prediction_moment"].min(), as_of)
    joined = join(usecase, rows.copy(), table, read_labels(platform.labels_uri, usecase.name, as_of), as_of)
    return joined[joined["state"] == "labelled"].reset_index(drop=True)


def _as_arrays(rows: pd.DataFrame) -> Labelled:
    request = np.array([str(id).rsplit("-", 1)[0] for id in rows["id"]], dtype=np.str_)
    return Labelled(rows["label"].to_numpy(dtype=np.int64), rows["probability"].to_numpy(dtype=np.float64), request)
