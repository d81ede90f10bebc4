"""The schema of `usecase.yaml`: one section per CRISP-ML(Q) phase (Studer et al. 2021, https://doi.org/10.3390/make3020020).

Every model is frozen, strict and closed. What one field can say of itself is checked here; what needs several sections, `features.py`
or line numbers is checked in `components.contracts.loading`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from components.contracts.durations import Duration, format_moment, parse_moment

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Range = Annotated[tuple[float, float], Field(strict=False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _moment(value: object) -> datetime:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    if isinstance(value, str):
        return parse_moment(value)
    raise ValueError(f"{value!r} is not a moment with a time zone; write it quoted: '2013-04-01T00:00:00Z'")


Moment = Annotated[datetime, BeforeValidator(_moment), PlainSerializer(format_moment, return_type=str)]
Text = Annotated[str, Field(min_length=1), AfterValidator(str.strip)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# --- The Q of CRISP-ML(Q): every phase declares what can go wrong and what would show it -------------------------------------------------


class Risk(Section):
    """A risk of a phase and the quality check that covers it. `check` names a check that crispline runs (see `QUALITY_CHECKS`)."""

    risk: Text
    check: Name
    note: str = ""


class Quality(Section):
    """Requirements, constraints and risks of one phase."""

    requirements: list[Text] = Field(min_length=1)
    constraints: list[Text] = Field(min_length=1)
    risks: list[Risk] = Field(min_length=1)


# Every check leaves a record of kind `check` with this name; the report joins risk, check and evidence.
QUALITY_CHECKS: dict[str, str] = {
    "feasibility": "understanding.feasibility: go or no-go against the success criteria",
    "data_validation": "data_engineering.validate: types, ranges, categories, nulls, keys, volume, label share, freshness",
    "leakage": "data_engineering.features: no feature changes when later-known values change; evaluation gate on too-good features",
    "rows_preserved": "data_engineering.features: the point-in-time join returns exactly the rows that it was asked for",
    "embargo": "data_engineering.split: no training label becomes known after the first test prediction",
    "reproducibility": "evaluation gate: trained again from its record (data version, parameters, seed), the model answers the same",
    "baseline": "evaluation gate: better than a constant and a simple model",
    "champion_comparison": "evaluation gate: not worse than the champion on the same rows, by a paired interval",
    "slices": "evaluation gate: no slice below its limit",
    "calibration": "evaluation gate: calibration error below its limit",
    "robustness": "evaluation gate: bounded loss with missing and perturbed inputs",
    "latency": "evaluation gate: scoring time and size of the model",
    "release_integrity": "deployment.promote: the bundle's hashes match the evaluated model; its gates passed",
    "serving_skew": "evaluation.check_serving_skew: what a release was served with equals the training join",
    "request_validation": "model_server: requests are held against the contract; refusals name the field",
    "freshness": "model_server: features older than declared count as missing, with a warning",
    "lost_events": "monitoring: gaps in the numbered answers are counted and alerted",
    "data_drift": "monitoring: inputs against the reference, per feature and jointly",
    "mix_drift": "monitoring: class and segment mix against the reference",
    "performance": "monitoring: estimated, then measured performance against the threshold",
    "retraining_budget": "monitoring.retrain_trigger: cooldown and budget, one run per cause",
}


# --- Phase 1: business and data understanding -------------------------------------------------------------------------------------------


class SuccessCriteria(Section):
    """What success means to the business, to machine learning and in money (CRISP-ML(Q) section 3.1.2)."""

    business: Text
    machine_learning: Text
    economic: Text
    minimum_rows: int = Field(gt=0, description="labelled rows below which training is a no-go")
    label_share: Annotated[tuple[Share, Share], Field(strict=False)] = Field(description="lowest and highest plausible share of positive labels")
    minimum_simple_rule_auc: Share = Field(description="AUC that a one-feature rule must reach for the problem to look learnable")
    maximum_data_age: Duration = Field(description="age of the newest label, beyond its declared delay, at the moment of training")


class Business(Section):
    problem: Text
    owner: Text
    users: list[Text] = Field(min_length=1)
    decision: Text = Field(description="what is done differently when the prediction is positive")
    cost_false_alarm: Positive
    cost_miss: Positive
    currency: Text
    success: SuccessCriteria
    quality: Quality


# --- Phase 2: data ----------------------------------------------------------------------------------------------------------------------


class Column(Section):
    """The contract of one column. `known_at` names the group of the table at whose known-at moment the value becomes known."""

    type: Literal["integer", "float", "boolean", "category", "string", "timestamp"]
    description: Text
    known_at: Name
    unit: str = ""
    range: Range | None = None
    categories: list[str] | None = None
    nullable: bool = False
    classification: Literal["public", "internal", "personal"] = "public"
    protected: bool = Field(default=False, description="a protected attribute: evaluated for fairness, never a feature")
    owner: Text


class KnownAt(Section):
    """When a group of columns becomes known. The source delivers it as the timestamp column `known_at_<group>`."""

    description: Text
    latest: Duration = Field(description="longest time after the event by which the group is known; 0s: known before the prediction moment already")


class Table(Section):
    """A source table. `key` identifies a row; `event_time` is the column that says when it happened."""

    description: Text
    key: list[Name] = Field(min_length=1)
    event_time: Name
    time_zones: dict[str, str] = Field(default_factory=dict, description="zones that the source lacks, e.g. airport code to IANA zone")
    known_at: dict[Name, KnownAt] = Field(min_length=1)
    columns: dict[Name, Column] = Field(min_length=1)
    minimum_rows_per_day: float = 0.0
    maximum_volume_change: float = Field(default=3.0, gt=1, description="factor against the median of earlier periods that stops the pipeline")
    maximum_overdue_share: Share = Field(default=0.05, description="share of rows whose group is not known by its `latest` that stops the pipeline")


class Label(Section):
    """The label: true when `column` is above `threshold`; `group` says when it becomes known.

    `outcomes` declares what a row without a value means by the value of `outcome_column`: it is closed with that outcome, excluded from
    training and metrics, counted in every report. A row whose outcome is still unknown `never_after` the prediction is closed as `missing`.
    """

    name: Name
    table: Name
    column: Name
    threshold: float
    group: Name
    delay: Duration = Field(description="longest time from event to known label in normal operation")
    outcome_column: Name
    labelled_outcome: Text
    outcomes: dict[str, Literal["excluded"]]
    never_after: Duration


class Prediction(Section):
    """The rows to predict: one per row of `table`, `lead` before its event time."""

    table: Name
    lead: Duration
    entity: Name = Field(description="column that identifies the predicted thing in requests, logs and labels")


class Data(Section):
    source: Text = Field(description="module function `read_period` of source.py and what it reads")
    licence: Text
    prediction: Prediction
    label: Label
    tables: dict[Name, Table]
    maximum_label_share_change: float = Field(gt=0, description="change of the label share against history, in points of share, that stops the pipeline")
    quality: Quality


# --- Phase 2 to 3: features and model ---------------------------------------------------------------------------------------------------


class Features(Section):
    """`features.py` declares the views; here stands what it must hold to."""

    lags: list[Text] = Field(description="histories used, in words, for the model card")
    feature_server_timeout: Duration
    fallback: Literal["missing_values", "refuse"] = Field(
        description="answer with missing features and a warning, or refuse with 503, when the feature server fails"
    )
    quality: Quality


class SearchRange(Section):
    low: float
    high: float
    log: bool = False
    integer: bool = False


class Model(Section):
    algorithm: Literal["xgboost"]
    search_space: dict[str, SearchRange]
    fixed: dict[str, float | int | str] = Field(default_factory=dict)
    budget_trials: int = Field(ge=1)
    early_stopping_rounds: int = Field(ge=1)
    maximum_rounds: int = Field(ge=1)
    seed: int
    calibration: Literal["isotonic", "sigmoid"]
    validation_share: Share = Field(description="latest share of the training period (by time) for early stopping and tuning")
    outage_share: Share = Field(description="share of the training rows in which a feature view is made missing, each view on its own, to rehearse an outage")
    test_period: Duration = Field(description="latest labelled period, never trained on, that the gates judge on")
    quality: Quality


# --- Phase 4: evaluation ----------------------------------------------------------------------------------------------------------------

Metric = Literal["roc_auc", "average_precision", "brier", "log_loss", "expected_cost", "calibration_error"]
HIGHER_IS_BETTER: dict[str, bool] = {
    "roc_auc": True,
    "average_precision": True,
    "brier": False,
    "log_loss": False,
    "expected_cost": False,
    "calibration_error": False,
}


class Slice(Section):
    """A partition of the rows by `column`; a numeric column needs `bands` (increasing edges)."""

    name: Name
    column: Name
    bands: list[float] | None = None
    minimum_rows: int = Field(default=200, ge=1)


class Gate(Section):
    """One condition for promotion. `blocking` gates refuse; others warn.

    kind `threshold`: metric's interval end on the safe side against `limit`. `baseline`: improvement over the simple model at least
    `limit`. `champion`: loss against the champion at most `limit`, by the paired interval. `slice`: metric in every slice of `slice`
    against `limit`. `slice_champion`: no part of `slice` (of any slice, without it) loses more than `limit` of `metric` against the champion
    beyond chance, over all parts at once. `fairness`: difference of `rate` between the parts of a protected attribute at most `limit`.
    `robustness`: loss of `metric` under the perturbation at most `limit`. `leakage`: single-feature AUC at most `limit`. `label_shuffle`: AUC
    learned from shuffled labels at most `limit`. `freshness`: share of rows without a fresh value of a feature view at most `limit`.
    `reproducibility`: probabilities of the model trained again differ by at most `limit`. `latency`: milliseconds for one row at most
    `limit`. `size`: megabytes at most `limit`.
    """

    name: Name
    kind: Literal[
        "threshold",
        "baseline",
        "champion",
        "slice",
        "slice_champion",
        "fairness",
        "robustness",
        "leakage",
        "label_shuffle",
        "freshness",
        "reproducibility",
        "latency",
        "size",
    ]
    limit: float
    metric: Metric | None = None
    slice: Name | None = None
    rate: Literal["positive_share", "true_positive_rate", "false_positive_rate"] | None = Field(
        default=None, description="what a gate of kind fairness compares between the parts of a protected attribute"
    )
    blocking: bool = True


class Evaluation(Section):
    metrics: list[Metric] = Field(min_length=1)
    confidence: Share
    bootstrap_samples: int = Field(ge=50)
    slices: list[Slice]
    gates: list[Gate] = Field(min_length=1)
    quality: Quality


# --- Phase 5: deployment ----------------------------------------------------------------------------------------------------------------


class Deployment(Section):
    environments: list[Name] = Field(min_length=1)
    canary_steps: list[int]
    promotion: dict[Name, Literal["commit", "pull_request"]]
    maximum_batch_rows: int = Field(ge=1)
    maximum_body_bytes: int = Field(ge=1024)
    maximum_moment_skew: Duration = Field(description="furthest that a request's prediction moment may lie from the wall clock in production")
    quality: Quality


# --- Phase 6: monitoring, maintenance and retraining ------------------------------------------------------------------------------------


class Detector(Section):
    """A drift test. `subject`: features one by one, all jointly, predictions, class mix (estimated) or a segment's mix."""

    name: Name
    kind: Literal["alibi_detect"] = "alibi_detect"
    subject: Literal["features", "joint", "predictions", "class_mix", "segment_mix"]
    column: Name | None = Field(default=None, description="the segment, for segment_mix")


class Monitoring(Section):
    """`false_alarms`: at most one false alarm in that many windows, over all detectors together."""

    window: Duration
    lateness: Duration = Field(description="how long after a window's end its events are awaited, by event time, before it is closed")
    minimum_rows: int = Field(ge=1)
    false_alarms: int = Field(ge=2)
    detectors: list[Detector] = Field(min_length=1)
    maximum_lost_share: Share
    maximum_stale_share: Share = Field(
        description="share of answers with a looked-up value older than its view allows, or no answer of the feature server, above which `freshness` fails"
    )
    quality: Quality


class Retraining(Section):
    """When to retrain. `metric` is what users were promised to stay above `threshold`."""

    metric: Literal["roc_auc", "average_precision"]
    threshold: Share
    cooldown: Duration
    budget_runs: int = Field(ge=0)
    budget_period: Duration
    run_mode: Literal["disabled", "dry_run", "enabled"]
    cost_of_run: Positive = Field(
        description="money that a run costs, with everything that it brings about: a retraining is due when the model's age has cost as much"
    )
    training_window: Duration = Field(description="history that a retraining uses, back from its as-of moment")
    feedback_for_training: Literal["never", "corrections"] = Field(
        description="`corrections`: a user's correction made before the as-of moment is the training label of a row that the label table has no word on; "
        "an official label or outcome always wins, contradicting corrections are left out. `never`: users' words change no label"
    )
    quality: Quality


class UseCase(Section):
    """All of `usecase.yaml`."""

    name: Name
    description: Text
    business: Business
    data: Data
    features: Features
    model: Model
    evaluation: Evaluation
    deployment: Deployment
    monitoring: Monitoring
    retraining: Retraining
