"""Rows as the float32 matrix that XGBoost sees: one encoding for training, evaluation, detectors, batch scoring and the server.

Categories become their position in the fixed list that the model was trained with (XGBoost's native categories); a missing value, and
a category that the list does not have, becomes NaN, which XGBoost sends down the default branch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.contracts.errors import CrisplineError

Matrix = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]


class InvalidModelInput(CrisplineError):
    """A row cannot be given to the model: a column is absent or holds something that is neither a number nor missing."""


@dataclass(frozen=True)
class Encoding:
    """The model's columns in order, and the category list of those that are categories."""

    feature_names: tuple[str, ...]
    categorical: Mapping[str, tuple[str, ...]]

    @property
    def feature_types(self) -> list[str]:
        """XGBoost's type of each column: `c` for a category, `float` for a number."""
        return ["c" if name in self.categorical else "float" for name in self.feature_names]

    def encode(self, frame: pd.DataFrame) -> Matrix:
        """`frame` [rows, any columns in any order] as float32 [rows, features]. Raises InvalidModelInput naming the column."""
        absent = [name for name in self.feature_names if name not in frame.columns]
        if absent:
            raise InvalidModelInput(f"columns missing for the model: {', '.join(absent)}; pass every feature, null where it is unknown")
        matrix = np.empty((len(frame), len(self.feature_names)), dtype=np.float32)
        for position, name in enumerate(self.feature_names):
            matrix[:, position] = self._category(frame[name], name) if name in self.categorical else _number(frame[name], name)
        return _finite(matrix, self.feature_names)

    def encode_rows(self, rows: Sequence[Mapping[str, Any]]) -> Matrix:
        """The same for a few rows as mappings (JSON values), without the cost of a data frame: float32 [rows, features]."""
        codes = {name: {category: position for position, category in enumerate(categories)} for name, categories in self.categorical.items()}
        matrix = np.empty((len(rows), len(self.feature_names)), dtype=np.float32)
        for number, row in enumerate(rows):
            for position, name in enumerate(self.feature_names):
                try:
                    value = row[name]
                except KeyError:
                    raise InvalidModelInput(f"columns missing for the model: {name}; pass every feature, null where it is unknown") from None
                if name in codes:
                    matrix[number, position] = np.nan if value is None else codes[name].get(str(value), np.nan)
                else:
                    try:
                        matrix[number, position] = np.nan if value is None else value
                    except (TypeError, ValueError):
                        raise InvalidModelInput(f"column {name!r} holds {value!r}, which is not a number; null means missing") from None
        return _finite(matrix, self.feature_names)

    def unknown_categories(self, frame: pd.DataFrame) -> dict[str, npt.NDArray[np.bool_]]:
        """Columns with a value that is present but not in the model's list, each with a mask [rows]; such a value counts as missing."""
        found = {}
        for name in self.categorical:
            mask = np.isnan(self._category(frame[name], name)) & frame[name].notna().to_numpy()
            if mask.any():
                found[name] = mask
        return found

    def unknown_in_row(self, row: Mapping[str, Any]) -> list[str]:
        """Warnings, one for each category of `row` that the model was not trained with."""
        return [
            f"{name}: {row[name]!r} is not a category that the model knows; treated as missing"
            for name, categories in self.categorical.items()
            if row.get(name) is not None and str(row[name]) not in categories
        ]

    def _category(self, values: pd.Series, name: str) -> npt.NDArray[np.float32]:
        codes = pd.Index(self.categorical[name], dtype=object).get_indexer(pd.Index(values.astype(object)))
        encoded = codes.astype(np.float32)
        encoded[codes < 0] = np.nan
        return encoded


def _number(values: pd.Series, name: str) -> npt.NDArray[np.float32]:
    try:
        if values.dtype == object:
            return values.map(lambda value: np.nan if value is None or value is pd.NA else float(value)).to_numpy(dtype=np.float32)
        return values.to_numpy(dtype=np.float32, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InvalidModelInput(f"column {name!r} holds something that is not a number ({error}); null means missing") from error


def _finite(matrix: Matrix, feature_names: tuple[str, ...]) -> Matrix:
    infinite = np.isinf(matrix)
    if infinite.any():
        raise InvalidModelInput(f"column {feature_names[int(np.argmax(infinite.any(axis=0)))]!r} holds an infinite value; null means missing")
    return matrix
