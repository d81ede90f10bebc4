"""A search keeps to its budget, is resumed where it was killed, and gives the same result either way."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from components.contracts.loading import LoadedUseCase
from components.model_engineering import tune as tuning
from components.model_engineering.boosting import FitData
from components.model_engineering.tests.flight_rows import flight_rows, manifest_of
from components.model_engineering.train import prepare
from components.model_engineering.tune import study_key, tune

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def case(flights: LoadedUseCase) -> tuple[FitData, object]:
    frame = flight_rows(flights, 2500)
    return prepare(flights, frame).data, manifest_of(flights, frame)


@pytest.mark.ml_test("model-3")
def test_the_budget_is_spent_exactly_and_the_first_trial_is_the_default(flights, case, tmp_path) -> None:
    tuned = tune(flights, *case, 4, tmp_path)
    assert [trial.number for trial in tuned.trials] == [0, 1, 2, 3]
    assert {trial.state for trial in tuned.trials} <= {"complete", "pruned"}
    assert tuned.trials[0].parameters["max_depth"] == 6
    assert tuned.value == min(trial.value for trial in tuned.trials if trial.value is not None)
    assert tuned.parameters["max_bin"] == 128
    for trial in tuned.trials:
        for name, space in flights.config.model.search_space.items():
            assert space.low <= trial.parameters[name] <= space.high


def _search_and_die(flights, case, folder: Path, trial_to_die_in: int) -> None:
    """In a process of its own: SIGKILL in the middle of a trial, after some of its rounds."""
    pruning = tuning._Pruning.after_iteration

    def dying(self, model, epoch, evals_log):
        if self.trial.number == trial_to_die_in and epoch == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return pruning(self, model, epoch, evals_log)

    tuning._Pruning.after_iteration = dying
    tune(flights, *case, 4, folder)


def test_a_search_killed_in_a_trial_goes_on_to_the_same_end(flights, case, tmp_path) -> None:
    # Matrices of XGBoost do not survive a fork, so the child builds its own.
    frame = flight_rows(flights, 2500)
    manifest = manifest_of(flights, frame)
    process = multiprocessing.get_context("spawn").Process(target=_killed, args=(str(tmp_path / "killed"),))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    journal = tmp_path / "killed" / f"{study_key(flights.config.model, manifest)}.log"
    before = journal.read_bytes()
    resumed = tune(flights, *case, 4, tmp_path / "killed")
    assert journal.read_bytes().startswith(before), "finished trials are kept as they were"
    assert resumed == tune(flights, *case, 4, tmp_path / "whole")


def _killed(folder: str) -> None:
    from components.contracts.loading import load_usecase

    loaded = load_usecase("flights")
    model = loaded.config.model.model_copy(update={"maximum_rounds": 40, "early_stopping_rounds": 8, "budget_trials": 4})
    flights = LoadedUseCase(loaded.folder, loaded.config.model_copy(update={"model": model}), loaded.features)
    frame = flight_rows(flights, 2500)
    _search_and_die(flights, (prepare(flights, frame).data, manifest_of(flights, frame)), Path(folder), trial_to_die_in=2)


def test_a_finished_search_is_not_run_again(flights, case, tmp_path) -> None:
    first = tune(flights, *case, 2, tmp_path)
    journal = next(tmp_path.iterdir())
    before = journal.stat().st_mtime_ns
    assert tune(flights, *case, 2, tmp_path) == first
    assert journal.stat().st_mtime_ns == before
    assert len(tune(flights, *case, 3, tmp_path).trials) == 3


def test_other_data_or_another_search_space_is_another_study(flights, case) -> None:
    model, manifest = flights.config.model, case[1]
    keys = {
        study_key(model, manifest),
        study_key(model, manifest.model_copy(update={"content_hash": "other"})),
        study_key(model.model_copy(update={"seed": 1}), manifest),
        study_key(model.model_copy(update={"search_space": dict(list(model.search_space.items())[:2])}), manifest),
    }
    assert len(keys) == 4
    assert study_key(model.model_copy(update={"budget_trials": 99}), manifest) in keys, "a larger budget goes on with the same study"


def test_a_hopeless_trial_is_pruned_before_it_runs_out_of_rounds(flights, case, tmp_path) -> None:
    space = flights.config.model.search_space
    model = flights.config.model.model_copy(
        update={
            "search_space": {"learning_rate": space["learning_rate"], "reg_lambda": space["reg_lambda"].model_copy(update={"high": 1e7})},
            "budget_trials": 8,
        }
    )
    tuned = tune(LoadedUseCase(flights.folder, flights.config.model_copy(update={"model": model}), flights.features), *case, 8, tmp_path)
    pruned = [trial for trial in tuned.trials if trial.state == "pruned"]
    assert pruned
    assert all(0 < trial.rounds < model.maximum_rounds for trial in pruned)


def test_no_trials_are_refused(flights, case, tmp_path) -> None:
    with pytest.raises(ValueError, match="budget_trials"):
        tune(flights, *case, 0, tmp_path)
