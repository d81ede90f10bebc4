"""Training/serving skew of a release: what its server looked up and received, against what the training join gives for the same rows.

The prediction log holds the resolved features of every answer. For the newest logged rows that came by entity key the same features are built
again from the lake, the way that a training frame is built, and scored again by the release's own model. Equal means bit for bit: JSON keeps
doubles whole. The check is the gate between environments (`crispline promote --from --to`).
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.contracts.artifacts import DataVersion
from components.contracts.features import FeatureSet
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, record_id
from components.model_server.lookup_warnings import FALLBACK_WARNING
from components.model_server.scoring import ScoringModel

CHECK = "serving_skew"
# Enough rows that a tick published late, which shifts a view for all rows of an hour, is a small share of them.
MOST_ROWS, FEWEST_ROWS = 1000, 100
# A request between a tick and its publication sees the tick before; more than this share is no matter of seconds.
TOLERATED_SHARE = 0.01
SAME = 1e-9  # of a probability
LOOK_BACK = timedelta(days=14)


class ServingSkew(BaseModel):
    """`differing`: rows whose logged value is not the offline one, by feature; `probability`: largest difference of the logged probability from the
    one that the release's model gives to the offline features of a row without a difference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    differing_rows: int
    differing: dict[str, int]
    probability: float

    @property
    def holds(self) -> bool:
        return self.differing_rows <= TOLERATED_SHARE * self.rows and self.probability <= SAME


def compare_served(logged: pd.DataFrame, offline: pd.DataFrame, probability: np.ndarray, features: tuple[str, ...]) -> ServingSkew:
    """`logged`: `feature.<name>` and `probability`; `offline`: `<name>`; `probability`: the model's on `offline`. The same rows in the same order."""
    unequal = pd.DataFrame({name: _unequal(logged.get(f"feature.{name}"), offline[name]) for name in features})
    rows = unequal.any(axis=1).to_numpy()
    distance = np.abs(logged["probability"].to_numpy(dtype=np.float64) - probability)
    counts = {str(name): int(count) for name, count in unequal.sum().items() if count}
    return ServingSkew(rows=len(logged), differing_rows=int(rows.sum()), differing=counts, probability=float(distance[~rows].max(initial=0.0)))


def measure_serving_skew(usecase: LoadedUseCase, platform: Platform, release: str, version: DataVersion) -> Record | None:
    """The check's record for what `release` served before the data version's moment; None below `FEWEST_ROWS` rows by entity key.

    Answers of a time without feature server say so and are left out: an outage is not a skew.
    """
    from components.data_engineering.entities import read_entities
    from components.data_engineering.offline_features import request_features
    from components.deployment.bundle import fetch_bundle
    from components.monitoring.prediction_log import PredictionLog

    log = PredictionLog(platform.prediction_log_uri).read(usecase.name, version.as_of - LOOK_BACK, version.as_of)
    log = log[log["release"] == release]
    looked_up = [text not in (None, "", "{}") for text in log["feature_times"]]
    answered = [said is None or FALLBACK_WARNING not in said for said in log["warnings"]]
    log = log[np.array(looked_up, dtype=bool) & np.array(answered, dtype=bool)].tail(MOST_ROWS)
    if len(log) < FEWEST_ROWS:
        return None
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        fetch_bundle(platform.bundles_uri, release, Path(folder))
        features = FeatureSet.model_validate_json((Path(folder) / "features.json").read_text())
        model = ScoringModel.load(Path(folder))
        first, last = log["prediction_moment"].min(), log["prediction_moment"].max()
        rows = read_entities(platform.lake_uri, usecase, version, first.to_pydatetime(), last.to_pydatetime() + timedelta(microseconds=1), features)
        pairs = log.merge(rows, on=["entity", "prediction_moment"], how="inner", suffixes=("", "_offline"), validate="many_to_one")
        if len(pairs) < FEWEST_ROWS:
            return None
        offline = request_features(usecase, platform, version, pairs[rows.columns], features)
        found = compare_served(pairs, offline, model.predict_probability(offline), tuple(model.feature_names))
    worst = ", ".join(f"{name} ({count})" for name, count in sorted(found.differing.items(), key=lambda each: -each[1])[:3])
    differing = f"{found.differing_rows} of {found.rows} served rows differ from the training join" + (f", most in {worst}" if worst else "")
    scored = "" if found.probability <= SAME else f"; the model gives equal rows another probability, by up to {found.probability:.3g}"
    return Record(
        kind="check",
        id=record_id("check", CHECK, usecase.name, release, version.id),
        usecase=usecase.name,
        event_time=version.as_of,
        outcome="passed" if found.holds else "failed",
        reason=f"{differing}{scored}; at most {TOLERATED_SHARE:.0%} may",
        inputs={"rows": found.rows, "differing_rows": found.differing_rows, "probability": found.probability},
        thresholds={"differing_share": TOLERATED_SHARE},
        details={"check": CHECK, "release": release, "differing": dict(found.differing)},
        lineage=Lineage(data_version=version.id, model_version=model.manifest.version),
    )


def _unequal(logged: pd.Series | None, offline: pd.Series) -> np.ndarray:
    if logged is None:  # no row of the log has a value
        return offline.notna().to_numpy()
    missing = logged.isna().to_numpy() & offline.isna().to_numpy()
    if pd.api.types.is_numeric_dtype(offline):
        same = pd.to_numeric(logged, errors="coerce").to_numpy(dtype=np.float64) == offline.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        same = logged.astype(object).to_numpy() == offline.astype(object).to_numpy()
    return ~(missing | np.asarray(same, dtype=bool))
