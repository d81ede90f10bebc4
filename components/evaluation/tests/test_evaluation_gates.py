"""Each gate seen saying yes and no, on data made for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from components.contracts.artifacts import CodeVersion
from components.contracts.evaluation import EvaluationResult, GateReport, GateVerdict
from components.contracts.loading import LoadedUseCase
from components.contracts.usecase import Gate
from components.evaluation.bootstrap import DayBootstrap
from components.evaluation.checks import CHECKS, check_records
from components.evaluation.gates import judge, judge_gates
from components.evaluation.label_shuffle import booster_learner, measure_label_shuffle
from components.evaluation.reproduction import measure_reproduction
from components.evaluation.simultaneous import simultaneous_bounds
from components.model_engineering.train import prepare
from components.model_engineering.train import train as train_for_real
from components.model_server.scoring import ScoringModel

pytestmark = pytest.mark.pipeline
Evaluate = Callable[..., EvaluationResult]


def judged(usecase: LoadedUseCase, result: EvaluationResult, **changes: Any) -> GateReport:
    return judge_gates(usecase.config.evaluation.model_copy(update=changes), result)


def verdict(report: GateReport, name: str) -> GateVerdict:
    return next(each for each in report.verdicts if each.name == name)


def refusing(report: GateReport) -> set[str]:
    return {each.name for each in report.verdicts if each.outcome == "failed"}


def swap(evaluation: Any, name: str, **changes: Any) -> list[Gate]:
    return [gate.model_copy(update=changes) if gate.name == name else gate for gate in evaluation.gates]


@pytest.mark.ml_test("infrastructure-4")
def test_a_good_model_passes_every_gate(usecase: LoadedUseCase, good: EvaluationResult) -> None:
    report = judged(usecase, good)
    assert report.outcome == "passed", report.reason
    assert refusing(report) == set()


def test_a_feature_that_holds_the_label_is_a_leak(usecase: LoadedUseCase, world: Any, in_world: Any, train: Any, evaluate: Evaluate) -> None:
    leaking = world.dataset.copy()
    leaking["seats"] = leaking["label"].astype("Float64").fillna(0.0).astype(float) + np.random.default_rng(1).normal(0, 0.1, len(leaking))
    report = judged(usecase, evaluate(train("leaking", world=in_world(leaking)), dataset=leaking))
    assert report.outcome == "failed"
    assert verdict(report, "no_feature_too_good").subject == "seats"
    assert "no_feature_too_good" in refusing(report)


def test_a_leak_that_hides_in_missing_values_is_found(usecase: LoadedUseCase, world: Any, good_model: Path, evaluate: Evaluate) -> None:
    leaking = world.dataset.copy()
    leaking["temp"] = leaking["temp"].mask(leaking["label"].fillna(False).astype(bool))
    result = evaluate(good_model, dataset=leaking)
    assert result.leakage[0].feature == "temp"
    assert result.leakage[0].rule == "bins"
    assert "no_feature_too_good" in refusing(judged(usecase, result))


def test_flipped_labels_are_refused(usecase: LoadedUseCase, world: Any, good_model: Path, train: Any, evaluate: Evaluate) -> None:
    flipped_in_training = evaluate(train("flipped", label=~world.dataset["label"]))
    assert flipped_in_training.metrics["roc_auc"].value < 0.4
    assert {"ranks_well", "beats_simple_model", "no_origin_collapses"} <= refusing(judged(usecase, flipped_in_training))
    flipped_in_test = world.dataset.copy()
    flipped_in_test["label"] = ~flipped_in_test["label"]
    assert "ranks_well" in refusing(judged(usecase, evaluate(good_model, dataset=flipped_in_test)))


@pytest.mark.ml_test("infrastructure-4", "monitoring-7")
def test_a_model_worse_than_the_champion_is_refused_and_a_better_one_is_not(usecase: LoadedUseCase, good_model: Path, train: Any, evaluate: Evaluate) -> None:
    weak = train("weak", features=("carrier", "origin", "distance", "precip"))
    worse = judged(usecase, evaluate(weak, champion=good_model))
    assert "not_worse_than_champion" in refusing(worse)
    better = judged(usecase, evaluate(good_model, champion=weak))
    assert verdict(better, "not_worse_than_champion").outcome == "passed"
    assert verdict(better, "not_worse_than_champion").subject == "release-1"


def test_the_champion_against_itself_loses_nothing(good_model: Path, evaluate: Evaluate) -> None:
    comparison = evaluate(good_model, champion=good_model).comparison("champion")
    assert comparison is not None
    assert all(each.improvement.low == each.improvement.high == 0 for each in comparison.differences.values())


def test_without_a_champion_the_gate_passes_and_says_so(usecase: LoadedUseCase, good: EvaluationResult) -> None:
    found = verdict(judged(usecase, good), "not_worse_than_champion")
    assert (found.outcome, found.subject) == ("passed", "no champion")
    assert "no champion" in found.why


@pytest.mark.ml_test("model-6")
def test_a_slice_that_collapses_blocks_promotion(usecase: LoadedUseCase, world: Any, good_model: Path, evaluate: Evaluate) -> None:
    collapsed = world.dataset.copy()
    there = (collapsed["origin"] == "LGA") & (collapsed["split"] == "test") & collapsed["label"].notna()
    collapsed.loc[there, "label"] = np.random.default_rng(3).permutation(collapsed.loc[there, "label"].to_numpy(dtype=bool))
    report = judged(usecase, evaluate(good_model, dataset=collapsed))
    assert refusing(report) == {"no_origin_collapses"}, "the average still looks well"
    assert verdict(report, "no_origin_collapses").subject == "origin LGA"


def test_sparse_and_one_sided_parts_are_listed_as_not_judged(usecase: LoadedUseCase, world: Any, good_model: Path, evaluate: Evaluate) -> None:
    one_sided = world.dataset.copy()
    one_sided.loc[(one_sided["carrier"] == "AA") & one_sided["label"].notna(), "label"] = False
    gates = [*usecase.config.evaluation.gates, Gate(name="no_carrier_collapses", kind="slice", slice="carrier", metric="roc_auc", limit=0.55)]
    report = judged(usecase, evaluate(good_model, dataset=one_sided), gates=gates)
    unjudged = verdict(report, "no_carrier_collapses").not_judged
    assert [part.split(" (")[0] for part in unjudged] == ["carrier AA", "carrier HA"]
    assert "carrier HA" in report.reason
    assert verdict(report, "no_carrier_collapses").outcome == "passed"


def test_a_slice_gate_that_can_judge_nothing_does_not_pass(usecase: LoadedUseCase, good: EvaluationResult) -> None:
    sparse = tuple(part.model_copy(update={"judged": False, "why_not": "3 labelled rows", "metrics": {}}) for part in good.slices)
    assert "no_origin_collapses" in refusing(judged(usecase, good.model_copy(update={"slices": sparse})))


def test_an_uncalibrated_model_is_refused(usecase: LoadedUseCase, train: Any, evaluate: Evaluate) -> None:
    report = judged(usecase, evaluate(train("overconfident", x=(0.0, 1.0), y=(0.3, 1.0))))
    assert refusing(report) >= {"calibrated"}
    assert verdict(report, "ranks_well").outcome == "passed", "the ranking is untouched by a monotone calibrator"


def test_a_model_that_leans_on_one_feed_is_fragile(usecase: LoadedUseCase, world: Any, in_world: Any, train: Any, evaluate: Evaluate) -> None:
    leaning = world.dataset.copy()
    rng = np.random.default_rng(4)
    truth = leaning["label"].astype("Float64").fillna(0.0).astype(float)
    leaning["precip"] = truth + rng.normal(0, 0.8, len(leaning))
    report = judged(usecase, evaluate(train("leaning", world=in_world(leaning)), dataset=leaning))
    assert refusing(report) == {"survives_missing_inputs"}
    assert verdict(report, "survives_missing_inputs").subject in ("airport_weather missing", "precip missing")


@pytest.mark.ml_test("data-3", "monitoring-6")
def test_a_model_too_slow_or_too_big_is_refused(usecase: LoadedUseCase, train: Any, evaluate: Evaluate) -> None:
    result = evaluate(train("big", rounds=300))
    tight = [
        gate.model_copy(update={"limit": 0.05 if gate.kind == "latency" else 0.1}) if gate.kind in ("latency", "size") else gate
        for gate in usecase.config.evaluation.gates
    ]
    assert {"fast_enough", "small_enough"} <= refusing(judged(usecase, result, gates=tight))
    assert not {"fast_enough", "small_enough"} & refusing(judged(usecase, result))


@pytest.mark.ml_test("model-5")
def test_a_model_no_better_than_the_simple_one_is_refused(usecase: LoadedUseCase, train: Any, evaluate: Evaluate) -> None:
    report = judged(usecase, evaluate(train("poor", features=("carrier", "origin", "weekday"))))
    assert "beats_simple_model" in refusing(report)


def test_the_interval_decides_not_the_estimate(usecase: LoadedUseCase, good: EvaluationResult) -> None:
    auc = good.metrics["roc_auc"]
    between = (auc.low + auc.value) / 2
    gates = swap(usecase.config.evaluation, "ranks_well", limit=between)
    assert refusing(judged(usecase, good, gates=gates)) == {"ranks_well"}
    assert refusing(judged(usecase, good, gates=swap(usecase.config.evaluation, "ranks_well", limit=auc.low))) == set()


def test_a_gate_that_warns_does_not_refuse(usecase: LoadedUseCase, good: EvaluationResult) -> None:
    report = judged(usecase, good, gates=swap(usecase.config.evaluation, "ranks_well", limit=0.99, blocking=False))
    assert report.outcome == "passed"
    assert "Warnings: ranks_well" in report.reason


def test_the_record_names_each_gate_its_threshold_value_and_reason(usecase: LoadedUseCase, good: EvaluationResult) -> None:
    record = judge(usecase, good, "alert-1", good.event_time)
    assert (record.kind, record.outcome, record.event_time) == ("gates", "passed", good.event_time)
    assert set(record.thresholds) == set(record.inputs) == {gate.name for gate in usecase.config.evaluation.gates}
    assert record.lineage.cause == "alert-1"
    assert all(gate["why"] for gate in record.details["gates"])
    assert record == judge(usecase, good, "alert-1", good.event_time)
    assert record.id != judge(usecase, good, "alert-2", good.event_time).id


def test_every_check_of_the_phase_leaves_evidence(usecase: LoadedUseCase, good: EvaluationResult) -> None:
    records = check_records(judged(usecase, good), good, "", good.event_time)
    assert [record.details["check"] for record in records] == list(CHECKS)
    assert {record.outcome for record in records} == {"passed"}


def test_a_failed_gate_fails_its_check_only(usecase: LoadedUseCase, good: EvaluationResult) -> None:
    report = judged(usecase, good, gates=swap(usecase.config.evaluation, "calibrated", limit=0.001))
    failed = [record.details["check"] for record in check_records(report, good, "", good.event_time) if record.outcome == "failed"]
    assert failed == ["calibration"]


def test_a_check_without_a_gate_is_not_called_passed(usecase: LoadedUseCase, good: EvaluationResult) -> None:
    gates = [gate for gate in usecase.config.evaluation.gates if gate.kind not in ("leakage", "label_shuffle")]
    outcomes = {record.details["check"]: record.outcome for record in check_records(judged(usecase, good, gates=gates), good, "", good.event_time)}
    assert outcomes["leakage"] == "not_judged"


def test_a_result_survives_json(good: EvaluationResult) -> None:
    assert EvaluationResult.model_validate_json(good.model_dump_json()) == good


def test_cancelled_flights_are_counted_and_kept_out_of_the_metrics(world: Any, good: EvaluationResult) -> None:
    test = world.dataset[world.dataset["split"] == "test"]
    assert good.outcomes == {"cancelled": int(test["label"].isna().sum())}
    assert good.rows == int(test["label"].notna().sum())


def test_a_part_worse_than_the_champion_blocks_promotion_though_the_whole_is_not(
    usecase: LoadedUseCase, world: Any, in_world: Any, train: Any, good_model: Path, evaluate: Evaluate
) -> None:
    """The challenger learned JFK's labels shuffled; on the two other airports it is the champion again."""
    label = world.dataset["label"].copy()
    there = (world.dataset["origin"] == "JFK") & label.notna()
    label[there] = pd.array(np.random.default_rng(5).permutation(label[there].to_numpy(dtype=bool)), dtype="boolean")
    result = evaluate(train("worse-at-jfk", label=label, rounds=120), champion=good_model)
    gates = swap(usecase.config.evaluation, "not_worse_than_champion", limit=0.1)
    report = judged(usecase, result, gates=gates)
    assert verdict(report, "not_worse_than_champion").outcome == "passed"
    assert verdict(report, "no_slice_worse_than_champion").subject == "origin JFK"
    assert "no_slice_worse_than_champion" in refusing(report)
    assert verdict(judged(usecase, evaluate(good_model, champion=good_model)), "no_slice_worse_than_champion").outcome == "passed"


def test_bounds_over_many_parts_are_wider_and_hold_at_once() -> None:
    """60 parts without any difference, 100 worlds: one interval a part would accuse some part in nearly every world."""
    days, parts, worlds, accused = 14, 60, 100, 0
    for seed in range(worlds):
        random = np.random.default_rng(seed)
        weights = np.vstack([np.ones(days), random.multinomial(days, np.full(days, 1 / days), size=200)]).astype(float)
        daily = random.normal(0, 1, size=(parts, days))
        samples = [weights @ each / days for each in daily]
        bounds = simultaneous_bounds(samples, DayBootstrap(np.arange(days), weights, 0.025), 0.95)
        accused += any(each is not None and each.low > 0 for each in bounds)
    assert accused / worlds <= 0.05 + 3 * (0.05 * 0.95 / worlds) ** 0.5


def protected_by_region(usecase: LoadedUseCase) -> LoadedUseCase:
    table = usecase.config.data.tables["flights"]
    guarded = table.model_copy(update={"columns": {**table.columns, "region": table.columns["dest"].model_copy(update={"protected": True})}})
    data = usecase.config.data.model_copy(update={"tables": {**usecase.config.data.tables, "flights": guarded}})
    return LoadedUseCase(usecase.folder, usecase.config.model_copy(update={"data": data}), usecase.features)


@pytest.mark.ml_test("model-7")
def test_unequal_treatment_of_a_protected_attribute_blocks_promotion(usecase: LoadedUseCase, world: Any, good_model: Path, evaluate: Evaluate) -> None:
    """The south has all the rain, so its punctual flights are called late more often."""
    gate = Gate(name="treats_regions_alike", kind="fairness", rate="false_positive_rate", limit=0.1)
    gates, fair = [*usecase.config.evaluation.gates, gate], protected_by_region(usecase)
    south = world.dataset["precip"] > 0
    unequal = evaluate(good_model, dataset=world.dataset.assign(region=pd.Series(np.where(south, "south", "north"))), usecase=fair)
    assert refusing(judged(usecase, unequal, gates=gates)) == {"treats_regions_alike"}
    assert verdict(judged(usecase, unequal, gates=gates), "treats_regions_alike").subject == "region: south against north"
    alike = evaluate(good_model, dataset=world.dataset.assign(region=pd.Series(np.where(np.arange(len(world.dataset)) % 2, "north", "south"))), usecase=fair)
    assert verdict(judged(usecase, alike, gates=gates), "treats_regions_alike").outcome == "passed"
    assert "treats_regions_alike" in refusing(judged(usecase, evaluate(good_model), gates=gates)), "without a protected attribute there is nothing to pass by"


@pytest.mark.ml_test("data-7")
def test_a_trainer_that_finds_the_true_labels_elsewhere_is_caught(usecase: LoadedUseCase, world: Any, good: EvaluationResult) -> None:
    """The labels that it is given are shuffled; it reads the true ones from the dataset, as a join on the label's table would."""
    rows = world.dataset[world.dataset["label"].notna()]
    train, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    bootstrap = DayBootstrap.draw(test["event_time"], 200, 0.95, 1)
    label, truth = (each["label"].to_numpy(dtype=bool) for each in (train, test))
    honest = booster_learner(usecase, train, test)
    found = measure_label_shuffle(lambda _: honest(label.astype(float)), label.astype(float), truth, bootstrap, 1)
    report = judged(usecase, good.model_copy(update={"shuffled_labels": found}))
    assert refusing(report) == {"shuffled_labels_teach_nothing"}
    assert good.shuffled_labels is not None and abs(good.shuffled_labels.auc.value - 0.5) < 0.03


def test_a_feed_that_fell_silent_before_the_test_period_is_seen(usecase: LoadedUseCase, world: Any, good_model: Path, evaluate: Evaluate) -> None:
    view = next(each for each in usecase.features.views if each.name == "airport_weather")
    silent = world.dataset.copy()
    silent.loc[silent["split"] == "test", list(view.feature_names)] = np.nan
    report = judged(usecase, evaluate(good_model, dataset=silent))
    assert verdict(report, "feeds_deliver").outcome == "failed" and verdict(report, "feeds_deliver").subject == "airport_weather"


@pytest.mark.ml_test("infrastructure-1")
def test_a_model_that_its_record_does_not_give_again_is_refused(usecase: LoadedUseCase, world: Any, good: EvaluationResult, tmp_path: Path) -> None:
    code = CodeVersion(commit="", dirty=False, tree_hash="", lock_hash="")
    parameters = {"max_depth": 3, "eta": 0.3}
    train_for_real(usecase, prepare(usecase, world.dataset), world.manifest, parameters, code, tmp_path)
    test = world.dataset[(world.dataset["split"] == "test") & world.dataset["label"].notna()]
    probability = ScoringModel.load(tmp_path).predict_probability(test)
    same = measure_reproduction(usecase, world.dataset, world.manifest, tmp_path, test, probability)
    assert (same.same_bytes, same.largest_difference) == (True, 0.0)
    record = tmp_path / "training.json"
    record.write_text(record.read_text().replace('"eta": 0.3', '"eta": 0.2'))
    other = measure_reproduction(usecase, world.dataset, world.manifest, tmp_path, test, probability)
    assert not other.same_bytes and other.largest_difference > 0
    assert refusing(judged(usecase, good.model_copy(update={"reproduction": same}))) == set()
    assert refusing(judged(usecase, good.model_copy(update={"reproduction": other}))) == {"trains_the_same_again"}
    assert refusing(judged(usecase, good.model_copy(update={"reproduction": None}))) == {"trains_the_same_again"}


@pytest.mark.ml_test("model-7")
def test_protected_attributes_are_evaluated_and_reported(usecase: LoadedUseCase, world: Any, good_model: Path, evaluate: Evaluate) -> None:
    fair = protected_by_region(usecase)
    dataset = world.dataset.assign(region=pd.Series(np.where(np.arange(len(world.dataset)) % 2, "north", "south")))
    parts = [part for part in evaluate(good_model, dataset=dataset, usecase=fair).slices if part.protected]
    assert [part.part for part in parts] == ["north", "south"]
    assert all(part.judged and part.decisions is not None and part.decisions.true_positive_rate is not None for part in parts)
