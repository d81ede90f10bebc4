"""What a stream is: dated rows with a label, when the label became known, and the windows in which a model of them would be watched."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import pandas as pd

MOMENT, LABEL = "moment", "label"
Role = Literal["development", "judged"]


@dataclass(frozen=True)
class Stream:
    """`rows`: `moment` (UTC), `label` (0 or 1) and features: numbers (NaN is missing) or pandas categories, in order of time.

    `start`: when the first model goes live; rows before it are its history. `delay`: from a row's moment to its label. `training_window`: what a
    sliding window keeps. `role`: constants of the policy were chosen on `development` streams alone.
    """

    name: str
    predicts: str
    source: str
    differs: str
    role: Role
    rows: pd.DataFrame
    start: pd.Timestamp
    window: timedelta
    delay: timedelta
    training_window: timedelta

    @property
    def features(self) -> list[str]:
        return [name for name in self.rows.columns if name not in (MOMENT, LABEL)]


def dated(rows: pd.DataFrame, moment: pd.Series[pd.Timestamp], label: pd.Series[bool]) -> pd.DataFrame:
    """`rows` of features with their moment and label, in order of time; text becomes categories, numbers become float32."""
    ready = rows.copy()
    for name in ready.columns:
        if pd.api.types.is_bool_dtype(ready[name].dtype) or pd.api.types.is_numeric_dtype(ready[name].dtype):
            ready[name] = ready[name].astype("float32")
        else:
            ready[name] = ready[name].astype("string").astype("category")
    ready.insert(0, MOMENT, pd.to_datetime(moment, utc=True).astype("datetime64[us, UTC]"))
    ready.insert(1, LABEL, label.astype("int8"))
    return ready.sort_values(MOMENT, kind="stable", ignore_index=True)


def thinned(rows: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """At most `count` rows, drawn without regard to time or label, in order of time."""
    return rows if len(rows) <= count else rows.sample(count, random_state=seed).sort_index().reset_index(drop=True)


def year_moment(year: pd.Series[int]) -> pd.Series[pd.Timestamp]:
    """The middle of the year, for tables that tell no more."""
    return pd.to_datetime(year.astype(int).astype(str) + "-07-01", utc=True)
