"""The flow from an event to a run: keep, decide, record, claim, look for the run by name, submit, follow. Every part can be repeated."""

from __future__ import annotations

import logging

from pydantic import JsonValue

from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError
from components.contracts.events import Alert, Performance
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.contracts.runs import FINISHED, RunSubmitter
from components.contracts.usecase import UseCase
from components.deployment.releases import current_release
from components.monitoring.retrain_trigger.claims import LEASE_SECONDS, PIPELINE, Claim, Intent, TriggerStore, run_name
from components.monitoring.retrain_trigger.policy import Decision, Evidence, business_time, decide, training_start

_log = logging.getLogger("crispline.retrain_trigger")


POLL_SECONDS = 1.0  # how soon a run's end or an expired lease is noticed
LONGEST_CAUSE = 128 - len(run_name(""))  # the run's name carries it, and Kubeflow Pipelines takes names of 128 characters


class Trigger:
    """One replica. `owner` names it in leases: a replica that restarts under its name goes on at once, another waits for the lease.

    `suspended`: events are kept and runs are followed; nothing is decided, and nothing is started.
    """

    def __init__(
        self,
        config: UseCase,
        platform: Platform,
        store: TriggerStore,
        runs: RunSubmitter,
        owner: str,
        lease_seconds: float = LEASE_SECONDS,
        suspended: bool = False,
    ) -> None:
        self.config, self.platform, self.store, self.runs = config, platform, store, runs
        self.owner, self.lease_seconds, self.suspended = owner, lease_seconds, suspended
        self.records = RecordStore(platform.records_uri)

    def receive(self, event: Alert | Performance) -> bool:
        """Keep an event durably; False for a duplicate. Raises CrisplineError for another use case's or one that cannot be kept, StoreUnavailable
        when none can be kept now."""
        if event.usecase != self.config.name:
            raise CrisplineError(f"usecase is {event.usecase!r}; this trigger decides for {self.config.name!r}")
        if not 0 < len(event.id) <= LONGEST_CAUSE:
            raise CrisplineError(f"id has {len(event.id)} characters; a run's name carries it and takes 1 to {LONGEST_CAUSE}")
        return self.store.receive(event, business_time(self.config, event))

    def work(self) -> int:
        """Follow runs, decide on all events that wait, start what is due, take up what a dead replica left. Returns the events handled."""
        self.follow()
        if self.suspended:
            return 0
        handled = 0
        for event in self.store.unhandled():
            try:
                self.handle(event)
                handled += 1
            except Exception:
                _log.exception("cause %s is not decided yet and will be tried again", event.id)
        return handled

    def handle(self, cause: Alert | Performance) -> Decision:
        """Decide on one cause (or find its decision) and start its run. Safe to repeat after a crash at any point."""
        release = current_release(self.platform, self.config.name, self.platform.environment)
        evidence = self._evidence(release.model_version if release is not None else "")
        decision = self.store.decide_once(cause.id, lambda history: decide(self.config, cause, evidence, history))
        self._record(cause, decision)
        if decision.outcome == "page":
            _log.error("a person is needed: %s", decision.reason)
        if decision.run:
            parameters = self._parameters(decision, evidence, release.release if release is not None else "")
            self._start(Intent(cause.id, self.config.name, parameters, decision.event_time))
        self.store.handled(cause.id)
        return decision

    def follow(self) -> None:
        """Submit claims that were left (own ones at once, others' when their lease ran out) and record the runs that ended."""
        for claim in self.store.unfinished():
            try:
                if claim.state == "submitted":
                    self._finish(claim)
                elif not self.suspended:
                    self._start(Intent(claim.cause, claim.usecase, claim.parameters, claim.event_time))
            except Exception:
                # The pipelines' API may be away; that holds up no decision, such as the one to page a person.
                _log.exception("cause %s: its run could not be started or followed and will be tried again", claim.cause)

    def _start(self, intent: Intent) -> None:
        claim, mine = self.store.claim(intent, self.owner, self.lease_seconds)
        if not mine:
            return
        run = self.runs.find(claim.run_name)
        if run is None:
            if not self.store.claim(intent, self.owner, self.lease_seconds)[1]:
                return  # looking took so long that another replica took over
            run = self.runs.submit(claim.run_name, PIPELINE, claim.parameters, claim.cause)
        bound = self.store.bind(claim.cause, run.id, claim.usecase)
        if bound.run_id != run.id:
            _log.warning("cause %s has run %s; run %s will end as its duplicate", claim.cause, bound.run_id, run.id)

    def _finish(self, claim: Claim) -> None:
        try:
            run = self.runs.get(claim.run_id)
        except CrisplineError as error:
            _log.warning("cause %s: %s", claim.cause, error)  # started elsewhere, e.g. by hand: not ours to follow
            return
        if run.state in FINISHED:
            self.store.finish(claim.cause, run.state)

    def _evidence(self, champion: str) -> Evidence:
        events = self.store.events()
        return Evidence(
            champion=champion,
            performance=tuple(event for event in events if isinstance(event, Performance)),
            alerts=tuple(event for event in events if isinstance(event, Alert)),
        )

    def _parameters(self, decision: Decision, evidence: Evidence, champion: str) -> dict[str, str]:
        """The run's parameters. `champion`: the release in force when it was decided; it and the data version are there for whoever looks at the run."""
        return {
            "usecase": self.config.name,
            "as_of": format_moment(decision.event_time),
            "training_start": format_moment(training_start(self.config, decision, evidence)),
            "environment": self.platform.environment,
            "cause": decision.cause,
            "data_version": self._data_version(decision),
            "champion": champion,
        }

    def _data_version(self, decision: Decision) -> str:
        """Id of the data version as of the decision, which the run then trains on; empty where the lake holds none yet, so that the run looks itself."""
        from components.data_engineering.lake import current_version

        try:
            return current_version(self.platform.lake_uri, load_usecase(self.config.name), decision.event_time).id
        except CrisplineError as error:
            _log.info("cause %s: %s", decision.cause, error)
            return ""

    def _record(self, cause: Alert | Performance, decision: Decision) -> None:
        """Also a "no" is a record. Its content is the stored decision's, so that writing it again after a crash changes nothing."""
        details: dict[str, JsonValue] = {"cause_kind": "alert" if isinstance(cause, Alert) else "performance", "run": decision.run}
        lineage = Lineage(model_version=cause.model_version, release=cause.release if isinstance(cause, Alert) else "", cause=cause.id)
        record = Record(
            kind="retrain_decision",
            id=record_id("retrain_decision", self.config.name, cause.id),
            usecase=self.config.name,
            event_time=decision.event_time,
            outcome=decision.outcome,
            reason=decision.reason,
            inputs=decision.inputs,
            thresholds=decision.thresholds,
            details=details,
            lineage=lineage,
        )
        self.records.append(record)
        spent = int(str(decision.inputs["runs_in_budget_period"])) + (decision.outcome == "retrain")
        budget = record.model_copy(
            update={
                "kind": "check",
                "id": record_id("check", "retraining_budget", cause.id),
                "outcome": "passed" if spent <= self.config.retraining.budget_runs else "failed",
                "details": {"check": "retraining_budget", "decision": record.id, "runs_in_budget_period": spent},
            }
        )
        self.records.append(budget)
