"""A canary in a small world: a Git repository, records, a prediction log and call counts that a test moves on at will."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from components.contracts.artifacts import Release
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Record, RecordStore
from components.contracts.serving import LoggedPrediction
from components.deployment.canary.calls import PodCalls
from components.deployment.canary.controller import Controller
from components.deployment.canary.judgement import Calls, Rule
from components.deployment.canary.lifecycle import beginning
from components.deployment.canary.options import ArgoCD, ControllerOptions, Watched
from components.deployment.canary.plan import Canary, canary_path, parse
from components.deployment.canary.trail import Place
from components.deployment.gitops import GitRepository
from components.deployment.releases import release_content, release_path
from components.monitoring.feedback import FeedbackLabel, store_labels
from components.monitoring.prediction_log import PredictionLog

CHAMPION, CHALLENGER, OTHER = "c" * 64, "a" * 64, "b" * 64
PLACE = Place("flights", "dev")
PATH = canary_path("flights", "dev")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Counters:
    """A source of call counts; `away`: it does not answer."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}
        self.away: Exception | None = None

    def add(self, predictor: str, total: int, errors: int = 0, slow: int = 0) -> None:
        before = self.counts.get(predictor, [0, 0, 0])
        self.counts[predictor] = [before[0] + total, before[1] + errors, before[2] + slow]

    def mark(self) -> JsonValue:
        if self.away:
            raise self.away
        return {name: list(counts) for name, counts in self.counts.items()}

    def since(self, mark: JsonValue) -> dict[str, Calls]:
        if self.away:
            raise self.away
        before = mark if isinstance(mark, dict) else {}
        return {name: Calls(*(now - was for now, was in zip(counts, before.get(name, [0, 0, 0]), strict=True))) for name, counts in self.counts.items()}  # type: ignore[call-overload, operator, misc]


@dataclass
class World:
    state: Path
    rule: Rule = field(default_factory=Rule)
    argocd: ArgoCD | None = None
    now: datetime = START
    sent: int = 0
    refreshed: list[ArgoCD] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.platform = Platform.embedded(self.state)
        self.repository = GitRepository(self.platform.gitops_repository)
        self.records = RecordStore(self.platform.records_uri)
        self.counters = Counters()
        self.random = np.random.default_rng(7)
        self.release(CHAMPION)
        self.restart()

    def restart(self) -> None:
        """A new process: nothing in memory survives."""
        watched = Watched(usecase="flights", calls=PodCalls(kind="pods", addresses={}), argocd=self.argocd, rule=self.rule)
        options = ControllerOptions(environment="dev", usecases=[watched])
        self.controller = Controller(options, self.platform, {"flights": self.counters}, lambda: self.now, self.refreshed.append)

    # --- Git ---------------------------------------------------------------------------------------------------------------------------

    def release(self, release: str) -> None:
        change = Release(
            usecase="flights",
            environment="dev",
            release=release,
            model_version=f"model-{release[0]}",
            data_version="d",
            gates_record="g",
            cause="c",
            promoted=START,
        )
        self.commit({release_path("flights", "dev"): release_content(change)}, "a promotion")

    def begin(self, plan: Sequence[int] = (20, 50, 100), shadow: bool = False, release: str = CHALLENGER) -> None:
        with self.repository.locked():
            self.repository.commit_files(beginning(self.repository, PLACE, release, plan, shadow), "a reviewed canary", self.now)

    def commit(self, changes: dict[str, bytes], message: str) -> None:
        with self.repository.locked():
            self.repository.commit_files(changes, message, self.now)

    @property
    def canary(self) -> Canary | None:
        return parse(self.repository.read_file(PATH), PATH)

    @property
    def trail(self) -> list[str]:
        """Outcomes of all records of the canary, in order."""
        return [record.outcome for record in self.found()]

    def found(self, outcome: str = "") -> list[Record]:
        records = [record for kind in ("canary", "rollback") for record in self.records.list(kind)]  # type: ignore[arg-type]
        order = {name: number for number, name in enumerate(("awaited", "in_effect", "hold", "safe", "advanced", "complete", "rolled_back", "finished"))}
        return sorted((each for each in records if outcome in ("", each.outcome)), key=lambda each: (each.event_time, order[each.outcome]))

    # --- traffic -----------------------------------------------------------------------------------------------------------------------

    def pass_time(self, time: timedelta = MINUTE) -> None:
        self.now += time

    def traffic(
        self, calls: int, weight: int, errors: float = 0.0, slow: float = 0.0, shift: float = 0.0, shadow: bool = False, logged: bool = True
    ) -> list[str]:
        """So many requests, split by weight; `errors`, `slow`, `shift` are the challenger's. Returns the entities that it answered."""
        name = "shadow" if shadow else "canary"
        ours = calls if shadow else int(self.random.binomial(calls, weight / 100))
        failed = round(ours * errors)
        self.counters.add(name, ours, failed, round(ours * slow))
        self.counters.add("default", calls if shadow else calls - ours)
        entities = [f"e{self.sent + number}" for number in range(calls)]
        self.sent += calls
        answered = entities[: ours - failed]
        if logged:
            rows = [self._row(entity, name, CHALLENGER, shift) for entity in answered]
            rows += [self._row(entity, "default", CHAMPION, 0.0) for entity in (entities if shadow else entities[ours:])]
            PredictionLog(self.platform.prediction_log_uri).append(rows)
        return answered

    def _row(self, entity: str, predictor: str, release: str, shift: float) -> LoggedPrediction:
        probability = float(np.clip(self.random.beta(2, 5) + shift, 0, 1))
        return LoggedPrediction(
            id=f"{entity}-0", usecase="flights", predictor=predictor, entity=entity, prediction_moment=self.now, event_time=self.now + timedelta(hours=2),
            model_version=f"model-{release[0]}", release=release, feature_set="f", probability=probability, decision=probability > 0.3, features={},
            feature_times={}, warnings=[], instance=predictor, sequence=self.sent, received=self.now,
        )  # fmt: skip

    def label(self, truth: dict[str, bool]) -> None:
        """Labels by entity, known now."""
        labels = [FeedbackLabel(entity=entity, label=late, known_at=self.now) for entity, late in truth.items()]
        store_labels(self.platform.labels_uri, load_usecase("flights").config, labels)

    def round(self) -> str:
        self.controller.round()
        return self.controller.seen["flights"].said

    def stage(self, calls: int, weight: int, rounds: int = 15, **traffic: float) -> None:
        """Traffic at the committed weight, a round a minute, until canary.yaml changes; at most `rounds`. `calls`: of the challenger a round."""
        before = self.canary
        for _ in range(rounds):
            self.traffic(calls * 100 // weight, weight, **traffic)  # type: ignore[arg-type]
            self.round()
            self.pass_time()
            if self.canary != before:
                return
