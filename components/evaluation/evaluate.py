"""Judge one model on the test split: everything measured into one frozen `EvaluationResult`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from components.contracts.artifacts import DatasetManifest
from components.contracts.errors import CrisplineError
from components.contracts.evaluation import Comparison, Curves, EvaluationResult, ShuffledLabels, SlicePart
from components.contracts.loading import LoadedUseCase
from components.contracts.usecase import Metric, Slice, UseCase
from components.evaluation.bootstrap import BoolArray, DayBootstrap
from components.evaluation.comparison import Opponent, compare, compare_parts, load_champion, score
from components.evaluation.cost import costs_of, decisions
from components.evaluation.curves import precision_recall, reliability, roc
from components.evaluation.explain import explain
from components.evaluation.feed_freshness import measure_freshness
from components.evaluation.label_shuffle import booster_learner, measure_label_shuffle
from components.evaluation.latency import measure_latency, size_in_megabytes
from components.evaluation.leakage import measure_leakage
from components.evaluation.metrics import Costs, Scored, measure, require_both_classes
from components.evaluation.reproduction import measure_reproduction
from components.evaluation.robustness import measure_robustness
from components.evaluation.slices import measure_slices, slices_with_protected
from components.model_engineering.baseline import Baseline
from components.model_server.scoring import ScoringModel

LABEL, OUTCOME, SPLIT, EVENT_TIME, PREDICTION_MOMENT = "label", "outcome", "split", "event_time", "prediction_moment"
NEEDED = ("entity", LABEL, OUTCOME, SPLIT, EVENT_TIME, PREDICTION_MOMENT)


@dataclass(frozen=True)
class Candidate:
    """The model to judge, the folder it came from, and its opponents; `champion` is a release id with its model, or None."""

    model: ScoringModel
    folder: Path
    baseline: Baseline
    champion: tuple[str, ScoringModel] | None = None


def evaluate_model(usecase: LoadedUseCase, dataset: pd.DataFrame, manifest: DatasetManifest, candidate: Candidate) -> EvaluationResult:
    """Measure on the labelled rows of split `test`; single-feature rules are fitted on split `train`.

    `dataset`: see DatasetManifest. Nothing is fitted to the test rows. Raises CrisplineError when the test split has one class or less than
    two days, or lacks a column.
    """
    config = usecase.config
    test, outcomes = labelled_test_rows(dataset)
    label = test[LABEL].to_numpy(dtype=np.bool_)
    require_both_classes(label, "the test split")
    model, seed = candidate.model, config.model.seed
    bootstrap = DayBootstrap.draw(test[EVENT_TIME], config.evaluation.bootstrap_samples, config.evaluation.confidence, seed)
    scored = Scored(model.predict_probability(test), label, model.decision_threshold, costs_of(config.business))
    metrics = config.evaluation.metrics
    slices, protected = slices_with_protected(config, test)
    train = dataset[(dataset[SPLIT] == "train") & dataset[LABEL].notna()]
    parts = measure_slices(test, scored, bootstrap, slices, metrics, protected)
    return EvaluationResult(
        usecase=usecase.name,
        model_version=model.manifest.version,
        dataset=manifest.id,
        data_version=manifest.data_version.id,
        code_version=model.manifest.code.tree_hash,
        event_time=manifest.data_version.as_of,
        test_start=test[PREDICTION_MOMENT].min().to_pydatetime(),
        test_end=test[PREDICTION_MOMENT].max().to_pydatetime(),
        champion=candidate.champion[0] if candidate.champion else "",
        confidence=config.evaluation.confidence,
        bootstrap_samples=config.evaluation.bootstrap_samples,
        bootstrap_days=bootstrap.days,
        seed=seed,
        decision_threshold=model.decision_threshold,
        rows=len(test),
        positives=int(label.sum()),
        outcomes=outcomes,
        metrics=measure(metrics, scored, bootstrap),
        decisions=decisions(scored),
        curves=Curves(roc=roc(scored), precision_recall=precision_recall(scored), reliability=reliability(scored, bootstrap)),
        slices=parts,
        comparisons=tuple(_compared(config, test, scored, each, bootstrap, slices, parts) for each in _opponents(candidate, test, scored)),
        robustness=measure_robustness(model, test, scored, bootstrap, usecase.features, _robustness_metrics(config), seed),
        leakage=measure_leakage(train, test, LABEL, bootstrap, model.feature_names, model.manifest.categorical),
        shuffled_labels=_shuffled(usecase, train, test, label, bootstrap) if _has_gate(config, "label_shuffle") else None,
        freshness=measure_freshness(test, usecase.features, model.feature_names),
        reproduction=measure_reproduction(usecase, dataset, manifest, candidate.folder, test, scored.probability)
        if _has_gate(config, "reproducibility")
        else None,
        explanation=explain(model, test, slices, seed),
        latency=measure_latency(model, test),
        size_megabytes=size_in_megabytes(candidate.folder),
    )


def evaluate_files(usecase: LoadedUseCase, dataset: Path, manifest: Path, model: Path, baseline: Path, champion: str, bundles_uri: str) -> EvaluationResult:
    """The same from a step's artifacts. `champion`: a release id in the bundle store, or "" when none is in service."""
    frame = pd.read_parquet(dataset)
    # A matrix product here takes microseconds; BLAS threads that wait for a busy core make it ten times slower.
    with threadpool_limits(1, "blas"), tempfile.TemporaryDirectory(prefix="champion-") as scratch:
        opponent = None
        if champion:
            opponent = (champion, load_champion(bundles_uri, champion, usecase.features, list(frame.columns), Path(scratch) / "release"))
        candidate = Candidate(ScoringModel.load(model), model, Baseline.load(baseline), opponent)
        return evaluate_model(usecase, frame, DatasetManifest.model_validate_json(manifest.read_text()), candidate)


def labelled_test_rows(dataset: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """The test rows with a label, in order of prediction moment, and how many have none, by outcome."""
    absent = [column for column in NEEDED if column not in dataset.columns]
    if absent:
        raise CrisplineError(f"the dataset lacks the column(s) {', '.join(absent)}; build it with data_engineering.build_features")
    test = dataset[dataset[SPLIT] == "test"]
    unlabelled = test[test[LABEL].isna()]
    outcomes = unlabelled[OUTCOME].fillna("unknown").astype(str).value_counts().sort_index()
    labelled = test[test[LABEL].notna()].sort_values([PREDICTION_MOMENT, "entity"], kind="stable").reset_index(drop=True)
    return labelled, {str(name): int(count) for name, count in outcomes.items()}


def cheapest_threshold(costs: Costs) -> float:
    """The probability from which deciding positive costs less than not (Elkan 2001, https://www.ijcai.org/Proceedings/01/IJCAI-2001-j.pdf)."""
    return costs.false_alarm / (costs.false_alarm + costs.miss)


def _has_gate(config: UseCase, kind: str) -> bool:
    """What costs another fit is measured where a gate asks for it."""
    return any(gate.kind == kind for gate in config.evaluation.gates)


def _compared(
    config: UseCase, test: pd.DataFrame, scored: Scored, opponent: Opponent, bootstrap: DayBootstrap, slices: Sequence[Slice], parts: Sequence[SlicePart]
) -> Comparison:
    evaluation = config.evaluation
    found = compare(scored, opponent, bootstrap, evaluation.metrics)
    asked = [metric for metric in evaluation.metrics if any(gate.kind == "slice_champion" and gate.metric == metric for gate in evaluation.gates)]
    if opponent.kind != "champion" or not asked:
        return found
    losses = compare_parts(test, scored, opponent.scored, bootstrap, slices, parts, asked, evaluation.confidence)
    return found.model_copy(update={"parts": losses})


def _shuffled(usecase: LoadedUseCase, train: pd.DataFrame, test: pd.DataFrame, label: BoolArray, bootstrap: DayBootstrap) -> ShuffledLabels | None:
    learn = booster_learner(usecase, train, test)
    return measure_label_shuffle(learn, train[LABEL].to_numpy(dtype=np.float64), label, bootstrap, usecase.config.model.seed)


def _robustness_metrics(config: UseCase) -> list[Metric]:
    """What a gate asks for, what users were promised, and the cost, as far as they are evaluated: dozens of disturbances are measured."""
    asked = {gate.metric for gate in config.evaluation.gates if gate.kind == "robustness"} | {config.retraining.metric, "expected_cost"}
    return [metric for metric in config.evaluation.metrics if metric in asked]


def _opponents(candidate: Candidate, test: pd.DataFrame, like: Scored) -> Sequence[Opponent]:
    threshold = cheapest_threshold(like.costs)
    found = [
        Opponent("simple", "logistic regression", Scored(candidate.baseline.predict_probability(test), like.label, threshold, like.costs)),
        Opponent("constant", "training label share", Scored(candidate.baseline.predict_constant(test), like.label, threshold, like.costs)),
    ]
    if candidate.champion is not None:
        release, model = candidate.champion
        found.append(Opponent("champion", release, score(model, test, like)))
    return found
