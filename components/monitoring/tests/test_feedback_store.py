"""What comes back about a prediction: labels and end users' words, kept apart, append-only and idempotent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.contracts.errors import InvalidData
from components.contracts.loading import load_usecase
from components.contracts.serving import Feedback
from components.contracts.usecase import UseCase
from components.monitoring.feedback import (
    FeedbackLabel,
    feedback_for_training,
    parse_seldon_feedback,
    read_feedback,
    read_labels,
    store_feedback,
    store_labels,
)

NOON = datetime(2013, 4, 4, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def config() -> UseCase:
    return load_usecase("flights").config


def word(kind: str = "dispute", value: bool | None = None, at: datetime = NOON, prediction: str = "p-0") -> Feedback:
    return Feedback.model_validate(
        {"entity": "flight", "prediction_id": prediction, "kind": kind, "value": value, "reason": "the gate said otherwise", "by": "desk", "event_time": at}
    )


def test_a_word_is_stored_once_however_often_it_is_sent(tmp_path: Path) -> None:
    first = store_feedback(str(tmp_path), "flights", word())
    assert store_feedback(str(tmp_path), "flights", word()) == first
    store_feedback(str(tmp_path), "flights", word("correction", True))
    assert sorted(one.kind for one in read_feedback(str(tmp_path), "flights", NOON + timedelta(seconds=1))) == ["correction", "dispute"]
    assert len(list((tmp_path / "feedback" / "flights").iterdir())) == 2


def test_words_are_read_in_order_of_time_and_only_until_the_moment_asked_for(tmp_path: Path) -> None:
    for hours in (3, 1, 2):
        store_feedback(str(tmp_path), "flights", word(at=NOON + timedelta(hours=hours)))
    assert [one.event_time.hour for one in read_feedback(str(tmp_path), "flights", NOON + timedelta(hours=3))] == [13, 14]
    assert read_feedback(str(tmp_path), "other", NOON + timedelta(days=1)) == []


def test_a_correction_says_what_the_outcome_was(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"feedback\.value is missing"):
        store_feedback(str(tmp_path), "flights", word("correction"))


def test_words_never_become_labels(tmp_path: Path) -> None:
    store_feedback(str(tmp_path), "flights", word("correction", True))
    assert read_labels(str(tmp_path), "flights", NOON + timedelta(days=1)) == []


def test_words_enter_training_only_by_declared_policy(config: UseCase) -> None:
    words = [word("correction", True), word(), word("correction", True, prediction="q"), word("correction", False, prediction="q")]
    assert feedback_for_training(config, words) == []
    allowed = config.model_copy(update={"retraining": config.retraining.model_copy(update={"feedback_for_training": "corrections"})})
    assert [(one.prediction_id, one.label) for one in feedback_for_training(allowed, words)] == [("p-0", True)]  # q is contradicted


def test_labels_are_stored_by_call_and_read_as_of_a_moment(config: UseCase, tmp_path: Path) -> None:
    labels = [FeedbackLabel(entity=str(hour), label=True, known_at=NOON + timedelta(hours=hour)) for hour in range(3)]
    assert store_labels(str(tmp_path), config, labels) == store_labels(str(tmp_path), config, labels)
    assert [one.entity for one in read_labels(str(tmp_path), "flights", NOON + timedelta(hours=1))] == ["0", "1"]


def test_a_label_without_a_value_needs_a_declared_outcome(config: UseCase, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"labels\[0\] has no label and its outcome 'vanished' is not declared.*cancelled, diverted"):
        store_labels(str(tmp_path), config, [FeedbackLabel(entity="f", outcome="vanished", known_at=NOON)])
    with pytest.raises(InvalidData, match="labels is empty"):
        store_labels(str(tmp_path), config, [])


def test_seldons_feedback_call_carries_labels_and_words() -> None:
    labels, words = parse_seldon_feedback(
        {
            "request": {},
            "reward": 0,
            "truth": {
                "jsonData": {
                    "labels": [{"entity": "f", "prediction_id": "p-0", "label": True, "known_at": "2013-04-04T12:00:00Z"}],
                    "feedback": [word().model_dump(mode="json")],
                }
            },
        }
    )
    assert labels == [FeedbackLabel(entity="f", prediction_id="p-0", label=True, known_at=NOON)]
    assert words == [word()]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "truth.jsonData must hold"),
        ({"truth": {"jsonData": {"label": []}}}, "truth.jsonData must hold"),
        ({"truth": {"jsonData": {"labels": {}}}}, r"truth\.jsonData\.labels is not a list"),
        ({"truth": {"jsonData": {"labels": [{"entity": "f", "label": True}]}}}, "known_at"),
        ({"truth": {"jsonData": {"labels": [{"entity": "f", "label": "yes and no", "known_at": "2013-04-04T12:00:00Z"}]}}}, "label"),
        ({"truth": {"jsonData": {"feedback": [{"entity": "f"}]}}}, "prediction_id"),
    ],
)
def test_a_malformed_feedback_call_is_refused_naming_the_field(body: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        parse_seldon_feedback(body)
