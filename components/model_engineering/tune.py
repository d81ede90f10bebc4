"""Search for parameters: Optuna's TPE with pruning, resumable, to exactly the budget in trials.

The objective is the log loss on the earlier part of the validation period: the decision rests on probabilities, and a proper scoring
rule judges them. The journal is saved after each finished trial, so a killed search loses the trial that it was in and nothing else;
each trial's sampler is seeded by its number, so a resumed search tries the same points as one that was never killed.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import xgboost as xgb
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import BaseModel, ConfigDict
from upath import UPath

from components.contracts.artifacts import DatasetManifest
from components.contracts.loading import LoadedUseCase
from components.contracts.records import record_id
from components.contracts.storage import read_whole, write_atomically
from components.contracts.usecase import Model
from components.model_engineering.boosting import OBJECTIVE, FitData, fit_booster

# Trials are compared at equal progress, learning rate times rounds: at equal rounds a slow learner would always be pruned.
REPORT_EVERY = 0.5
WARM_UP = 2.0
# XGBoost's documented defaults: the first trial, so that tuning is never worse than not tuning.
DEFAULTS = {
    "max_depth": 6,
    "learning_rate": 0.3,
    "min_child_weight": 1,
    "subsample": 1.0,
    "colsample_bytree": 1.0,
    "reg_lambda": 1.0,
    "reg_alpha": 0.0,
    "gamma": 0.0,
}
_FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


class Trial(BaseModel):
    """`value`: log loss at the best round; None when pruned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    state: str
    value: float | None
    rounds: int
    parameters: dict[str, float | int]


class Tuned(BaseModel):
    """What a search found. `study` identifies data, search space and settings; a search with the same ones is the same study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    objective: str
    dataset: str
    seed: int
    value: float
    parameters: dict[str, float | int | str]
    trials: tuple[Trial, ...]


def study_key(model: Model, manifest: DatasetManifest) -> str:
    """Derived from everything that a trial's value depends on, apart from the number of trials."""
    settings = model.model_dump(
        mode="json", include={"search_space", "fixed", "early_stopping_rounds", "maximum_rounds", "seed", "validation_share", "outage_share"}
    )
    return record_id(manifest.content_hash, manifest.feature_set, json.dumps(settings, sort_keys=True), OBJECTIVE, xgb.__version__)


def tune(usecase: LoadedUseCase, data: FitData, manifest: DatasetManifest, trials: int, journals: UPath | Path) -> Tuned:
    """Search until `trials` trials are finished (complete or pruned), going on where an earlier search of the same study ended.

    `journals`: folder, local or remote, of the journals `<study>.log`. Raises ValueError when `trials` is below 1.
    """
    if trials < 1:
        raise ValueError(f"{trials} trials are no search; model.budget_trials must be 1 or more")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    model = usecase.config.model
    key = study_key(model, manifest)
    saved = journals / f"{key}.log"
    with tempfile.TemporaryDirectory(prefix="crispline-tune-") as folder:
        working = Path(folder) / "journal.log"
        with suppress(FileNotFoundError):
            working.write_bytes(read_whole(saved))
        storage = JournalStorage(JournalFileBackend(str(working)))
        study = optuna.create_study(study_name=key, storage=storage, direction="minimize", load_if_exists=True)
        while (done := _finished(study)) < trials:
            study.sampler = optuna.samplers.TPESampler(seed=model.seed + done, n_startup_trials=max(2, min(10, model.budget_trials // 2)))
            study.pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=int(WARM_UP / REPORT_EVERY))
            if done == 0:
                study.enqueue_trial(_defaults(model), skip_if_exists=True)
            study.optimize(lambda trial: _objective(trial, model, data), n_trials=1)
            write_atomically(saved, working.read_bytes())
        return _result(study, key, manifest, model, trials)


def _objective(trial: optuna.Trial, model: Model, data: FitData) -> float:
    parameters: dict[str, float | int | str] = dict(model.fixed)
    for name, space in model.search_space.items():
        if space.integer:
            parameters[name] = trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
        else:
            parameters[name] = trial.suggest_float(name, space.low, space.high, log=space.log)
    fit = fit_booster(
        data,
        parameters,
        seed=model.seed,
        maximum_rounds=model.maximum_rounds,
        early_stopping_rounds=model.early_stopping_rounds,
        callbacks=[_Pruning(trial, float(parameters.get("learning_rate", DEFAULTS["learning_rate"])))],
    )
    trial.set_user_attr("rounds", fit.best_iteration + 1)
    return fit.loss


class _Pruning(xgb.callback.TrainingCallback):
    """Reports the lowest loss so far at each step of progress and ends a trial that is worse than the median of the earlier ones there."""

    def __init__(self, trial: optuna.Trial, learning_rate: float) -> None:
        self.trial, self.learning_rate, self.reported = trial, learning_rate, 0

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002
        progress = int((epoch + 1) * self.learning_rate / REPORT_EVERY + 1e-9)
        if progress > self.reported:
            self.reported = progress
            self.trial.report(float(np.min(evals_log["stopping"]["logloss"])), progress)
            if self.trial.should_prune():
                self.trial.set_user_attr("rounds", epoch + 1)
                raise optuna.TrialPruned
        return False


def _defaults(model: Model) -> dict[str, float | int]:
    chosen: dict[str, float | int] = {}
    for name, space in model.search_space.items():
        if name in DEFAULTS:
            value = min(max(DEFAULTS[name], space.low), space.high)
            chosen[name] = int(value) if space.integer else float(value)
    return chosen


def _finished(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=_FINISHED))


def _result(study: optuna.Study, key: str, manifest: DatasetManifest, model: Model, budget: int) -> Tuned:
    finished = study.get_trials(deepcopy=False, states=_FINISHED)[:budget]
    best = min((trial for trial in finished if trial.state == optuna.trial.TrialState.COMPLETE), key=lambda trial: (float(trial.value or 0.0), trial.number))
    return Tuned(
        study=key,
        objective=OBJECTIVE,
        dataset=manifest.id,
        seed=model.seed,
        value=float(best.value or 0.0),
        parameters={**model.fixed, **best.params},
        trials=tuple(
            Trial(
                number=number,
                state=trial.state.name.lower(),
                value=trial.value if trial.state == optuna.trial.TrialState.COMPLETE else None,
                rounds=int(trial.user_attrs.get("rounds", 0)),
                parameters=trial.params,
            )
            for number, trial in enumerate(finished)
        ),
    )
