"""The controller: at every round it reads Git, the records and the live evidence, and commits the next step, a rollback, or nothing.

It holds no state that a restart would lose: what is in force stands in Git, what was seen and judged in the records. Only the sum that
recognises a new weight in the traffic is in memory; after a restart it is seen a few calls later. It changes one file in Git and nothing in
the cluster, so there is nothing to fight a reconciler about; Argo CD is only asked to look at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from pydantic import JsonValue

from components.contracts.durations import format_duration, format_moment, parse_moment
from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Record, RecordStore
from components.deployment.canary import argocd, trail
from components.deployment.canary.calls import CallSource, calls_of
from components.deployment.canary.effect import LIMIT, cumulated
from components.deployment.canary.evidence import CHAMPION, Period, of_predictor, one_a_request, served, strata
from components.deployment.canary.intervals import share_limits
from components.deployment.canary.judgement import Calls, Evidence, Verdict, first_look, judge, look_of
from components.deployment.canary.options import ArgoCD, ControllerOptions, Watched
from components.deployment.canary.policy import ROLLBACK, approved, check_change
from components.deployment.canary.trail import Change, Place, Stage, State, make_good, note, read_state
from components.deployment.gitops import Author, GitRepository, NotFastForward
from components.deployment.releases import KIND_TRAILER

_log = logging.getLogger("crispline.canary")
_ATTEMPTS = 5
# Calls without a sign of the new weight that make it certain: at 5 % there would be none of the challenger in fewer than 1 of 28,000 cases.
_CERTAIN_CALLS = 200


@dataclass(frozen=True)
class Seen:
    """What the last round found, for /metrics and the log. `rollbacks`: of canaries, ever; `judged`: whether evidence and Git could be read."""

    said: str
    weight: int = 0
    stage: int = 0
    look: int = 0
    rollbacks: int = 0
    judged: bool = True


@dataclass
class _Arrival:
    """The sum towards a new weight, and the counts at the last reading."""

    stage: str
    sum: float = 0.0
    challenger: int = 0
    champion: int = 0


class Controller:
    """Drives the canaries of one environment. `sources`: call counts by use case. `refresh` is called after a commit."""

    def __init__(
        self,
        options: ControllerOptions,
        platform: Platform,
        sources: Mapping[str, CallSource],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        refresh: Callable[[ArgoCD], None] = argocd.refresh,
    ) -> None:
        self.options, self._platform, self._sources, self._now, self._refresh = options, platform, sources, now, refresh
        self._records = RecordStore(platform.records_uri)
        self._arrivals: dict[str, _Arrival] = {}
        self._usecase = lru_cache(load_usecase)  # it comes with the image and does not change under a process
        self.seen: dict[str, Seen] = {}
        self.finished_round: datetime | None = None

    def round(self) -> None:
        """Look at every use case once. One that cannot be judged (its evidence is away) waits and does not hold up the others."""
        for watched in self.options.usecases:
            before = self.seen.get(watched.usecase, Seen(""))
            try:
                said, judged = self.look_at(watched), True
            except CrisplineError as error:
                said, judged = f"not judged: {error}", False
            except Exception as error:  # a store's or a driver's own; one use case must not stop the others
                _log.exception("%s could not be judged", watched.usecase)
                said, judged = f"not judged: {type(error).__name__}: {error}", False
            if before.said != said:
                _log.log(logging.INFO if judged else logging.WARNING, "%s: %s", watched.usecase, said)
            self.seen[watched.usecase] = replace(self.seen.get(watched.usecase, before), said=said, judged=judged)
        self.finished_round = self._now()

    def look_at(self, watched: Watched) -> str:
        """One use case: judge, commit if that is the outcome, say what was done. A push that came too late is judged again.

        Raises CrisplineError when Git, the records or the evidence cannot be reached, or a file is none of ours.
        """
        place = Place(watched.usecase, self.options.environment)
        for _ in range(_ATTEMPTS):
            repository = GitRepository(
                self._platform.gitops_repository, self._platform.gitops_branch, Author(self.options.author_name, self.options.author_address)
            )
            try:
                with repository.locked():
                    state = read_state(repository, place)
                    make_good(self._records, state)
                    said, change = self._decide(watched, state)
                    if change is None:
                        return said
                    self._commit(repository, state, change)
            except NotFastForward as moved:
                _log.info("%s: %s", place, moved)
                continue
            if watched.argocd is not None:
                self._ask(watched.argocd)
            return said
        raise CrisplineError(f"the branch moved {_ATTEMPTS} times while the canary of {place} was being judged; it is judged again at the next round")

    def _commit(self, repository: GitRepository, state: State, change: Change) -> None:
        path = state.place.path
        plan = approved(state.history, path)
        check_change({path: repository.read_file(path)}, {path: change.content}, plan.plan if plan else ())
        repository.commit_file(path, change.content, change.message, self._now())
        make_good(self._records, read_state(repository, state.place))

    def _ask(self, application: ArgoCD) -> None:
        try:
            self._refresh(application)
        except CrisplineError as error:
            _log.warning("%s", error)

    # --- one decision ------------------------------------------------------------------------------------------------------------------

    def _decide(self, watched: Watched, state: State) -> tuple[str, Change | None]:
        """What to say, and what to commit."""
        if state.canary is None:
            self._arrivals.pop(watched.usecase, None)
            self._show(watched, state)
            return "no canary", None
        if state.champion is None:
            raise CrisplineError(f"{state.place.path} asks for a canary, but nothing is released there\n    remedy: promote the release itself")
        stage = state.stage
        self._show(watched, state)
        if state.canary.release == state.champion.release:
            return "its release is the champion: the canary ends", trail.finish(stage, self._now())
        awaited = self._records.find("canary", stage.record_id("awaited")) or self._awaited(watched, stage)
        in_effect = self._records.find("canary", stage.record_id("in_effect")) or self._arrived(watched, state, awaited)
        if in_effect is None:
            return self._overdue(watched, stage, awaited)
        return self._judged(watched, state, in_effect)

    def _awaited(self, watched: Watched, stage: Stage) -> Record:
        reason = f"The canary is committed at {stage.canary.stage}; the traffic has to show it."
        return self._records.append(note(stage, "awaited", "awaited", reason, self._now(), {"mark": self._sources[watched.usecase].mark()}, {}))

    def _arrived(self, watched: Watched, state: State, awaited: Record) -> Record | None:
        """The record that the weight is in effect, once the calls since the last reading show it."""
        stage, source = state.stage, self._sources[watched.usecase]
        arrival = self._arrivals.get(watched.usecase)
        if arrival is None or arrival.stage != stage.key:
            arrival = self._arrivals[watched.usecase] = _Arrival(stage.key)
        counted = source.since(awaited.details["mark"])
        challenger, champion = calls_of(counted, stage.canary.predictor).total, calls_of(counted, CHAMPION).total
        more = max(0, challenger - arrival.challenger), max(0, champion - arrival.champion)
        arrival.challenger, arrival.champion = challenger, champion
        if stage.canary.shadow:
            arrived = challenger > 0
        else:
            old = state.stages[1].canary.weight if len(state.stages) > 1 else 0
            arrival.sum = cumulated(arrival.sum, *more, old, stage.canary.weight)
            arrived = arrival.sum >= LIMIT
        if not arrived:
            return None
        now = self._now()
        reason = f"{stage.canary.stage} is in effect: {challenger} calls of the challenger and {champion} of the champion since the commit was seen."
        details: dict[str, JsonValue] = {"mark": source.mark(), "start": format_moment(now), "seconds": (now - awaited.event_time).total_seconds()}
        return self._records.append(note(stage, "in_effect", "in_effect", reason, now, details, {}))

    def _overdue(self, watched: Watched, stage: Stage, awaited: Record) -> tuple[str, Change | None]:
        waited, arrival = self._now() - awaited.event_time, self._arrivals[watched.usecase]
        if waited < watched.rule.start_deadline or arrival.challenger + arrival.champion < _CERTAIN_CALLS:
            return f"{stage.canary.stage} is not in effect yet", None
        reason = (
            f"{stage.canary.stage} did not take effect within {format_duration(watched.rule.start_deadline)}: "
            f"the challenger had {arrival.challenger} calls, the champion {arrival.champion}."
        )
        return "rolled back: " + reason, trail.rollback(stage, {}, reason, self._now())

    def _judged(self, watched: Watched, state: State, in_effect: Record) -> tuple[str, Change | None]:
        stage, rule = state.stage, watched.rule
        challenger, champion = self._calls(watched, state, in_effect)
        needed = first_look(stage.canary.weight < 100, rule)
        look = look_of(challenger.total, rule) if challenger.total >= needed else 0
        self._show(watched, state, look)
        held = self._now() - in_effect.event_time
        complete = self._records.find("canary", stage.record_id("complete")) is not None
        out_of_patience = held >= rule.patience and not complete
        known = self._records.find("canary", stage.record_id("look", look)) if look else None
        if known is None and not look and not out_of_patience:
            return f"{stage.canary.stage}: {challenger.total} calls, the first look is at {needed}", None
        if known is None or (out_of_patience and known.outcome != "safe"):
            verdict, judged = self._look(watched, state, in_effect, challenger, champion, max(1, look))
            if verdict.harmful:
                return "rolled back: " + verdict.reason, trail.rollback(stage, judged, f"Harmful: {verdict.reason}.", self._now())
            if not verdict.safe and out_of_patience:
                reason = f"Not shown to be safe within {format_duration(rule.patience)}: {verdict.reason}."
                return "rolled back: " + reason, trail.rollback(stage, judged, reason, self._now())
            safe, reason = verdict.safe, verdict.reason
        else:
            judged, safe, reason = _mapping(known.details["judged"]), known.outcome == "safe", known.reason
        if safe and not stage.canary.is_last and held >= rule.minimum_hold:
            return f"raised from {stage.canary.stage}: {reason}", trail.step(stage, judged, f"Safe: {reason}.", self._now())
        if known is None and look:
            self._note_look(watched, stage, look, safe, reason, judged)
        if safe and stage.canary.is_last and held >= rule.minimum_hold:
            return self._complete(stage, judged, reason), None
        return f"{stage.canary.stage}, look {look}: {reason}", None

    def _calls(self, watched: Watched, state: State, in_effect: Record) -> tuple[Calls, Calls]:
        """Calls of challenger and champion at this stage; at weight 100 the champion's are those of the stage before."""
        counted = self._sources[watched.usecase].since(in_effect.details["mark"])
        canary = state.stage.canary
        if canary.weight < 100:
            return calls_of(counted, canary.predictor), calls_of(counted, CHAMPION)
        before = _mapping(trail.judged_before(state).get("champion"))
        return calls_of(counted, canary.predictor), Calls(*(int(str(before.get(name, 0))) for name in ("total", "errors", "slow")))

    def _look(self, watched: Watched, state: State, in_effect: Record, challenger: Calls, champion: Calls, look: int) -> tuple[Verdict, dict[str, JsonValue]]:
        """Judge what there is now; also the judgement as JSON, with the observed share of the traffic and the first prediction that counted."""
        stage, now = state.stage, self._now()
        usecase, periods = self._usecase(watched.usecase), self._periods(state, now)
        rows = served(self._platform, watched.usecase, min(period.start for period in periods))
        here = periods[0]
        ours = of_predictor(rows, here.predictor, stage.canary.release, here.start, here.end)
        theirs = of_predictor(rows, CHAMPION, stage.champion, here.start, here.end)
        evidence = Evidence(
            challenger,
            champion,
            one_a_request(ours),
            one_a_request(theirs),
            concurrent=stage.canary.weight < 100,
            strata=strata(usecase, self._platform, rows, periods, stage.canary.release, stage.champion, now),
            metric=usecase.config.retraining.metric,
        )
        verdict = judge(evidence, look, state.stages[-1].canary.stages, watched.rule)
        judged = verdict.as_json()
        judged["since"] = in_effect.details["start"]
        judged["first_prediction"] = format_moment(ours["received"].iloc[0].to_pydatetime()) if len(ours) else ""
        total = challenger.total + champion.total
        if evidence.concurrent and not stage.canary.shadow and total:
            low, high = share_limits(challenger.total, total, 0.025)
            judged["share"] = {"weight": stage.canary.weight / 100, "observed": challenger.total / total, "low": low, "high": high}
        return verdict, judged

    def _periods(self, state: State, now: datetime) -> list[Period]:
        """The stages of this canary that were in effect, newest first."""
        found, end = [], now + timedelta(days=1)  # a clock elsewhere may be ahead of ours
        for stage in state.stages:
            in_effect = self._records.find("canary", stage.record_id("in_effect"))
            awaited = self._records.find("canary", stage.record_id("awaited"))
            if in_effect is not None:
                found.append(Period(stage.canary.predictor, parse_moment(str(in_effect.details["start"])), end))
            if awaited is not None:
                end = awaited.event_time
        return found

    def _note_look(self, watched: Watched, stage: Stage, look: int, safe: bool, reason: str, judged: Mapping[str, JsonValue]) -> None:
        thresholds = watched.rule.model_dump(mode="json")
        self._records.append(note(stage, "look", "safe" if safe else "hold", reason, self._now(), {"look": look, "judged": dict(judged)}, thresholds, look))

    def _complete(self, stage: Stage, judged: Mapping[str, JsonValue], reason: str) -> str:
        said = f"{stage.canary.stage} is the last and safe; `crispline promote` makes it the champion"
        if self._records.find("canary", stage.record_id("complete")) is None:
            self._records.append(note(stage, "complete", "complete", f"The canary passed its whole plan: {reason}.", self._now(), {"judged": dict(judged)}, {}))
        return said

    def _show(self, watched: Watched, state: State, look: int = 0) -> None:
        before, canary = self.seen.get(watched.usecase, Seen("")), state.canary
        rollbacks = sum(version.trailers.get(KIND_TRAILER) == ROLLBACK for version in state.history)
        self.seen[watched.usecase] = Seen(before.said, canary.weight if canary else 0, canary.step if canary else 0, look, rollbacks, before.judged)


def _mapping(value: JsonValue) -> dict[str, JsonValue]:
    return dict(value) if isinstance(value, dict) else {}
