"""Fit a use case's detectors on a model's reference data, keep them as files of the release, load them again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.usecase import Detector as DetectorChoice
from components.contracts.usecase import Monitoring
from components.monitoring.detectors.alibi import AlibiDetect
from components.monitoring.detectors.base import PROBABILITY, AlertKind, DetectorResult, Frozen, TwoSampleTest
from components.monitoring.detectors.calibration import Blocks, Calibration, calibrate, cut_blocks, even_sample, judge
from components.monitoring.detectors.effect import Categories, FeatureComparison, JointComparison, PredictionComparison
from components.monitoring.detectors.faults import diagnose
from components.monitoring.detectors.mix import ClassMixComparison, MissingComparison, SegmentMixComparison
from components.monitoring.detectors.relevance import weigh

LIBRARIES: dict[str, type[TwoSampleTest]] = {"alibi_detect": AlibiDetect}
DETECTORS_FILE, SAMPLE_FILE = "detectors.json", "sample.parquet"
MISSING_VALUES = "missing_values"  # the data-quality detector that every use case has
MAXIMUM_WINDOW = 20_000
# A prediction limit assumes a shape of the tail. Beyond this many times what the blocks have shown, the shape is all that the promise rests on.
FURTHEST = 20

AnyComparison = Annotated[
    FeatureComparison | JointComparison | PredictionComparison | ClassMixComparison | SegmentMixComparison | MissingComparison, Field(discriminator="kind")
]


class Detector(Frozen):
    """A comparison, the library behind it and the calibrated limit. `outside_training`: compares with rows that the model was not fitted on."""

    name: str
    kind: AlertKind
    library: str
    comparison: AnyComparison
    calibration: Calibration
    outside_training: bool = False


class DetectorFile(Frozen):
    """`detectors.json`. `excluded`: features that are not watched, with the reason."""

    usecase: str
    model_version: str
    feature_names: tuple[str, ...]
    false_alarms: int
    minimum_rows: int
    excluded: dict[str, str]
    detectors: tuple[Detector, ...]


@dataclass(frozen=True)
class DetectorSet:
    """All detectors of one model with the reference sample that they compare with (features, PROBABILITY, `outside_training`)."""

    file: DetectorFile
    sample: pd.DataFrame

    def test(self, window: pd.DataFrame) -> list[DetectorResult]:
        """Judge a window [rows, features + PROBABILITY]; beyond 20,000 rows an even sample of it. Alarms that a fault explains have it as a last result."""
        rows = window.iloc[even_sample(np.arange(len(window)), MAXIMUM_WINDOW)]
        outside = self.sample[self.sample["outside_training"]]
        results = []
        for detector in self.file.detectors:
            reference = outside if detector.outside_training else self.sample
            differences = detector.comparison.compare(LIBRARIES[detector.library](), reference, rows)
            results.append(judge(detector.name, detector.kind, detector.calibration, differences, len(window)))
        numeric = [name for detector in self.file.detectors if isinstance(detector.comparison, FeatureComparison) for name in detector.comparison.numeric]
        faults = diagnose(self.sample, rows, results, numeric, LIBRARIES[self.file.detectors[0].library]())
        weighed = weigh(results, self.sample, rows)
        return weighed if faults is None else [*weighed, faults]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DETECTORS_FILE).write_text(self.file.model_dump_json(indent=1) + "\n")
        self.sample.to_parquet(folder / SAMPLE_FILE, index=False, compression="zstd")

    @classmethod
    def load(cls, folder: Path) -> DetectorSet:
        """Raises CrisplineError when the folder holds no detectors."""
        file = folder / DETECTORS_FILE
        if not file.is_file():
            raise CrisplineError(f"{folder} holds no {DETECTORS_FILE}; the release was bundled without detectors, run the training pipeline again")
        return cls(DetectorFile.model_validate_json(file.read_text()), pd.read_parquet(folder / SAMPLE_FILE))


def fit(
    usecase: str, model_version: str, monitoring: Monitoring, reference: pd.DataFrame, feature_names: Sequence[str], categorical: Sequence[str]
) -> DetectorSet:
    """Fit every declared detector and the one for missing values.

    `reference`: rows in time order with the features, PROBABILITY, `prediction_moment` and `outside_training` (bool). The false-alarm rate
    of one in `monitoring.false_alarms` windows is shared equally among the detectors (Bonferroni). At most 10,000 rows, evenly spread, stand for
    the reference in each comparison. Raises InvalidData when the reference has too few blocks of time, at all or for the promised rate,
    CrisplineError for a segment that is no feature.
    """
    reference = reference.sort_values("prediction_moment", kind="stable", ignore_index=True)
    window, minimum = monitoring.window, monitoring.minimum_rows
    blocks, length = cut_blocks(reference["prediction_moment"], window, minimum)
    excluded = calendar_like(reference, blocks, feature_names, categorical)
    watched = [name for name in feature_names if name not in excluded]
    features = FeatureComparison(
        numeric=tuple(name for name in watched if name not in categorical),
        categorical={name: Categories.fit(reference[name], minimum) for name in watched if name in categorical},
    )
    alpha = 1 / (monitoring.false_alarms * (len(monitoring.detectors) + 1))
    sample = reference.iloc[even_sample(np.arange(len(reference)))]
    days = int(reference["prediction_moment"].dt.floor("D").nunique())
    outside = _outside_training(reference, window, minimum)
    detectors = []
    for choice in monitoring.detectors:
        comparison, kind = _comparison(choice, features, sample, minimum)
        unseen = outside is not None and choice.subject in ("predictions", "class_mix")
        rows, cut, size = (reference, blocks, length) if outside is None or not unseen else outside
        detectors.append(_calibrated(choice.name, kind, choice.kind, comparison, rows, cut, size, alpha, unseen))
    missing = MissingComparison.fit(tuple(feature_names), days, window / timedelta(days=1), alpha)
    detectors.append(_calibrated(MISSING_VALUES, "data_quality", "alibi_detect", missing, reference, blocks, length, alpha, False))
    _require_supported(detectors, monitoring.false_alarms)
    file = DetectorFile(
        usecase=usecase,
        model_version=model_version,
        feature_names=tuple(feature_names),
        false_alarms=monitoring.false_alarms,
        minimum_rows=minimum,
        excluded=excluded,
        detectors=tuple(detectors),
    )
    return DetectorSet(file, _plain(sample[[*feature_names, PROBABILITY, "outside_training"]], categorical))


def _require_supported(detectors: Sequence[Detector], promised: int) -> None:
    """Raises InvalidData where the promise reaches further into the tail than the history can be extrapolated to."""
    fewest = min(detector.calibration.blocks for detector in detectors)
    supported = FURTHEST * (fewest + 1) // len(detectors)
    if promised > supported:
        raise InvalidData(
            f"monitoring.false_alarms promises at most one false alarm in {promised} windows, and {fewest} blocks of history support one in {supported} "
            f"for {len(detectors)} detectors\n    remedy: promise at most {supported}, train on a longer period, or declare fewer detectors"
        )


def calendar_like(reference: pd.DataFrame, blocks: Blocks, feature_names: Sequence[str], categorical: Sequence[str]) -> dict[str, str]:
    """Features that tell blocks of time apart by themselves: two blocks of the reference have no value in common.

    A month, a year or a counter moves with every window; history cannot say how much of that is natural, so it is not watched.
    """
    excluded = {}
    for name in feature_names:
        parts = [reference[name].iloc[block].dropna() for block in blocks]
        parts = [part for part in parts if len(part)]
        if name in categorical:
            values = [set(part.astype(str)) for part in parts]
            apart = any(not one & other for number, one in enumerate(values) for other in values[number + 1 :])
        else:
            numbers = [pd.to_numeric(part) for part in parts]
            apart = len(numbers) > 1 and min(float(part.max()) for part in numbers) < max(float(part.min()) for part in numbers)
        if apart:
            excluded[name] = "two periods of the reference have no value in common: it follows the calendar"
        elif not parts:
            excluded[name] = "it has no values in the reference"
    return excluded


def _comparison(choice: DetectorChoice, features: FeatureComparison, sample: pd.DataFrame, minimum_rows: int) -> tuple[AnyComparison, AlertKind]:
    match choice.subject:
        case "features":
            return features, "data_drift"
        case "joint":
            return JointComparison.fit(features, sample), "joint_drift"
        case "predictions":
            return PredictionComparison(), "prediction_drift"
        case "class_mix":
            return ClassMixComparison(), "class_mix_drift"
        case "segment_mix":
            if choice.column is None or choice.column not in sample.columns:
                raise CrisplineError(f"detector {choice.name!r}: column {choice.column!r} is no feature\n    remedy: name a feature in monitoring.detectors")
            return SegmentMixComparison(column=choice.column, categories=Categories.fit(sample[choice.column], minimum_rows)), "segment_mix_drift"


def _calibrated(
    name: str, kind: AlertKind, library: str, comparison: AnyComparison, rows: pd.DataFrame, blocks: Blocks, length: timedelta, alpha: float, outside: bool
) -> Detector:
    calibration = calibrate(comparison, LIBRARIES[library](), rows, blocks, length, alpha)
    return Detector(name=name, kind=kind, library=library, comparison=comparison, calibration=calibration, outside_training=outside)


def warm_up(libraries: Iterable[str]) -> None:
    """Make each library's first, slow call (it imports the library: seconds), so that the first window does not wait for it."""
    for library in set(libraries):
        LIBRARIES[library]().numeric(np.zeros((2, 1)), np.ones((2, 1)))


def _outside_training(reference: pd.DataFrame, window: timedelta, minimum_rows: int) -> tuple[pd.DataFrame, Blocks, timedelta] | None:
    """Rows that the model was not fitted on, when they make enough windows: predictions on training rows are too sure of themselves."""
    rows = reference[reference["outside_training"]].reset_index(drop=True)
    if rows.empty or rows["prediction_moment"].max() - rows["prediction_moment"].min() < 4 * window:
        return None
    blocks, length = cut_blocks(rows["prediction_moment"], window, minimum_rows)
    return (rows, blocks, length) if length == window else None


def _plain(frame: pd.DataFrame, categorical: Sequence[str]) -> pd.DataFrame:
    """Text and float64 only, so that the file reads back the same in every version of pandas."""
    columns: dict[str, Any] = {}
    for name in frame.columns:
        if name == "outside_training":
            columns[name] = frame[name].astype(bool)
        elif name in categorical:
            columns[name] = frame[name].astype(object).where(frame[name].notna(), None).map(lambda value: None if value is None else str(value))
        else:
            columns[name] = pd.to_numeric(frame[name], errors="coerce").astype("float64")
    return pd.DataFrame(columns).reset_index(drop=True)


def expected_windows_between_false_alarms(detectors: Sequence[Detector]) -> int:
    """Windows in which the detectors together promise at most one false alarm."""
    return math.floor(1 / sum(detector.calibration.alpha for detector in detectors) + 1e-9)
