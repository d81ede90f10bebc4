"""The loop's policy compared with never retraining and with retraining every month, really computed on the same rows.

`never` is the first release's own model. `monthly` trains at the start of every month with the same function, split, parameters and window
as the pipeline, on the labels known by then, and is served without gates. The loop's own probabilities come from the prediction log.
Run as `python -m pipelines.demo.policies`, beside the loop, from before the first training on: it has a lake of its own, so the two do not disturb
each other, and goes on with a line on standard input once the first model is there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from components.contracts.artifacts import CodeVersion, DatasetManifest
from components.contracts.durations import format_moment, parse_moment
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform

UNRECORDED = CodeVersion(commit="", dirty=False, tree_hash="", lock_hash="")


@dataclass(frozen=True)
class PolicyComparison:
    """`scores`: one row per replayed and labelled prediction: `moment`, `label`, and one probability column per policy. `runs`: trainings."""

    scores: pd.DataFrame
    runs: Mapping[str, int]
    metric: str
    threshold: float

    @property
    def rows(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        return list(self.runs)

    def by_month(self) -> tuple[list[str], dict[str, list[float]]]:
        """Months in order, and for each policy the metric by month (NaN where one class is absent)."""
        month = self.scores["moment"].dt.tz_localize(None).dt.to_period("M")
        months = sorted(month.unique())
        values = {
            name: [score(self.metric, self.scores.loc[month == each, "label"], self.scores.loc[month == each, name]) for each in months] for name in self.names
        }
        return [each.strftime("%b") for each in months], values

    def overall(self) -> dict[str, float]:
        """Mean of the monthly values by policy."""
        return {name: float(np.nanmean(series)) for name, series in self.by_month()[1].items()}

    def sentence(self, metric: str) -> str:
        means = self.overall()
        return (
            f"On the same rows the mean monthly {metric} was {means['crispline']:.3f} with {self.runs['crispline']} {'retraining' if self.runs['crispline'] == 1 else 'retrainings'}, "
            f"{means['never']:.3f} without any, and {means['monthly']:.3f} with {self.runs['monthly']} monthly ones."
        )

    def explanation(self) -> str:
        """What the comparison says, in words; nothing is claimed beyond the figures."""
        means = self.overall()
        best = max(means, key=lambda name: means[name])
        gain = means["monthly"] - means["never"]
        worth = "helped" if gain > 0.005 else "hurt" if gain < -0.005 else "made little difference"
        return (
            f"Highest mean: {best}. Retraining every month {worth} here ({gain:+.3f} against never). Monthly retraining uses the same parameters, training window "
            "and label delay as the loop, without gates."
        )


def score(metric: str, label: pd.Series[bool], probability: pd.Series[float]) -> float:
    """The metric of `retraining.metric`; NaN when only one class is there."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if label.nunique() < 2:
        return float("nan")
    return float({"roc_auc": roc_auc_score, "average_precision": average_precision_score}[metric](label.astype(bool), probability))


def monthly_moments(start: datetime, end: datetime) -> list[datetime]:
    """The first moment of every month after `start` and before `end` (UTC)."""
    months = pd.date_range(start, end, freq="MS", tz="UTC")
    return [each.to_pydatetime() for each in months if start < each < end]


def policies_frame(usecase: LoadedUseCase, platform: Platform, history_start: datetime, end: datetime) -> tuple[pd.DataFrame, str]:
    """Every row with a moment before `end`, its features and its label as it came at last; and the id of the data version."""
    from components.data_engineering.ingest import ingest_period
    from components.data_engineering.offline_features import training_frame

    version = ingest_period(usecase, platform.lake_uri, history_start, end + usecase.config.data.label.never_after)
    frame, _ = training_frame(usecase, platform, version, history_start)
    return frame, version.id


def compute_policies(usecase: LoadedUseCase, frame: pd.DataFrame, version_id: str, first_model: Path, start: datetime, end: datetime) -> pd.DataFrame:
    """Score every labelled row of [start, end) with the first model and with the model of the month.

    `frame`: of `policies_frame`. Returns columns `entity`, `moment`, `label`, `never`, `monthly` of the rows that have a label. `first_model`: the
    model's folder out of the first release.
    """
    from components.data_engineering.split import split_by_time
    from components.model_engineering.train import prepare, train
    from components.model_server.scoring import ScoringModel

    config = usecase.config
    never = ScoringModel.load(first_model, threads=1)
    served = frame[(frame["prediction_moment"] >= start) & (frame["prediction_moment"] < end) & frame["label"].notna()]
    scores = pd.DataFrame(
        {"entity": served["entity"], "moment": served["prediction_moment"], "label": served["label"].astype(bool), "never": never.predict_probability(served)}
    )
    scores["monthly"] = scores["never"]
    for moment in monthly_moments(start, end):
        known = frame[
            (frame["label_known_at"] <= moment)
            & (frame["prediction_moment"] >= moment - config.retraining.training_window)
            & (frame["prediction_moment"] < moment)
        ]
        split = split_by_time(known, config.data.label.delay, config.model.test_period, config.model.validation_share).split
        manifest = _unrecorded(usecase, version_id=version_id, moment=moment)
        with tempfile.TemporaryDirectory() as folder:
            train(usecase, prepare(usecase, known.assign(split=split)), manifest, never.manifest.parameters, UNRECORDED, Path(folder), threads=1)
            month = (scores["moment"] >= moment).to_numpy()
            scores.loc[month, "monthly"] = ScoringModel.load(Path(folder), threads=1).predict_probability(served[month])
        print(f"monthly policy: trained as of {moment:%Y-%m-%d}", flush=True)
    return scores


def _unrecorded(usecase: LoadedUseCase, version_id: str, moment: datetime) -> DatasetManifest:
    """A manifest for a model that is compared and thrown away: it names where its rows came from, nothing is registered under it."""
    from components.contracts.artifacts import DataVersion

    return DatasetManifest(
        id=f"policy-{moment:%Y%m%d}",
        usecase=usecase.name,
        data_version=DataVersion(id=version_id, usecase=usecase.name, as_of=moment, tables={}),
        feature_set=usecase.features.definition_hash,
        rows=0,
        rows_by_split={},
        label_share_by_split={},
        outcomes={},
        boundaries={},
        content_hash="",
    )


def compare(scores: pd.DataFrame, predictions: pd.DataFrame, retrainings: int, metric: str, threshold: float) -> PolicyComparison:
    """Join the policies' scores with what was served: only rows that both have.

    `predictions`: columns `entity`, `probability` of the prediction log (the first prediction of an entity counts).
    """
    served = predictions.drop_duplicates("entity").set_index("entity")["probability"]
    joined = scores[scores["entity"].isin(served.index)].copy()
    joined["crispline"] = joined["entity"].map(served)
    months = monthly_moments(scores["moment"].min(), scores["moment"].max())
    return PolicyComparison(joined, {"never": 0, "monthly": len(months), "crispline": retrainings}, metric, threshold)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--usecase", required=True)
    parser.add_argument("--state", type=Path, required=True, help="a folder of its own; the result is <state>/policies.parquet")
    parser.add_argument("--first-model", type=Path, required=True)
    parser.add_argument("--history-start", type=parse_moment, required=True)
    parser.add_argument("--start", type=parse_moment, required=True)
    parser.add_argument("--end", type=parse_moment, required=True)
    given = parser.parse_args(arguments)
    usecase = load_usecase(given.usecase)
    platform = Platform.embedded(given.state)
    frame, version_id = policies_frame(usecase, platform, given.history_start, given.end)
    print("the frame is built; waiting for a line that says that the first model is there", flush=True)
    if not sys.stdin.readline():
        return  # whoever started this has ended
    scores = compute_policies(usecase, frame, version_id, given.first_model, given.start, given.end)
    partial = given.state / ".policies.parquet"
    scores.to_parquet(partial)
    partial.replace(given.state / "policies.parquet")
    shutil.rmtree(given.state / "lake", ignore_errors=True)
    print(f"compared from {format_moment(given.start)} to {format_moment(given.end - timedelta(seconds=1))}", flush=True)


if __name__ == "__main__":
    main()
