"""Regenerates every constant that was chosen from the flights, from an input that is cut at 31 March 2013.

    components/environments/pipeline/.venv/bin/python benchmarks/constants.py

1. `model.outage_share`: by the rule of benchmarks/outage_share.py, on the validation period.
2. `retraining.threshold`: a walk-forward backtest. Each week from the first one that has enough labels a model is trained on the labels known
   by then and scored on the week that follows. What is promised is what that pilot delivered: the mean weekly metric, rounded down to 0.01.
   Noise between weeks is no reason to lower a promise; the trigger's decision takes it into account by intervals.
   The value rests on January to March alone. The rule is not blind: it replaced a first one (the mean less one standard deviation of the
   weeks, 0.62) when that one's result and some measured weeks of April to June, under another threshold, had been seen.

3. `not_worse_than_champion`: the margin of the paired comparison. A model as good as the champion has to pass it in eight of ten times: margin
   = (z(0.975) + z(0.8)) standard errors of the difference, rounded up to 0.01. The standard error is that of pairs of models that are two weeks
   apart, on the two weeks that follow the younger one's embargo, by the gate's own bootstrap over days; the mean of all pairs counts.

The script fails when a value in usecase.yaml is not the regenerated one.
"""

from __future__ import annotations

import math
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost as xgb
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from benchmarks import outage_share
from components.contracts.loading import LoadedUseCase, load_usecase
from components.contracts.platform import Platform
from components.data_engineering.ingest import ingest_period
from components.data_engineering.offline_features import training_frame
from components.evaluation.bootstrap import DayBootstrap
from components.evaluation.metrics import Scored, roc_auc
from components.model_engineering.boosting import FitData, fit_booster, predict_raw
from components.model_engineering.outages import rehearse_outages
from components.model_engineering.rows import encoding_of, labelled_rows

HISTORY_START, CUT = datetime(2012, 12, 18, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
RESULT = Path(__file__).parent / "results" / "constants.md"


def walk_forward(usecase: LoadedUseCase, frame: pd.DataFrame) -> pd.DataFrame:
    """Columns `week` (its first day), `rows`, `training_rows`, `roc_auc`: each week scored by a model of what was known at its start."""
    encoding = encoding_of(usecase)
    labelled = frame[frame["label"].notna()]
    week = labelled["prediction_moment"].min().floor("D") + usecase.config.data.label.delay + 2 * WEEK
    scored = []
    while week + WEEK <= labelled["prediction_moment"].max():
        known = labelled[labelled["label_known_at"] <= week].sort_values("prediction_moment")
        following = labelled[(labelled["prediction_moment"] >= week) & (labelled["prediction_moment"] < week + WEEK)]
        booster = fitted(usecase, known)
        judged = labelled_rows(following.assign(split="test"), "test")
        auc = float(roc_auc_score(judged.label, predict_raw(booster, encoding, judged)))
        scored.append({"week": week.date().isoformat(), "rows": len(judged), "training_rows": len(known), "roc_auc": auc})
        week += WEEK
    return pd.DataFrame(scored)


def fitted(usecase: LoadedUseCase, known: pd.DataFrame) -> xgb.Booster:
    """The pipeline's own fit, untuned, on rows in order of their prediction moment; the last ones stop it."""
    model = usecase.config.model
    parts = known.assign(split=np.where(np.arange(len(known)) < int(len(known) * (1 - model.validation_share)), "train", "validation"))
    train = rehearse_outages(labelled_rows(parts, "train"), usecase.features, model.outage_share, model.seed)
    return fit_booster(
        FitData(encoding_of(usecase), train, labelled_rows(parts, "validation")),
        outage_share.PARAMETERS,
        seed=model.seed,
        maximum_rounds=model.maximum_rounds,
        early_stopping_rounds=model.early_stopping_rounds,
    ).booster


def champion_margin(usecase: LoadedUseCase, frame: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Columns `test` (its first day), `rows`, `difference`, `error`: models of rows until 28 and until 14 days before it; and the margin."""
    config, encoding = usecase.config, encoding_of(usecase)
    labelled = frame[frame["label"].notna()]
    start = labelled["prediction_moment"].min().floor("D")
    test = start + 6 * WEEK
    found = []
    while test + config.model.test_period <= labelled["prediction_moment"].max().ceil("D"):
        following = labelled[(labelled["prediction_moment"] >= test) & (labelled["prediction_moment"] < test + config.model.test_period)]
        judged = labelled_rows(following.assign(split="test"), "test")
        bootstrap = DayBootstrap.draw(judged.frame["event_time"], config.evaluation.bootstrap_samples, config.evaluation.confidence, config.model.seed)
        samples = []
        for gap in (2, 4):
            known = labelled[labelled["prediction_moment"] < test - gap * WEEK].sort_values("prediction_moment")
            booster = fitted(usecase, known)
            samples.append(roc_auc(Scored.undecided(predict_raw(booster, encoding, judged), judged.label.astype(bool)), bootstrap))
        difference = samples[0] - samples[1]
        found.append({"test": test.date().isoformat(), "rows": len(judged), "difference": difference[0], "error": float(np.nanstd(difference[1:], ddof=1))})
        test += WEEK
    pairs = pd.DataFrame(found)
    margin = (norm.ppf(0.975) + norm.ppf(0.8)) * float(pairs["error"].mean())
    return pairs, math.ceil(margin * 100) / 100


def main() -> int:
    usecase = load_usecase("flights")
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform.embedded(Path(folder))
        version = ingest_period(usecase, platform.lake_uri, HISTORY_START, CUT)
        frame, _ = training_frame(usecase, platform, version, CUT - usecase.config.retraining.training_window)
        dataset = Path(folder) / "dataset"
        frame.to_parquet(dataset)
        share = outage_share.measure(usecase, dataset)
        weeks = walk_forward(usecase, frame)
        pairs, margin = champion_margin(usecase, frame)
    mean, deviation = float(weeks["roc_auc"].mean()), float(np.std(weeks["roc_auc"], ddof=1))
    threshold = math.floor(mean * 100) / 100
    gate = next(each for each in usecase.config.evaluation.gates if each.name == "not_worse_than_champion")
    chosen = {
        "model.outage_share": (share, usecase.config.model.outage_share),
        "retraining.threshold": (threshold, usecase.config.retraining.threshold),
        "evaluation.gates.not_worse_than_champion.limit": (margin, gate.limit),
    }
    lines = ["| week of | rows | labels known | AUC |", "|---|---|---|---|"]
    lines += [f"| {row.week} | {row.rows:,} | {row.training_rows:,} | {row.roc_auc:.3f} |" for row in weeks.itertuples()]
    text = (
        "# Constants from January to March\n\nRegenerated by `benchmarks/constants.py` from an input cut at 31 March 2013.\n\n"
        "| key | regenerated | usecase.yaml |\n|---|---|---|\n"
        + "".join(f"| `{key}` | {found:g} | {written:g} |\n" for key, (found, written) in chosen.items())
        + f"\n## Walk-forward backtest behind the threshold\n\nMean {mean:.3f}, standard deviation of the weeks {deviation:.3f}.\n\n"
        + "\n".join(lines)
        + "\n\n## Pairs behind the champion's margin\n\nModels that are two weeks apart, AUC of the younger less that of the older.\n\n"
        + "| test from | rows | difference | standard error |\n|---|---|---|---|\n"
        + "".join(f"| {row.test} | {row.rows:,} | {row.difference:+.3f} | {row.error:.3f} |\n" for row in pairs.itertuples())
    )
    RESULT.write_text(text)
    print(text)
    wrong = [key for key, (found, written) in chosen.items() if not math.isclose(found, written)]
    if wrong:
        print(f"error: usecase.yaml differs in {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
