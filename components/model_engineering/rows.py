"""The rows that fitting may see: labelled, of one split, in key order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.features import Latest
from components.contracts.loading import LoadedUseCase
from components.contracts.usecase import Column
from components.model_server.encoding import Encoding


@dataclass(frozen=True)
class LabelledRows:
    """`frame` [rows, dataset columns] sorted by entity and prediction moment; `label` [rows] 0.0 or 1.0."""

    frame: pd.DataFrame
    label: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)

    def where(self, mask: npt.NDArray[np.bool_]) -> LabelledRows:
        return LabelledRows(self.frame[mask].reset_index(drop=True), self.label[mask])


def read_dataset(path: str | Path) -> pd.DataFrame:
    return pd.read_parquet(path)


def labelled_rows(dataset: pd.DataFrame, split: str) -> LabelledRows:
    """The rows of `split` with a known label, in an order that does not depend on the order of `dataset` (the booster's bytes depend on it).

    Raises InvalidData when there are none, or only one class: nothing can be learned or judged on them.
    """
    rows = dataset[(dataset["split"] == split) & dataset["label"].notna()].sort_values(["entity", "prediction_moment"], kind="stable", ignore_index=True)
    label: npt.NDArray[np.float64] = rows["label"].astype(bool).to_numpy().astype(np.float64)
    if len(rows) == 0 or label.min() == label.max():
        raise InvalidData(
            f"split {split!r} has {len(rows)} labelled rows and {len(set(label))} class(es); two classes are needed: "
            "lengthen retraining.training_window or model.validation_share, or check the label's threshold"
        )
    return LabelledRows(rows, label)


def encoding_of(usecase: LoadedUseCase) -> Encoding:
    """The model's columns and category lists, from features.py and the column contracts (never from the data at hand).

    Raises CrisplineError for a feature that is neither a number nor a category.
    """
    categorical = {}
    for name, column in feature_columns(usecase).items():
        if column is None or column.type in ("integer", "float", "boolean"):
            continue
        if column.type != "category" or not column.categories:
            raise CrisplineError(f"feature {name!r} is a {column.type}; declare it as type category with its categories, or remove it from features.py")
        categorical[name] = tuple(column.categories)
    return Encoding(usecase.features.feature_names, categorical)


def feature_columns(usecase: LoadedUseCase) -> dict[str, Column | None]:
    """The contract of the column behind each feature; None for an aggregate, whose values are numbers of another meaning than its column's."""
    tables = usecase.config.data.tables
    columns: dict[str, Column | None] = {name: tables[usecase.config.data.prediction.table].columns[name] for name in usecase.features.request_fields}
    for view in usecase.features.views:
        for feature in view.features:
            columns[feature.name] = tables[view.table].columns[feature.column] if isinstance(feature, Latest) else None
    return columns
