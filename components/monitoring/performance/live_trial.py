"""The trial of a measured window, from what the monitoring has: the first release's rows, the prediction log, and labels known by then.

Their features are those that the models were given, so no feature has to be built again. The trial belongs to the window's champion: what would
have been gained in this window by a model of the labels known when the window began, over one of those known when the champion was trained.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.contracts.events import Performance, Trial
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.deployment.bundle import read_file, read_manifest
from components.monitoring.performance.join import join_window
from components.monitoring.performance.loss import losses, mean_error
from components.monitoring.performance.metric import days_of
from components.monitoring.performance.trial import fit_trial, row_weights
from components.monitoring.prediction_log import PredictionLog
from components.monitoring.retrain_trigger.worth import best_training_window

if TYPE_CHECKING:
    import pandas as pd

ROWS = 20_000  # that trials learn from at most; a trial is a comparison, and a fit of more rows tells no more for its time


def trainable_windows(usecase: LoadedUseCase) -> tuple[str, ...]:
    """The training windows that the retraining pipeline can train on: it weighs all rows alike, and half the training window must leave rows beside
    the test period, the embargo before it and the validation rows."""
    config = usecase.config
    needed = config.model.test_period + config.data.label.delay
    return ("sliding", "growing", *(["short"] if config.retraining.training_window / 2 > 2 * needed else []))


def live_trial(
    usecase: LoadedUseCase, platform: Platform, release: str, start: datetime, end: datetime, as_of: datetime, earlier: Sequence[Performance], day: timedelta
) -> Trial | None:
    """The trial of the champion in `release` for the window [start, end), as of `as_of`. `earlier`: what was measured before; `day`: stretches of
    time whose rows may depend on each other.

    None where it cannot be made: the release keeps no features, or labels of one class only.
    """
    from components.model_engineering.rows import encoding_of

    rows = labelled_history(usecase, platform, end, as_of)
    if rows is None:
        return None
    import pandas as pd

    encoding = encoding_of(usecase)
    judged = rows[rows["moment"] >= pd.Timestamp(start)]
    before = rows[rows["moment"] < pd.Timestamp(start)]
    if len(before) > ROWS:
        before = before.sample(ROWS, random_state=usecase.config.model.seed).sort_index()
    if not len(judged) or not len(before):
        return None
    matrix, label = encoding.encode(before), before["label"].to_numpy(dtype=np.float64)
    target, truth = encoding.encode(judged), judged["label"].to_numpy(dtype=np.float64)
    window = usecase.config.retraining.training_window

    def scored(name: str, moment: datetime) -> npt.NDArray[np.float64] | None:
        known = (before["known_at"] <= pd.Timestamp(moment)).to_numpy()
        age = ((pd.Timestamp(moment) - before["moment"]) / window).to_numpy(dtype=np.float64)
        booster = fit_trial(matrix[known], label[known], row_weights(name, age[known], 1.0), encoding.feature_types)
        return None if booster is None else losses(truth, booster.inplace_predict(target))

    found = {name: each for name in trainable_windows(usecase) if (each := scored(name, start)) is not None}
    chosen = best_training_window([one for one in earlier if one.as_of <= start]) or "sliding"
    trained = read_manifest(platform.bundles_uri, release).created
    then = scored(chosen, trained) if chosen in found else None
    if then is None:
        return None
    difference = then - found[chosen]
    by_row = float(np.std(difference) / np.sqrt(len(difference)))
    error = max(by_row, mean_error(difference, days_of(judged["moment"], day)))
    return Trial(gain=float(difference.mean()), error=error, windows={name: float(each.mean()) for name, each in found.items()})


def labelled_history(usecase: LoadedUseCase, platform: Platform, end: datetime, as_of: datetime) -> pd.DataFrame | None:
    """Labelled rows with prediction moments before `end`, known at `as_of`: `moment`, `known_at`, `label` (0 or 1) and the features, in order of time.

    The first logged release's reference covers the time before the log. None when it keeps no features, or nothing was logged.
    """
    import pandas as pd

    days = PredictionLog(platform.prediction_log_uri).days(usecase.name)
    if not days:
        return None
    logged = join_window(usecase, platform, datetime(days[0].year, days[0].month, days[0].day, tzinfo=UTC), end, as_of)
    if not len(logged.rows):
        return None
    names = list(usecase.features.feature_names)
    first = str(logged.rows.sort_values("prediction_moment")["release"].iloc[0])
    reference = pd.read_parquet(io.BytesIO(read_file(platform.bundles_uri, first, "reference.parquet")))
    if not set(names) <= set(reference.columns):
        return None
    known = logged.labelled.rename(columns={"prediction_moment": "moment", "label_known_at": "known_at"}).reindex(
        columns=["entity", "moment", "known_at", "label", *names]
    )
    old = reference[reference["label"].notna()].rename(columns={"prediction_moment": "moment"})
    delay = usecase.config.data.prediction.lead + usecase.config.data.label.delay
    old = old.assign(known_at=old["moment"] + delay).reindex(columns=known.columns)
    both = pd.concat([old, known], ignore_index=True).drop_duplicates("entity", keep="last")
    both = both[both["moment"] < pd.Timestamp(end)].sort_values("moment", kind="stable", ignore_index=True)
    return both.assign(label=both["label"].astype(bool).astype("int64"))
