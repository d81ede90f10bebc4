"""CloudEvents (https://github.com/cloudevents/spec/blob/v1.0.2) that pass between server, sidecar and trigger: types and alert payload."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from components.contracts.usecase import Moment

# Seldon executor 1.19, request logger; binary content mode, see docs/reference/events.md.
INFERENCE_REQUEST = "io.seldon.serving.inference.request"
INFERENCE_RESPONSE = "io.seldon.serving.inference.response"
INFERENCE_FEEDBACK = "io.seldon.serving.feedback"

ALERT = "io.crispline.alert.v1"
PERFORMANCE = "io.crispline.performance.v1"
RUN_ENDED = "io.crispline.run.ended.v1"  # data: the Record of kind `run`


class Alert(BaseModel):
    """One alert; its id derives from model, detector and window alone, so every replica and every restart emits the same one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    usecase: str
    kind: Literal["data_drift", "joint_drift", "prediction_drift", "class_mix_drift", "segment_mix_drift", "lost_events", "data_quality"]
    detector: str
    model_version: str
    release: str
    window_start: Moment
    window_end: Moment
    rows: int
    subject: str
    statistic: float
    threshold: float
    effect: str
    details: dict[str, float]


class Trial(BaseModel):
    """What newer labels would have brought in one measured window, found by small models without tuning, gates or release.

    Two such models answer for the window: one of the labels known when the champion was trained, one of those known when the window began.
    `gain`: log loss per row of the first less that of the second, `error` its standard error; above 0, newer labels help. `windows`: log loss
    per row by training window (sliding, short, growing, weighted), each of the labels known when the window began.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain: float
    error: float
    windows: dict[str, float]


class MixExpectation(BaseModel):
    """The metric to expect from the parts' performance in the reference and this window's mix of them; `reference`: with the reference's own mix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float
    reference: float

    @property
    def change(self) -> float:
        """What the mix alone moves the metric by."""
        return self.value - self.reference


class Performance(BaseModel):
    """Performance of one model in one window: estimated until `labelled_share` allows measuring.

    `sampling_error` and `backtest_error` are standard errors in units of the metric; an estimate assumes that there is no concept drift.
    `mix`: by slice, what its mix alone would lead one to expect. `explained`: what the inputs alone would lead one to expect (CBPE on the same
    rows); concept drift = measured below it.
    `log_loss` per row, `expected_log_loss` if the probabilities were right, `log_loss_error` the standard error of their difference.
    `loss_price`: money that an increase of 1 in log loss per row costs per row, by the declared costs of errors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    usecase: str
    model_version: str
    window_start: Moment
    window_end: Moment
    as_of: Moment
    kind: Literal["estimated", "measured"]
    metric: str
    value: float
    low: float
    high: float
    threshold: float
    rows: int
    labelled_share: float
    sampling_error: float
    backtest_error: float
    explained: float | None = None
    concept_drift: bool = False
    assumption: str = ""
    slices: dict[str, float] = {}
    mix: dict[str, MixExpectation] = {}
    outcomes: dict[str, int] = {}
    log_loss: float | None = None
    expected_log_loss: float | None = None
    log_loss_error: float | None = None
    loss_price: float | None = None
    trial: Trial | None = None
