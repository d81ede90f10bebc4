"""What evaluation measured and what the gates made of it: frozen, strict, JSON in and out.

Every `MetricValue` is an estimate with the interval of a block bootstrap over days at the use case's confidence. `improvement` is signed
so that positive means the judged model is better, `loss` so that positive means it is worse, whichever way the metric points.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from components.contracts.records import record_id
from components.contracts.usecase import Metric, Moment


class Measured(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class MetricValue(Measured):
    """An estimate with its interval, `low` <= `value` <= `high`."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat

    @property
    def negated(self) -> MetricValue:
        return MetricValue(value=0.0 - self.value, low=0.0 - self.high, high=0.0 - self.low)  # 0.0 - x: never the negative zero


class Decisions(Measured):
    """What the decision threshold leads to: shares of the rows, of the positives and of the negatives that are decided positive."""

    positive_share: FiniteFloat
    true_positive_rate: FiniteFloat | None
    false_positive_rate: FiniteFloat | None


class ReliabilityBin(Measured):
    """Rows with similar probability: the mean prediction and the observed share of positives."""

    predicted: FiniteFloat
    observed: MetricValue
    rows: int


class Curves(Measured):
    """ROC (false positive rate, true positive rate) and precision-recall (recall, precision) points, thinned for drawing."""

    roc: tuple[tuple[FiniteFloat, FiniteFloat], ...]
    precision_recall: tuple[tuple[FiniteFloat, FiniteFloat], ...]
    reliability: tuple[ReliabilityBin, ...]


class SlicePart(Measured):
    """One value or band of a slice. Not judged (and `why_not` says why) below `minimum_rows` labelled rows or with one class only."""

    slice: str
    part: str
    rows: int
    positives: int
    judged: bool
    why_not: str = ""
    protected: bool = False
    metrics: dict[Metric, MetricValue] = Field(default_factory=dict)
    decisions: Decisions | None = None


class PairedDifference(Measured):
    """The judged model against an opponent on the same rows and the same bootstrap draws."""

    model: FiniteFloat
    opponent: FiniteFloat
    improvement: MetricValue


class PartLoss(Measured):
    """What one part of a slice loses against the champion; the bounds hold for all parts of all slices at once."""

    slice: str
    part: str
    rows: int
    loss: dict[Metric, MetricValue]


class Comparison(Measured):
    """`name`: the opponent, e.g. a release id. A champion's features are read from the same rows under their names."""

    kind: Literal["champion", "simple", "constant"]
    name: str
    rows: int
    differences: dict[Metric, PairedDifference]
    parts: tuple[PartLoss, ...] = Field(default=(), description="against a champion, for the metrics that a gate of kind slice_champion names")


class Disturbance(Measured):
    """Inputs made missing or noisy, and what metrics lose by it (those that gates or the retraining ask for, and the cost). Only `judged` ones enter the robustness gate."""

    name: str
    kind: Literal["view_missing", "feature_missing", "perturbed", "all_views_missing"]
    inputs: tuple[str, ...]
    judged: bool
    loss: dict[Metric, MetricValue]


class Robustness(Measured):
    rows: int
    perturbation: FiniteFloat = Field(description="standard deviation of the noise, as a share of each feature's own")
    disturbances: tuple[Disturbance, ...]


class Leakage(Measured):
    """AUC of the best rule on one feature alone: by the order of its values, or by the label share of its bins in training."""

    feature: str
    auc: MetricValue
    rule: Literal["order", "bins"]


class ShuffledLabels(Measured):
    """AUC on the test rows of models that learned from shuffled labels, mean over `shuffles`; 0.5 where nothing leaks."""

    auc: MetricValue
    shuffles: int


class FeedFreshness(Measured):
    """Share of the test rows without any fresh value of a feature view."""

    view: str
    stale_share: FiniteFloat


class Reproduction(Measured):
    """The model trained again from its record: whether the files have the same bytes, and the largest difference of a test row's probability."""

    same_bytes: bool
    largest_difference: FiniteFloat


class SliceImportance(Measured):
    slice: str
    part: str
    rows: int
    importance: dict[str, FiniteFloat]


class Explanation(Measured):
    """SHAP: mean absolute contribution per feature in log odds before calibration, over `rows` sampled rows and by slice."""

    rows: int
    bias: FiniteFloat
    importance: dict[str, FiniteFloat]
    direction: dict[str, FiniteFloat | None] = Field(
        description="rank correlation of a numeric feature's value with its contribution; null for categories and constant ones"
    )
    by_slice: tuple[SliceImportance, ...]


class Latency(Measured):
    """Scoring time of the model alone (no HTTP, no feature look-up), in milliseconds of wall clock on the evaluating machine."""

    one_row_median_ms: FiniteFloat
    one_row_p95_ms: FiniteFloat
    repeats: int
    batch_rows: int
    batch_median_ms: FiniteFloat


class EvaluationResult(Measured):
    """One model judged on the test split of one dataset. `event_time`: the data version's as-of moment, never the wall clock."""

    usecase: str
    model_version: str
    dataset: str
    data_version: str
    code_version: str
    event_time: Moment
    test_start: Moment
    test_end: Moment
    champion: str
    confidence: FiniteFloat
    bootstrap_samples: int
    bootstrap_days: int
    seed: int
    decision_threshold: FiniteFloat
    rows: int
    positives: int
    outcomes: dict[str, int] = Field(description="test rows without a label, by outcome; excluded from every metric")
    metrics: dict[Metric, MetricValue]
    decisions: Decisions
    curves: Curves
    slices: tuple[SlicePart, ...]
    comparisons: tuple[Comparison, ...]
    robustness: Robustness
    leakage: tuple[Leakage, ...]
    shuffled_labels: ShuffledLabels | None = None
    freshness: tuple[FeedFreshness, ...] = ()
    reproduction: Reproduction | None = Field(default=None, description="null where the model came without the record of its training")
    explanation: Explanation
    latency: Latency
    size_megabytes: FiniteFloat

    @property
    def id(self) -> str:
        """Derived from everything that was measured."""
        return record_id("evaluation", self.model_dump_json())

    def comparison(self, kind: Literal["champion", "simple", "constant"]) -> Comparison | None:
        return next((each for each in self.comparisons if each.kind == kind), None)


GateOutcome = Literal["passed", "failed"]


class GateVerdict(Measured):
    """What one gate found. `value`, `low`, `high`: of the worst case that it looked at; `decisive`: the number held against `limit`.

    `not_judged`: what the gate could not look at (sparse slices). A blocking gate that could judge nothing fails.
    """

    name: str
    kind: str
    blocking: bool
    outcome: GateOutcome
    limit: FiniteFloat
    why: str
    metric: Metric | None = None
    subject: str = ""
    value: FiniteFloat | None = None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    decisive: FiniteFloat | None = None
    not_judged: tuple[str, ...] = ()


class GateReport(Measured):
    """All gates together: failed when a blocking one failed."""

    outcome: GateOutcome
    reason: str
    verdicts: tuple[GateVerdict, ...]
