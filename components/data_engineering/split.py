"""Split a training frame by time, with an embargo for the delay of the label."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from components.contracts.errors import InvalidData

TRAIN, VALIDATION, EMBARGO, TEST = "train", "validation", "embargo", "test"


@dataclass(frozen=True)
class TimeSplit:
    """`split`: one of train, validation, embargo, test per row of the frame, under its index. `boundaries`: the moments between them."""

    split: pd.Series[Any]
    boundaries: dict[str, datetime]


def split_by_time(rows: pd.DataFrame, label_delay: timedelta, test_period: timedelta, validation_share: float) -> TimeSplit:
    """The latest `test_period` of labelled rows is the test; nothing that was learnt later than its first prediction may train.

    `rows`: `prediction_moment`, `event_time`, `label` (nullable boolean; null is a closed row without a label), `label_known_at`.
    A row before the test is under embargo when its label became known, or by the declared `label_delay` was due, after the first test
    prediction: on that day nobody could have trained on it. Of the rest, the latest `validation_share` of rows (by time) is the validation.
    Rows of one moment are never parted. Raises InvalidData when nothing is left to train or to validate on.
    """
    moment, labelled = rows["prediction_moment"], rows["label"].notna()
    if not labelled.any():
        raise InvalidData("no row of the frame has a label; wait for labels, or move the training start back")
    test = moment > moment[labelled].max() - test_period
    test_start = moment[test].min()
    known = pd.concat([rows["label_known_at"], rows["event_time"] + label_delay], axis=1).max(axis=1)
    embargo = ~test & (known > test_start)
    rest = moment[~test & ~embargo]
    if rest.empty:
        raise InvalidData(
            f"no row is left to train on: the test takes {test_period} and the label's delay {label_delay} before it; "
            "move the training start back, or shorten `model.test_period`"
        )
    validation_start = rest.quantile(1 - validation_share, interpolation="higher")
    if validation_start <= rest.min():
        raise InvalidData("all rows that are left to train on have one prediction moment; move the training start back")
    split = pd.Series(TRAIN, index=rows.index, dtype=object)
    split[moment >= validation_start] = VALIDATION
    split[embargo] = EMBARGO
    split[test] = TEST
    boundaries = {"training_start": rest.min(), "validation_start": validation_start, "test_start": test_start, "test_end": moment[test].max()}
    if embargo.any():
        boundaries["embargo_start"] = moment[embargo].min()
    return TimeSplit(split, {name: stamp.to_pydatetime() for name, stamp in boundaries.items()})


def embargo_holds(split: pd.Series[Any], rows: pd.DataFrame) -> bool:
    """Whether no label of train or validation became known after the first prediction of the test."""
    learnt = split.isin([TRAIN, VALIDATION])
    return bool((rows.loc[learnt, "label_known_at"] <= rows.loc[split == TEST, "prediction_moment"].min()).all())
