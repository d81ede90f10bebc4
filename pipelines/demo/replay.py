"""Requests of one day after the other through the real HTTP endpoint, in time order, by entity keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import pandas as pd

from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError
from components.contracts.features import FeatureSet
from components.contracts.records import record_id
from components.contracts.serving import Feedback

REQUEST_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Sample:
    """Which entities are replayed: those whose hash lies below `share`; stable over runs, independent of time and outcome."""

    share: float

    def of(self, entities: pd.Series[str]) -> pd.Series[bool]:
        """A mask over `entities`."""
        limit = int(self.share * 2**32)
        return entities.map(lambda entity: int.from_bytes(hashlib.blake2b(entity.encode(), digest_size=4).digest(), "big") < limit)


@dataclass(frozen=True)
class Endpoint:
    """The served model as a client sees it."""

    client: httpx.Client
    url: str
    batch_rows: int
    answered: Callable[[], None]

    def predict(self, rows: pd.DataFrame, features: FeatureSet) -> pd.DataFrame:
        """Ask for all rows in time order, `batch_rows` a request; one answer row each, in the same order.

        `rows`: columns `entity`, `prediction_moment`, `event_time`, the join keys and the request-time fields. Raises CrisplineError when a
        request is not answered with 200 or an answer is missing: the replay drops nothing.
        """
        answers: list[dict[str, Any]] = []
        for batch in _batches(rows, self.batch_rows):
            instances = [_instance({str(name): value for name, value in row.items()}, features) for row in batch.to_dict("records")]
            # The id follows from the rows, so a day that is replayed again after an interruption doubles nothing in the log.
            puid = record_id("replay", *(instance["entity"] for instance in instances))
            answer = self.client.post(
                f"{self.url}/api/v1.0/predictions", json={"jsonData": {"instances": instances}}, headers={"Seldon-Puid": puid}, timeout=REQUEST_TIMEOUT_SECONDS
            )
            if answer.status_code != 200:
                raise CrisplineError(f"a request of {len(instances)} rows was answered with {answer.status_code}: {answer.text[:500]}")
            predictions = answer.json()["jsonData"]["predictions"]
            if len(predictions) != len(instances):
                raise CrisplineError(f"{len(instances)} rows were asked for and {len(predictions)} answered")
            self.answered()
            answers.extend(predictions)
        return pd.DataFrame(answers, columns=["id", "entity", "probability", "decision", "warnings"])

    def give_feedback(self, feedback: Sequence[Feedback]) -> None:
        """Send end users' corrections and disputes the way that any consumer would."""
        for each in feedback:
            answer = self.client.post(
                f"{self.url}/api/v1.0/feedback",
                json={"truth": {"jsonData": {"feedback": [each.model_dump(mode="json")]}}},
                headers={"Seldon-Puid": each.prediction_id.rsplit("-", 1)[0]},
                timeout=REQUEST_TIMEOUT_SECONDS,
            )
            if answer.status_code != 200:
                raise CrisplineError(f"feedback on {each.prediction_id} was answered with {answer.status_code}: {answer.text[:500]}")


def _batches(rows: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    ordered = rows.sort_values(["prediction_moment", "entity"])
    for first in range(0, len(ordered), size):
        yield ordered.iloc[first : first + size]


def _instance(row: dict[str, Any], features: FeatureSet) -> dict[str, Any]:
    moment: datetime = row["prediction_moment"]
    return {
        "entity": row["entity"],
        "prediction_moment": format_moment(moment),
        "event_time": format_moment(row["event_time"]),
        "keys": {key: row[key] for key in features.join_keys if not pd.isna(row[key])},
        "fields": {name: None if pd.isna(row[name]) else row[name] for name in features.request_fields},
    }
