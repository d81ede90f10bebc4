"""What comes back about a prediction: labels from Seldon's feedback call, and end users who dispute or correct one, with a reason.

The two are kept apart, because a user's word is an opinion and a label is a fact: `<labels>/labels/<use case>/` enters measurements,
`<labels>/feedback/<use case>/` is read by people and enters training only by declared policy (`retraining.feedback_for_training`).
Both are append-only: one JSON file per call, named by its content, so that sending it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from upath import UPath

from components.contracts.errors import InvalidData
from components.contracts.records import record_id
from components.contracts.serving import Feedback
from components.contracts.storage import create_atomically, read_folder, storage_path
from components.contracts.usecase import Moment, UseCase


class FeedbackLabel(BaseModel):
    """What became of a prediction: a label, or an outcome without one. `prediction_id` may be empty: then the entity alone identifies it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entity: Annotated[str, Field(min_length=1, max_length=200)]
    prediction_id: str = ""
    label: bool | None = None
    outcome: str | None = None
    known_at: Moment


_WORDS = TypeAdapter(list[Feedback])
_LABELS = TypeAdapter(list[FeedbackLabel])


def store_feedback(labels_uri: str, usecase: str, feedback: Feedback) -> str:
    """Append an end user's word and return its id; the same word again is the same id. Raises InvalidData for a correction without a value."""
    if feedback.kind == "correction" and feedback.value is None:
        raise InvalidData("feedback.value is missing: a correction says what the outcome was; send kind `dispute` when it is not known")
    return _store(storage_path(labels_uri) / "feedback" / usecase, feedback.event_time, _WORDS.dump_json([feedback]))


def read_feedback(labels_uri: str, usecase: str, until: datetime) -> list[Feedback]:
    """What end users said before `until` (event time), in order of time."""
    words = [word for content in _read(storage_path(labels_uri) / "feedback" / usecase, until) for word in _WORDS.validate_json(content)]
    return sorted((word for word in words if word.event_time < until), key=lambda word: (word.event_time, word.prediction_id))


def store_labels(labels_uri: str, usecase: UseCase, labels: Sequence[FeedbackLabel]) -> str:
    """Append labels that came in one feedback call and return the id of the call; the same labels again are the same id.

    Raises InvalidData when one has neither a label nor a declared outcome; nothing is then stored.
    """
    declared = usecase.data.label.outcomes
    for number, label in enumerate(labels):
        if label.label is None and label.outcome not in declared:
            raise InvalidData(
                f"labels[{number}] has no label and its outcome {label.outcome!r} is not declared; send a label, or one of the outcomes {', '.join(declared)}"
            )
    if not labels:
        raise InvalidData("labels is empty; send at least one")
    return _store(storage_path(labels_uri) / "labels" / usecase.name, min(label.known_at for label in labels), _LABELS.dump_json(list(labels)))


def read_labels(labels_uri: str, usecase: str, until: datetime) -> list[FeedbackLabel]:
    """Labels that came as feedback and were known by `until` (included), in order of time."""
    labels = [label for content in _read(storage_path(labels_uri) / "labels" / usecase, until) for label in _LABELS.validate_json(content)]
    return sorted((label for label in labels if label.known_at <= until), key=lambda label: (label.known_at, label.entity, label.prediction_id))


def feedback_for_training(usecase: UseCase, feedback: Iterable[Feedback]) -> list[FeedbackLabel]:
    """Corrections as labels for training: none unless `retraining.feedback_for_training` is `corrections`.

    A prediction with contradicting corrections is left out: nobody can say which one is right. A dispute has no value and never enters.
    """
    if usecase.retraining.feedback_for_training != "corrections":
        return []
    by_prediction: dict[tuple[str, str], list[Feedback]] = {}
    for message in feedback:
        if message.kind == "correction" and message.value is not None:
            by_prediction.setdefault((message.entity, message.prediction_id), []).append(message)
    return [
        FeedbackLabel(
            entity=entity, prediction_id=prediction, label=messages[0].value, outcome=usecase.data.label.labelled_outcome, known_at=messages[0].event_time
        )
        for (entity, prediction), messages in by_prediction.items()
        if len({message.value for message in messages}) == 1
    ]


def parse_seldon_feedback(body: Mapping[str, Any]) -> tuple[list[FeedbackLabel], list[Feedback]]:
    """Read the payload of a Seldon feedback call: labels and end users' words, both under `truth.jsonData`:

        {"truth": {"jsonData": {"labels": [FeedbackLabel, ...], "feedback": [Feedback, ...]}}}

    Raises InvalidData that names the field.
    """
    truth = body.get("truth")
    content = truth.get("jsonData") if isinstance(truth, Mapping) else None
    if not isinstance(content, Mapping) or not set(content) <= {"labels", "feedback"} or not content:
        raise InvalidData("truth.jsonData must hold `labels`, `feedback` or both")
    try:
        labels = [FeedbackLabel.model_validate(item) for item in _items(content, "labels")]
        words = [Feedback.model_validate(item) for item in _items(content, "feedback")]
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidData(f"truth.jsonData: {error.title}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return labels, words


def _items(content: Mapping[str, Any], name: str) -> Sequence[Any]:
    items = content.get(name, [])
    if not isinstance(items, list):
        raise InvalidData(f"truth.jsonData.{name} is not a list")
    return items


def _store(folder: UPath, moment: datetime, content: bytes) -> str:
    """The name leads with the time, so that a reader can leave out what is later without opening it."""
    id = f"{moment.astimezone(UTC):%Y%m%dT%H%M%S}-{record_id(content.decode())}"
    create_atomically(folder / f"{id}.json", content)
    return id


def _read(folder: UPath, until: datetime) -> list[bytes]:
    last = f"{until.astimezone(UTC):%Y%m%dT%H%M%S}~"
    return list(read_folder(folder, lambda name: name.endswith(".json") and name < last).values())
