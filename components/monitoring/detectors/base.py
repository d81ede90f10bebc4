"""The narrow interface of detectors: a two-sample test that a library provides, a comparison of a window with the reference, a result."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

PROBABILITY = "__probability"  # column of the calibrated probability beside the features; no feature may have this name

AlertKind = Literal["data_drift", "joint_drift", "prediction_drift", "class_mix_drift", "segment_mix_drift", "data_quality"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TwoSampleTest(Protocol):
    """What a library has to offer. An Apache-2.0 choice implements these two methods and stands in `LIBRARIES`."""

    def numeric(self, reference: npt.NDArray, window: npt.NDArray) -> list[tuple[float, float]]:  # type: ignore[type-arg]
        """Distance in [0, 1] and p-value per column of two arrays [rows, columns] without missing values."""
        ...

    def categorical(self, reference: npt.NDArray, window: npt.NDArray, categories: int) -> tuple[float, float]:  # type: ignore[type-arg]
        """Distance in [0, 1] and p-value of two arrays [rows] of codes 0 .. categories - 1."""
        ...


class Difference(Frozen):
    """One part of a comparison: a feature, a component, the predictions, a segment.

    `statistic`: the distance that is tested. `p_value`: the library's own, which takes rows as independent; it decides nothing. `noise`: the
    distance that independent rows alone would show on average. `effect` with `unit`: the size in terms of a person; `text`: in words.
    """

    part: str
    statistic: float
    p_value: float
    noise: float
    effect: float
    unit: str
    text: str


class Comparison(Protocol):
    """Compares frames [rows, features + PROBABILITY]; frozen, with everything that was fitted on the reference inside it."""

    @property
    def minimum_ratio(self) -> float:
        """Lowest threshold, in multiples of a part's natural variation."""
        ...

    def compare(self, library: TwoSampleTest, reference: pd.DataFrame, window: pd.DataFrame) -> list[Difference]:
        """One difference per part that can be compared; a part with too few values is left out."""
        ...


class PartResult(Frozen):
    """`relevance`: of a drifted feature, the points of probability by which it moves the predictions (`components.monitoring.detectors.relevance`)."""

    part: str
    statistic: float
    threshold: float
    p_value: float
    effect: float
    unit: str
    text: str
    alarm: bool
    relevance: float | None = None


class DetectorResult(Frozen):
    """One detector's verdict on one window. `statistic` and `threshold` are those of the part that stands furthest over its threshold.

    `p_value`: share of reference windows expected beyond this one, from the calibration on blocks of reference time.
    """

    detector: str
    kind: AlertKind
    alarm: bool
    subject: str
    statistic: float
    threshold: float
    p_value: float
    effect: str
    rows: int
    parts: tuple[PartResult, ...]
