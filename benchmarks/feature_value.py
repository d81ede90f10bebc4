"""What the features are worth: the request's own fields against the whole feature set, and the set without each of its views.

Reads nothing that became known after 31 March 2013. The split is the one of training: by time, with the embargo for the label's delay.
Run in the pipeline environment; writes a table (Markdown) to --output.

    components/environments/pipeline/.venv/bin/python benchmarks/feature_value.py
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import xgboost

from components.contracts.durations import format_moment
from components.contracts.features import FeatureSet
from components.contracts.loading import LoadedUseCase, load_features, load_usecase
from components.contracts.platform import Platform
from components.data_engineering.ingest import ingest_period
from components.data_engineering.offline_features import training_frame

START, CUT = datetime(2012, 12, 24, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC)
TRAINING_START = datetime(2013, 1, 1, tzinfo=UTC)
# Middle of the search space that usecase.yaml declares: what is compared are features, not tunings.
PARAMETERS = {"objective": "binary:logistic", "eval_metric": "auc", "max_depth": 5, "learning_rate": 0.1, "min_child_weight": 10, "subsample": 0.8}
SEEDS = (1, 2, 3)
RESAMPLES = 400


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--features", type=Path, help="folder of another features.py to try")
    arguments.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "feature_value.md")
    chosen = arguments.parse_args()
    usecase = load_usecase("flights")
    if chosen.features:
        usecase = dataclasses.replace(usecase, features=load_features(chosen.features))
    frame = build_frame(usecase)
    schedule = list(usecase.features.request_fields)
    variants = {"request fields only": schedule}
    variants |= {f"request fields + {view.name}": [*schedule, *view.feature_names] for view in usecase.features.views}
    variants["all"] = list(usecase.features.feature_names)
    variants |= {f"all without {view.name}": without(usecase.features, view.name) for view in usecase.features.views}
    scores = {name: predict(frame, columns) for name, columns in variants.items()}
    text = table(usecase, frame, scores)
    print(text)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(text)


def build_frame(usecase: LoadedUseCase) -> pd.DataFrame:
    """The training frame as of the cut, in a lake of its own that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform.embedded(Path(folder))
        version = ingest_period(usecase, platform.lake_uri, START, CUT)
        frame, _ = training_frame(usecase, platform, version, TRAINING_START)
    return frame[frame["label"].notna()].sort_values("entity", ignore_index=True)


def without(features: FeatureSet, view: str) -> list[str]:
    dropped = {name for each in features.views if each.name == view for name in each.feature_names}
    return [name for name in features.feature_names if name not in dropped]


def predict(frame: pd.DataFrame, columns: list[str]) -> npt.NDArray[np.float64]:
    """Mean of the test rows' predictions over the seeds; the number of trees is chosen on the validation rows."""
    inputs = frame[columns].copy()
    for name in inputs.select_dtypes("object"):
        inputs[name] = inputs[name].astype("category")
    parts = {
        name: xgboost.DMatrix(inputs[frame["split"] == name], frame.loc[frame["split"] == name, "label"].astype(float), enable_categorical=True)
        for name in ("train", "validation", "test")
    }
    total = np.zeros(parts["test"].num_row())
    for seed in SEEDS:
        model = xgboost.train(
            {**PARAMETERS, "seed": seed, "nthread": 2}, parts["train"], 300, evals=[(parts["validation"], "v")], early_stopping_rounds=20, verbose_eval=False
        )
        total += model.predict(parts["test"], iteration_range=(0, model.best_iteration + 1))
    return total / len(SEEDS)


def auc(label: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float:
    """Area under the ROC curve (Mann-Whitney, ties count half)."""
    ranks = pd.Series(score).rank().to_numpy()
    positive, size = int(label.sum()), len(label)
    return float((ranks[label].sum() - positive * (positive + 1) / 2) / (positive * (size - positive)))


def table(usecase: LoadedUseCase, frame: pd.DataFrame, scores: dict[str, npt.NDArray[np.float64]]) -> str:
    """AUC of every variant and its gain over the request's fields with an interval from resampled days (rows of one day are not independent)."""
    test = frame[frame["split"] == "test"]
    label = test["label"].astype(bool).to_numpy()
    days = test["event_time"].dt.floor("D").to_numpy()
    by_day = [np.flatnonzero(days == day) for day in np.unique(days)]
    random, base = np.random.default_rng(0), scores["request fields only"]
    samples = [np.concatenate([by_day[day] for day in random.integers(0, len(by_day), len(by_day))]) for _ in range(RESAMPLES)]
    lines = [
        "# What the features are worth",
        "",
        f"Feature set `{usecase.features.definition_hash}`, everything as known on {format_moment(CUT)}. "
        f"Train {int((frame['split'] == 'train').sum()):,}, validation {int((frame['split'] == 'validation').sum()):,}, test {len(test):,} flights "
        f"({test['event_time'].min():%d %B} to {test['event_time'].max():%d %B} 2013, {len(by_day)} days). Made by `benchmarks/feature_value.py`.",
        "",
        "| features | AUC on the test period | gain over the request's fields | 95% interval (days resampled) |",
        "|---|---|---|---|",
    ]
    for name, score in scores.items():
        gains = [auc(label[rows], score[rows]) - auc(label[rows], base[rows]) for rows in samples]
        low, high = np.quantile(gains, [0.025, 0.975])
        gain = auc(label, score) - auc(label, base)
        lines.append(f"| {name} | {auc(label, score):.3f} | " + ("| |" if name == "request fields only" else f"{gain:+.3f} | {low:+.3f} to {high:+.3f} |"))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
