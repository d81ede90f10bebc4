"""Labels as they were known at a moment of business time, and the rules that close what will never be known."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import pandas as pd

from components.contracts.errors import InvalidData
from components.contracts.loading import LoadedUseCase
from components.contracts.usecase import Label

if TYPE_CHECKING:
    from components.monitoring.feedback import FeedbackLabel

MISSING = "missing"
State = Literal["labelled", "excluded", "missing", "pending"]


def labels_as_of(usecase: LoadedUseCase, outcomes: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    """Labels known at `as_of`, one row per row of `outcomes` (the label's group as `read_group` returns it) with known_at <= as_of.

    Columns: `entity`, `label` (nullable boolean; NA for an outcome that is excluded), `outcome`, `label_known_at` (UTC).
    Raises InvalidData for an outcome that the contract does not declare, or a labelled outcome without a value.
    """
    label = usecase.config.data.label
    known = outcomes[outcomes["known_at"] <= pd.Timestamp(as_of)]
    labelled = known[label.outcome_column] == label.labelled_outcome
    _refuse_undeclared(known, labelled, label)
    values = (known[label.column] > label.threshold).astype("boolean").mask(~labelled)
    return pd.DataFrame(
        {
            "entity": known[usecase.config.data.prediction.entity],
            "label": values,
            "outcome": known[label.outcome_column],
            "label_known_at": known["known_at"],
        }
    ).reset_index(drop=True)


def fill_with_corrections(labels: pd.DataFrame, corrections: Iterable[FeedbackLabel]) -> pd.DataFrame:
    """`labels` (from `labels_as_of`) and a row more for each corrected entity that they have no row of: an official word always wins.

    An entity whose predictions were corrected to different values is left out; of equal corrections the earliest gives `label_known_at`.
    """
    official = set(labels["entity"])
    by_entity: dict[str, list[FeedbackLabel]] = {}
    for correction in corrections:
        if correction.entity not in official:
            by_entity.setdefault(correction.entity, []).append(correction)
    earliest = [min(each, key=lambda one: one.known_at) for each in by_entity.values() if len({one.label for one in each}) == 1]
    if not earliest:
        return labels
    filled = pd.DataFrame([(one.entity, one.label, one.outcome, one.known_at) for one in earliest], columns=["entity", "label", "outcome", "label_known_at"])
    return pd.concat([labels, filled.astype({name: labels[name].dtype for name in filled.columns})], ignore_index=True)


def close_labels(usecase: LoadedUseCase, predictions: pd.DataFrame, labels: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    """Join labels to predictions and say what became of each: nothing is dropped and nothing is awaited for ever.

    `predictions`: columns `entity`, `prediction_moment`, any others; `labels`: from `labels_as_of` at the same `as_of`. Returns the
    predictions, same rows, same order and index, with `label`, `outcome`, `label_known_at` and `state`:
    labelled; excluded (a declared outcome without a label); missing (nothing known `never_after` the prediction: closed, and a label
    that comes later still changes nothing); pending (still awaited).
    """
    label = usecase.config.data.label
    if labels["entity"].duplicated().any():
        raise InvalidData("an entity has two labels; the key of the label's table must identify the predicted thing")
    joined = predictions.join(labels.set_index("entity"), on="entity")
    deadline = joined["prediction_moment"] + pd.Timedelta(label.never_after)
    too_late = joined["label_known_at"] > deadline
    joined["label"] = joined["label"].astype("boolean").mask(too_late)
    joined["outcome"] = joined["outcome"].astype(object).mask(too_late)
    joined["label_known_at"] = joined["label_known_at"].mask(too_late)
    unknown = joined["outcome"].isna()
    closed = unknown & (deadline <= pd.Timestamp(as_of))
    joined["state"] = "labelled"
    joined.loc[~unknown & joined["label"].isna(), "state"] = "excluded"
    joined.loc[unknown, "state"] = "pending"
    joined.loc[closed, "state"] = MISSING
    joined.loc[closed, "outcome"] = MISSING
    return joined


def _refuse_undeclared(known: pd.DataFrame, labelled: pd.Series[bool], label: Label) -> None:
    undeclared = sorted(set(known.loc[~labelled, label.outcome_column].astype(str)) - set(label.outcomes))
    if undeclared:
        raise InvalidData(f"{label.outcome_column} has undeclared values {undeclared}; declare them in usecase.yaml under data.label.outcomes")
    empty = labelled & known[label.column].isna()
    if empty.any():
        raise InvalidData(
            f"{int(empty.sum())} rows have outcome {label.labelled_outcome!r} and no {label.column}; correct source.py: such a row needs another outcome"
        )
