"""Differences in what the model reads and says: feature by feature, jointly, in the predictions; sizes in units of a person."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.monitoring.detectors.base import PROBABILITY, Difference, Frozen, TwoSampleTest

MINIMUM_VALUES = 20  # fewer values than that say nothing about a distribution; the missing share is a test of its own
OTHER = "(other)"
_QUANTILES = np.linspace(0.0, 1.0, 201)[1:-1]
_MAXIMUM_COMPONENTS = 10
_EXPLAINED = 0.9


class Categories(Frozen):
    """The categories that are watched one by one; every other value, unseen ones included, counts as OTHER.

    A new category is therefore no drift by itself: only the share of rows that it takes counts.
    """

    names: tuple[str, ...]

    @classmethod
    def fit(cls, values: pd.Series[Any], minimum_rows: int) -> Categories:
        """Watch those of which the smallest window is expected to hold at least five rows, the usual condition of a chi-square test."""
        shares = values.dropna().astype(str).value_counts(normalize=True)
        return cls(names=tuple(sorted(shares.index[shares * minimum_rows >= 5.0])))

    def codes(self, values: pd.Series[Any]) -> npt.NDArray[np.int64]:
        """Codes [rows without missing values]; the last code is OTHER."""
        known = pd.Categorical(values.dropna().astype(str), categories=list(self.names)).codes.astype(np.int64)
        return np.where(known < 0, len(self.names), known)

    def shares(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.bincount(codes, minlength=len(self.names) + 1) / max(len(codes), 1)


def numeric_difference(part: str, library: TwoSampleTest, reference: npt.NDArray[Any], window: npt.NDArray[Any]) -> Difference | None:
    """KS distance; effect: Wasserstein distance in standard deviations of the reference (from 199 quantiles)."""
    reference, window = reference[np.isfinite(reference)], window[np.isfinite(window)]
    if min(len(reference), len(window)) < MINIMUM_VALUES:
        return None
    ((statistic, p_value),) = library.numeric(reference, window)
    before, after = np.quantile(reference, _QUANTILES), np.quantile(window, _QUANTILES)
    spread = float(reference.std()) or 1.0
    effect = float(np.abs(after - before).mean()) / spread
    text = f"{part}: median {_number(float(np.median(reference)))} -> {_number(float(np.median(window)))}, moved {effect:.2f} standard deviations"
    return Difference(
        part=part, statistic=statistic, p_value=p_value, noise=_ks_noise(len(reference), len(window)), effect=effect, unit="standard deviations", text=text
    )


def categorical_difference(part: str, library: TwoSampleTest, categories: Categories, reference: pd.Series[Any], window: pd.Series[Any]) -> Difference | None:
    """Cramér's V; effect: percentage points of rows that changed category (total variation distance)."""
    before, after = categories.codes(reference), categories.codes(window)
    if min(len(before), len(after)) < MINIMUM_VALUES:
        return None
    statistic, p_value = library.categorical(*_pool_rare(before, after, len(categories.names)), len(categories.names) + 1)
    change = categories.shares(after) - categories.shares(before)
    effect = 50.0 * float(np.abs(change).sum())
    most = int(np.abs(change).argmax())
    name = (*categories.names, OTHER)[most]
    text = f"{part}: {effect:.1f} points of the rows moved, most of all {name} ({100 * change[most]:+.1f} points)"
    noise = math.sqrt(max(len(categories.names), 1) / (len(before) + len(after)))
    return Difference(part=part, statistic=statistic, p_value=p_value, noise=noise, effect=effect, unit="points", text=text)


def _pool_rare(before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], other: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """OTHER joins the rarest watched category unless it is expected in five rows of the window: below that, chi-square is dominated by it."""
    expected = ((before == other).sum() + (after == other).sum()) * len(after) / (len(before) + len(after))
    if expected >= 5.0 or other == 0:
        return before, after
    rarest = int(np.bincount(before, minlength=other + 1)[:other].argmin())
    return np.where(before == other, rarest, before), np.where(after == other, rarest, after)


class FeatureComparison(Frozen):
    """Every feature on its own; missing values are left to the data-quality test."""

    kind: Literal["features"] = "features"
    numeric: tuple[str, ...]
    categorical: dict[str, Categories]
    minimum_ratio: float = 0.0

    def compare(self, library: TwoSampleTest, reference: pd.DataFrame, window: pd.DataFrame) -> list[Difference]:
        found = [numeric_difference(name, library, numbers(reference[name]), numbers(window[name])) for name in self.numeric]
        found += [categorical_difference(name, library, known, reference[name], window[name]) for name, known in self.categorical.items()]
        return [difference for difference in found if difference is not None]


class PredictionComparison(Frozen):
    """The distribution of the calibrated probability."""

    kind: Literal["predictions"] = "predictions"
    minimum_ratio: float = 0.0

    def compare(self, library: TwoSampleTest, reference: pd.DataFrame, window: pd.DataFrame) -> list[Difference]:
        difference = numeric_difference("probability", library, numbers(reference[PROBABILITY]), numbers(window[PROBABILITY]))
        return [] if difference is None else [difference]


class JointComparison(Frozen):
    """All features together, by the scores on the principal components of the reference (90% of the variance, at most ten).

    A change of correlation changes the spread of a component, so it shows where no single feature moves. Numbers are standardised and
    clipped at five standard deviations, categories are one column each; a missing value stands at the mean, so it adds no direction.
    (alibi-detect's MMD needs torch or tensorflow; a classifier would tell periods apart by their hourly constants and saturate.)
    """

    kind: Literal["joint"] = "joint"
    numeric: tuple[str, ...]
    categorical: dict[str, Categories]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    components: tuple[tuple[float, ...], ...]
    minimum_ratio: float = 0.0

    @classmethod
    def fit(cls, features: FeatureComparison, reference: pd.DataFrame) -> JointComparison:
        table = _design(features.numeric, features.categorical, reference)
        mean = np.nan_to_num(np.nanmean(np.where(np.isfinite(table).any(axis=0), table, 0.0), axis=0))
        scale = np.nan_to_num(np.nanstd(np.where(np.isfinite(table).any(axis=0), table, 0.0), axis=0))
        scale = np.where(scale > 0, scale, 1.0)
        variances, directions = np.linalg.eigh(np.cov(_standard(table, mean, scale), rowvar=False).reshape(len(mean), len(mean)))
        variances, directions = variances[::-1], directions[:, ::-1]
        needed = int(np.searchsorted(np.cumsum(variances) / max(variances.sum(), 1e-12), _EXPLAINED)) + 1
        kept = directions[:, : min(needed, _MAXIMUM_COMPONENTS, len(mean))]
        return cls(
            numeric=features.numeric,
            categorical=features.categorical,
            mean=tuple(map(float, mean)),
            scale=tuple(map(float, scale)),
            components=tuple(tuple(map(float, row)) for row in kept.T),
        )

    def compare(self, library: TwoSampleTest, reference: pd.DataFrame, window: pd.DataFrame) -> list[Difference]:
        before, after = self._scores(reference), self._scores(window)
        noise = _ks_noise(len(before), len(after))
        names = self._columns()
        found = []
        for number, (statistic, p_value) in enumerate(library.numeric(before, after)):
            spread = float(before[:, number].std()) or 1.0
            effect = float(np.abs(np.quantile(after[:, number], _QUANTILES) - np.quantile(before[:, number], _QUANTILES)).mean()) / spread
            leading = ", ".join(names[column] for column in np.argsort(-np.abs(self.components[number]))[:3])
            text = f"the combination led by {leading} moved {effect:.2f} standard deviations"
            found.append(
                Difference(
                    part=f"component_{number + 1}", statistic=statistic, p_value=p_value, noise=noise, effect=effect, unit="standard deviations", text=text
                )
            )
        return found

    def _scores(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        table = _design(self.numeric, self.categorical, frame)
        scores: npt.NDArray[np.float64] = _standard(table, np.array(self.mean), np.array(self.scale)) @ np.array(self.components).T
        return scores

    def _columns(self) -> list[str]:
        return [*self.numeric, *(f"{name}={value}" for name, known in self.categorical.items() for value in (*known.names, OTHER))]


def _design(numeric: tuple[str, ...], categorical: dict[str, Categories], frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    columns = [numbers(frame[name]) for name in numeric]
    for name, known in categorical.items():
        missing = frame[name].isna().to_numpy()
        codes = np.full(len(frame), -1)
        codes[~missing] = known.codes(frame[name])
        columns += [np.where(missing, np.nan, codes == number) for number in range(len(known.names) + 1)]
    return np.column_stack(columns).astype(np.float64)


def _standard(table: npt.NDArray[np.float64], mean: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.nan_to_num(np.clip((table - mean) / scale, -5.0, 5.0))


def numbers(column: pd.Series[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))


def _ks_noise(reference: int, window: int) -> float:
    """Mean of the Kolmogorov distribution, sqrt(pi / 2) ln 2, at these sizes."""
    return math.sqrt(math.pi / 2) * math.log(2) * math.sqrt((reference + window) / (reference * window))


def _number(value: float) -> str:
    return f"{value:.3g}"
