"""Which share of outages to rehearse (`model.outage_share`): measured on the validation period, before the test period begins.

    components/environments/pipeline/.venv/bin/python benchmarks/outage_share.py --dataset <state>/artifacts/.../dataset

For each share one model is trained as the pipeline does; on the calibration half of the validation period, with all views present and with each view missing in turn, the log
loss is taken. Rule, fixed before looking: of the shares whose loss with all views present is within one standard error (over days) of the
best, the one with the lowest loss under the worst single outage.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from components.contracts.loading import LoadedUseCase, load_usecase
from components.model_engineering.boosting import FitData, fit_booster, predict_raw
from components.model_engineering.calibration import split_validation
from components.model_engineering.outages import rehearse_outages
from components.model_engineering.rows import LabelledRows, encoding_of, labelled_rows, read_dataset

SHARES = (0.0, 0.02, 0.05, 0.1, 0.2)
PARAMETERS = {"max_depth": 6, "learning_rate": 0.1, "max_bin": 128}
RESULT = Path(__file__).parent / "results" / "outage_share.md"


@dataclass(frozen=True)
class Measured:
    """Log loss per row of one share: with all views (and its standard error over days), and with the view missing that hurts most."""

    share: float
    complete: float
    error: float
    worst_outage: float
    view: str


def losses(rows: LabelledRows, probability: np.ndarray) -> pd.Series[float]:
    """Mean log loss by day."""
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    each = -(rows.label * np.log(clipped) + (1 - rows.label) * np.log(1 - clipped))
    return pd.Series(each).groupby(rows.frame["prediction_moment"].dt.date.to_numpy()).mean()


def measure(usecase: LoadedUseCase, path: Path) -> float:
    """Write the table and return the share that the rule chooses. `path`: a dataset as the pipeline builds it."""
    dataset = read_dataset(path)
    encoding, model = encoding_of(usecase), usecase.config.model
    stopping, judged = split_validation(labelled_rows(dataset, "validation"))
    measured: list[Measured] = []
    for share in SHARES:
        train = rehearse_outages(labelled_rows(dataset, "train"), usecase.features, share, model.seed)
        booster = fit_booster(
            FitData(encoding, train, stopping),
            PARAMETERS,
            seed=model.seed,
            maximum_rounds=model.maximum_rounds,
            early_stopping_rounds=model.early_stopping_rounds,
        ).booster
        complete = losses(judged, predict_raw(booster, encoding, judged))
        outages = {}
        for view in usecase.features.views:
            frame = judged.frame.copy()
            frame[list(view.feature_names)] = np.nan
            missing = LabelledRows(frame, judged.label)
            outages[view.name] = float(losses(missing, predict_raw(booster, encoding, missing)).mean())
        worst = max(outages, key=lambda name: outages[name])
        measured.append(Measured(share, float(complete.mean()), float(np.std(complete.to_numpy(), ddof=1) / np.sqrt(len(complete))), outages[worst], worst))
    best = min(measured, key=lambda each: each.complete)
    chosen = min((each for each in measured if each.complete <= best.complete + best.error), key=lambda each: each.worst_outage).share
    lines = ["| share | log loss, all views | standard error | log loss, worst outage | view |", "|---|---|---|---|---|"]
    lines += [f"| {each.share:g} | {each.complete:.4f} | {each.error:.4f} | {each.worst_outage:.4f} | {each.view} |" for each in measured]
    first, last = judged.frame["prediction_moment"].min(), judged.frame["prediction_moment"].max()
    text = (
        f"# Share of rehearsed outages\n\nMean daily log loss on {len(judged):,} validation rows from {first:%d %b} to {last:%d %b %Y}; the test period is not looked at.\n\n"
        + "\n".join(lines)
        + f"\n\nBy the rule of `benchmarks/outage_share.py`: **{chosen:g}**.\n"
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text)
    print(text)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--usecase", default="flights")
    parser.add_argument("--dataset", type=Path, required=True)
    given = parser.parse_args()
    measure(load_usecase(given.usecase), given.dataset)


if __name__ == "__main__":
    main()
