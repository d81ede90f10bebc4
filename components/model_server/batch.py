"""Batch scoring: the server's own data plane over a frame of rows, into the same prediction log, as predictor `batch`.

A batch's id derives from the release and the rows, so scoring the same rows again writes nothing new. The rows carry their features (joined
offline, as of each prediction moment), therefore no publication times are known: `feature_times` are empty.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.contracts.serving import FeatureValue, Instance, LoggedPrediction, PredictRequest, PredictResponse, ServingContract
from components.contracts.usecase import Column
from components.deployment.bundle import fetch_bundle
from components.deployment.releases import current_release
from components.model_server.dataplane import DataPlane
from components.model_server.errors import RequestRefused
from components.monitoring.prediction_log import PredictionLog

if TYPE_CHECKING:
    import pandas as pd

PREDICTOR = "batch"


@dataclass(frozen=True)
class Shard:
    """A part of a batch: `rows` rows from `first` on (counted from 0), the last part what is left."""

    first: int
    rows: int


def shard_starts(dataset: Path, shard_rows: int) -> list[int]:
    """The first row of every shard of a Parquet file, in order; its metadata alone is read. Raises CrisplineError for a shard without rows."""
    import pyarrow.parquet as pq

    if shard_rows < 1:
        raise CrisplineError(f"a shard holds at least one row, not {shard_rows}; give shard_rows, 50000 for instance")
    return list(range(0, pq.read_metadata(dataset).num_rows, shard_rows))


def score_batch(
    platform: Platform, usecase: LoadedUseCase, environment: str, dataset: Path, predictions: Path, *, release: str = "", shard: Shard | None = None
) -> int:
    """Score `dataset` (Parquet: entity, prediction_moment, event_time, every feature), or a shard of it; return the rows scored.

    `release`: a bundle's id, so that all shards of a batch are scored by one; empty for the release in force. Writes `predictions` (Parquet:
    id, entity, prediction_moment, event_time, probability, decision, model_version, release, warnings) and the prediction log. Raises
    CrisplineError when nothing is in force and InvalidData when a row breaks the contract; nothing is then written.
    """
    import pandas as pd

    bundle = release or _in_force(platform, usecase.name, environment)
    frame = pd.read_parquet(dataset)
    if shard is not None:
        frame = frame.iloc[shard.first : shard.first + shard.rows].reset_index(drop=True)
    with tempfile.TemporaryDirectory(prefix="crispline-batch-") as scratch:
        folder = Path(scratch) / "release"
        fetch_bundle(platform.bundles_uri, bundle, folder)
        rows = score_frame(folder, frame)
    PredictionLog(platform.prediction_log_uri).append(rows)
    columns = ("id", "entity", "prediction_moment", "event_time", "probability", "decision", "model_version", "release", "warnings")
    predictions.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([{name: getattr(row, name) for name in columns} for row in rows], columns=list(columns)).to_parquet(predictions, index=False)
    return len(rows)


def _in_force(platform: Platform, usecase: str, environment: str) -> str:
    release = current_release(platform, usecase, environment)
    if release is None:
        raise CrisplineError(f"no release of {usecase} is in force in {environment}; train and promote a model first: crispline run training")
    return release.release


def score_frame(release_folder: Path, frame: pd.DataFrame) -> list[LoggedPrediction]:
    """Every row of `frame` as the prediction log keeps it, in order. Raises InvalidData naming the first row and field at fault."""
    batch = batch_id(release_folder, frame)
    plane = DataPlane.load(release_folder, None, batch)
    rows: list[LoggedPrediction] = []
    received = datetime.now(UTC)
    for number, request in enumerate(requests_of(frame, plane.contract)):
        try:
            response = plane.predict(request, f"{batch}-{number}")
        except RequestRefused as error:
            raise InvalidData(f"chunk {number} of {len(request.instances)} rows breaks the serving contract: {error}") from error
        rows += logged(response, PREDICTOR, received)
    return rows


def logged(response: PredictResponse, predictor: str, received: datetime) -> list[LoggedPrediction]:
    """An answer as rows of the prediction log. `received`: wall clock, for operations only."""
    model = response.model
    return [
        LoggedPrediction(
            **row.model_dump(exclude={"contributions"}),
            usecase=model.usecase,
            predictor=predictor,
            model_version=model.model_version,
            release=model.release,
            feature_set=model.feature_set,
            instance=response.instance,
            sequence=response.sequence,
            received=received,
        )
        for row in response.predictions
    ]


def batch_id(release_folder: Path, frame: pd.DataFrame) -> str:
    """`batch-` and 24 hex digits over the release's manifest and the rows: the same rows under the same release are the same batch."""
    import pandas as pd

    digest = hashlib.sha256((release_folder / "manifest.json").read_bytes())
    digest.update(pd.util.hash_pandas_object(frame.reset_index(drop=True).astype(str), index=False).to_numpy().tobytes())
    digest.update("\x1f".join(map(str, frame.columns)).encode())
    return f"batch-{digest.hexdigest()[:24]}"


def requests_of(frame: pd.DataFrame, contract: ServingContract) -> Iterator[PredictRequest]:
    """Rows with complete features as requests of at most `contract.maximum_batch_rows` rows, in order. Raises InvalidData for absent columns."""
    names = contract.feature_set.feature_names
    absent = [name for name in ("entity", "prediction_moment", "event_time", *names) if name not in frame.columns]
    if absent:
        raise InvalidData(f"the rows to score lack {', '.join(absent)}; build them with the step entities_to_score")
    for start in range(0, len(frame), contract.maximum_batch_rows):
        records = frame.iloc[start : start + contract.maximum_batch_rows].to_dict("records")
        yield PredictRequest(instances=[_instance(record, names, contract.columns) for record in records])


def _instance(record: dict[Any, Any], names: tuple[str, ...], columns: dict[str, Column]) -> Instance:
    return Instance(
        entity=str(record["entity"]),
        prediction_moment=record["prediction_moment"].to_pydatetime(),
        event_time=record["event_time"].to_pydatetime(),
        features={name: _plain(record[name], columns[name]) for name in names},
    )


def _plain(value: Any, column: Column) -> FeatureValue:
    """A data frame's value as JSON would carry it. A column of whole numbers that has gaps comes as floats; those are whole again here."""
    import pandas as pd

    if pd.isna(value):
        return None
    plain: FeatureValue = value.item() if hasattr(value, "item") else value
    if column.type == "integer" and isinstance(plain, float) and math.isfinite(plain) and plain.is_integer():
        return int(plain)
    return plain
