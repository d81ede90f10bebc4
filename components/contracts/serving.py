"""Requests, answers and the prediction log: one set of names from the HTTP body to the log's columns.

Request body (Seldon protocol): {"jsonData": {"instances": [Instance, ...], "explain": false}}
Answer body: {"jsonData": {"predictions": [Prediction, ...], "model": {...}}, "meta": {...}}
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.contracts.features import FeatureSet
from components.contracts.usecase import Column, Moment

CONTRACT_FILE = "serving.json"  # the ServingContract in a release
FeatureValue = float | int | str | bool | None


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Instance(Message):
    """One thing to predict: `features` complete, or `keys` (join keys) with `fields` (request-time fields)."""

    entity: Annotated[str, Field(min_length=1, max_length=200)]
    prediction_moment: Moment
    event_time: Moment
    features: dict[str, FeatureValue] | None = None
    keys: dict[str, str] | None = None
    fields: dict[str, FeatureValue] | None = None


class PredictRequest(Message):
    instances: Annotated[list[Instance], Field(min_length=1)]
    explain: bool = False


class Prediction(Message):
    """One answer row. `id` = request id + "-" + row number. `features` are the resolved values that the model received (None = missing);
    `feature_times` the event timestamp of each view (served name) they came from. `instance` and `sequence` number a replica's answers
    without gaps, so a missing number is a lost event."""

    id: str
    entity: str
    prediction_moment: Moment
    event_time: Moment
    probability: float
    decision: bool
    features: dict[str, FeatureValue]
    feature_times: dict[str, Moment | None]
    warnings: list[str]
    contributions: dict[str, float] | None = None


class ModelInfo(Message):
    usecase: str
    model_version: str
    release: str
    feature_set: str
    decision_threshold: float


class PredictResponse(Message):
    predictions: list[Prediction]
    model: ModelInfo
    instance: str
    sequence: int


class ServingContract(Message):
    """What the data plane checks requests against; part of the release bundle as serving.json."""

    usecase: str
    feature_set: FeatureSet
    columns: dict[str, Column]
    categorical: dict[str, tuple[str, ...]]
    decision_threshold: float
    feature_server_timeout_seconds: float
    fallback: Literal["missing_values", "refuse"]
    maximum_batch_rows: int
    maximum_body_bytes: int
    lead_seconds: float
    maximum_moment_skew_seconds: float


class LoggedPrediction(Message):
    """A row of the prediction log. `received` (wall clock) is for operations only; windows use `event_time` of the prediction, i.e. its
    `prediction_moment`. `predictor` separates champion, canary and shadow."""

    id: str
    usecase: str
    predictor: str
    entity: str
    prediction_moment: Moment
    event_time: Moment
    model_version: str
    release: str
    feature_set: str
    probability: float
    decision: bool
    features: dict[str, FeatureValue]
    feature_times: dict[str, Moment | None]
    warnings: list[str]
    instance: str
    sequence: int
    received: Moment


class Feedback(Message):
    """An end user's word on a prediction: a dispute or a correction, kept apart from labels."""

    entity: str
    prediction_id: str
    kind: Literal["dispute", "correction"]
    value: bool | None = None
    reason: Annotated[str, Field(min_length=1, max_length=2000)]
    by: str
    event_time: Moment
