"""The trigger's durable state in objects of the Kubernetes API, shared by replicas in any number of pods.

A `RetrainCause` is one cause's life: the event as received, the decision on it, the claim that its run holds. Every change is made on the
object as it was read and refused by the API when somebody else changed it in between (resourceVersion); then it is read again. The
custom resource's own rules (charts/retrain-trigger/crds) refuse to change what is fixed: an event, a decision, a run's id.

Decisions depend on each other (cooldown, budget), so they are made one after the other: each is first written into the use case's one
`RetrainLedger`, whose change is refused if any other decision was written since it was read, and then copied to its cause. Whoever comes
next copies what a dead replica left. No lock is held, so nobody's death or pause holds up the others.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from kubernetes import client

from components.contracts.durations import format_moment, parse_moment
from components.contracts.errors import CrisplineError
from components.contracts.events import Alert, Performance
from components.monitoring.retrain_trigger.claims import LEASE_SECONDS, Claim, ClaimState, Intent, StoreUnavailable, run_name, started_by_hand
from components.monitoring.retrain_trigger.kubernetes_objects import Manifest, Objects, connect, own_namespace
from components.monitoring.retrain_trigger.policy import Decision, Retraining

_log = logging.getLogger("crispline.retrain_trigger")

SCHEME = "kubernetes:///"
# etcd takes objects of 1.5 MiB. The body is held as text, in which quotes count twice, and a reason may quote the effects of two alerts.
MOST_EVENT_BYTES = 128 << 10
_LONGEST_REASON = 1024  # as the column shows it; the body has all of it
# How many handled alerts, and how many handled estimates, are kept: the newest by business time. Measured performance and retrainings are
# always kept, because decisions count all of them.
KEPT_EVENTS = 1000
_FORGET_EVERY = 100  # decisions
_LABEL = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")
_DNS = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_KINDS: dict[str, type[Alert] | type[Performance]] = {"Alert": Alert, "Performance": Performance}


def open_kubernetes_store(uri: str, usecase: str) -> KubernetesStore:
    """The store of `kubernetes:///<namespace>/<prefix>`; no namespace (`kubernetes:////<prefix>`) is this pod's own. Raises CrisplineError."""
    namespace, separator, prefix = uri.removeprefix(SCHEME).partition("/")
    if not separator or not _DNS.fullmatch(prefix) or (namespace and not _DNS.fullmatch(namespace)):
        raise CrisplineError(f"claims_uri is {uri!r}; write kubernetes:///<namespace>/<prefix>, both of lower-case letters, digits and '-'")
    if not _LABEL.fullmatch(usecase):
        raise CrisplineError(
            f"claims in {uri} belong to a use case, and {usecase!r} is no name of one that a label can hold (63 characters, letter or digit last)"
        )
    return KubernetesStore(connect(), namespace or own_namespace(), prefix, usecase)


class KubernetesStore:
    """A `TriggerStore` of one use case. Safe for several threads, processes and pods."""

    def __init__(
        self, api: client.ApiClient, namespace: str, prefix: str, usecase: str, kept_events: int = KEPT_EVENTS, forget_every: int = _FORGET_EVERY
    ) -> None:
        self.usecase = usecase
        self._causes = Objects(api, namespace, "RetrainCause", "retraincauses")
        self._ledgers = Objects(api, namespace, "RetrainLedger", "retrainledgers")
        self._stem = f"{prefix}-{usecase.replace('_', '-').replace('.', '-')}"
        self._own = {"crispline.io/claims": prefix, "crispline.io/usecase": usecase, "app.kubernetes.io/part-of": "crispline"}
        self._selector = f"crispline.io/claims={prefix},crispline.io/usecase={usecase}"
        self._kept_events, self._forget_every = kept_events, forget_every

    # --- claims

    def claim(self, intent: Intent, owner: str, lease_seconds: float = LEASE_SECONDS) -> tuple[Claim, bool]:
        taken = False

        def take(spec: Manifest) -> bool:
            nonlocal taken
            claim = spec.setdefault("claim", _new_claim(intent.run_name, intent.parameters, intent.event_time))
            now = time.time()
            taken = claim["state"] == "claimed" and (claim["owner"] == owner or _seconds(claim["leaseUntil"]) < now)
            if taken:
                claim |= {"owner": owner, "leaseUntil": _moment(now + lease_seconds)}
            return taken

        return _claim(self._change(intent.cause, take)), taken

    def bind(self, cause: str, run_id: str, usecase: str) -> Claim:
        if usecase and usecase != self.usecase:
            raise CrisplineError(f"cause {cause} is bound for use case {usecase!r} in the store of {self.usecase!r}")

        def name_run(spec: Manifest) -> bool:
            claim = spec.setdefault("claim", _new_claim(run_name(cause), {}, started_by_hand()))
            if claim["runId"]:
                return False
            claim |= {"runId": run_id, "state": "submitted"}
            return True

        return _claim(self._change(cause, name_run))

    def finish(self, cause: str, outcome: str) -> Claim:
        def end(spec: Manifest) -> bool:
            if "claim" not in spec:
                raise CrisplineError(f"cause {cause} has no claim in namespace {self._causes.namespace}")
            if spec["claim"]["state"] == "finished":
                return False
            spec["claim"] |= {"state": "finished", "outcome": outcome}
            return True

        return _claim(self._change(cause, end))

    def get(self, cause: str) -> Claim | None:
        found = self._causes.get(self._name(cause))
        return _claim(found["spec"]) if found is not None and "claim" in found["spec"] else None

    def unfinished(self) -> list[Claim]:
        found = self._causes.select(f"{self._selector},crispline.io/claim in (claimed,submitted)")
        return sorted((_claim(one["spec"]) for one in found), key=lambda claim: (claim.event_time, claim.cause))

    # --- events

    def receive(self, event: Alert | Performance, event_time: datetime) -> bool:
        passing, body = _passing(event), event.model_dump_json()
        if len(body.encode()) > MOST_EVENT_BYTES:
            raise CrisplineError(f"event {event.id} has {len(body.encode())} bytes; an object of the Kubernetes API holds events of at most {MOST_EVENT_BYTES}")
        ledger = self._ledgers.get(self._stem)
        forgotten = ledger["spec"].get("forgotten", {}).get(passing) if ledger is not None else None
        if forgotten is not None and event_time <= parse_moment(forgotten):
            _log.warning("event %s of %s is as old as events that were handled and deleted; it counts as one of them", event.id, format_moment(event_time))
            return False
        received = {"kind": type(event).__name__, "eventTime": format_moment(event_time), "received": _moment(time.time()), "handled": False, "body": body}
        added = False

        def keep(spec: Manifest) -> bool:
            nonlocal added
            added = "event" not in spec
            spec.setdefault("event", received)
            return added

        self._change(event.id, keep)
        return added

    def unhandled(self) -> list[Alert | Performance]:
        return self._events("crispline.io/handled=false")

    def events(self) -> list[Alert | Performance]:
        return self._events("crispline.io/event")

    def handled(self, id: str) -> None:
        def mark(spec: Manifest) -> bool:
            if "event" not in spec or spec["event"]["handled"]:
                return False
            spec["event"]["handled"] = True
            return True

        self._change(id, mark, create=False)

    # --- decisions

    def decide_once(self, cause: str, decide: Callable[[list[Retraining]], Decision]) -> Decision:
        while True:
            ledger = self._ledgers.get(self._stem) or self._ledgers.create(self._stem, self._own, {"usecase": self.usecase, "sequence": 0})
            if ledger is None:
                continue  # made by another replica in between
            last = ledger["spec"].get("last")
            if last is not None:
                self._copy(last["cause"], last["decision"])
            stored = self.decision(cause)
            if stored is not None:
                return stored
            decision = decide(self._retrainings())
            sequence = ledger["spec"]["sequence"] + 1
            written = _written(decision)
            if self._ledgers.replace(ledger, self._own, ledger["spec"] | {"sequence": sequence, "last": {"cause": cause, "decision": written}}) is None:
                continue  # another decision came first, and this one has to know it
            self._copy(cause, written)
            if sequence % self._forget_every == 0:
                self._forget()
            return decision

    def decision(self, cause: str) -> Decision | None:
        found = self._causes.get(self._name(cause))
        return _decision(found["spec"]) if found is not None and "decision" in found["spec"] else None

    def count(self) -> Mapping[str, int]:
        counts = {"events": 0, "unhandled": 0, "unfinished_claims": 0}
        for labels in self._causes.labels(self._selector):
            counts["events"] += "crispline.io/event" in labels
            counts["unhandled"] += labels.get("crispline.io/handled") == "false"
            counts["unfinished_claims"] += labels.get("crispline.io/claim") in ("claimed", "submitted")
            if outcome := labels.get("crispline.io/decision"):
                counts[f"decision_{outcome}"] = counts.get(f"decision_{outcome}", 0) + 1
        return counts

    # ---

    def _change(self, cause: str, change: Callable[[Manifest], bool], create: bool = True) -> Manifest:
        """Apply `change` to the cause's spec and store it, on what others stored before. `change` says whether there is anything to store, and
        may be called again. The cause is made if it is not there."""
        name = self._name(cause)
        while True:
            read = self._causes.get(name)
            spec: Manifest = copy.deepcopy(read["spec"]) if read is not None else {"usecase": self.usecase, "cause": cause}
            if not change(spec) or (read is None and not create):
                return spec
            stored = self._causes.create(name, self._labels(spec), spec) if read is None else self._causes.replace(read, self._labels(spec), spec)
            if stored is not None:
                return spec

    def _copy(self, cause: str, decision: Manifest) -> None:
        def put(spec: Manifest) -> bool:
            if "decision" in spec:
                return False
            spec["decision"] = decision
            return True

        self._change(cause, put)

    def _forget(self) -> None:
        """Delete handled events beyond those kept. First the ledger says so: an event that comes again after its deletion is not decided again."""
        handled = self._causes.select(f"{self._selector},crispline.io/handled=true,!crispline.io/claim,crispline.io/decision notin (retrain)")
        surplus: list[Manifest] = []
        forgotten: dict[str, str] = {}
        for passing in ("alert", "estimate"):
            ordered = sorted((one for one in handled if _passing(_event(one)) == passing), key=_order, reverse=True)
            if old := ordered[self._kept_events :]:
                surplus += old
                forgotten[passing] = old[0]["spec"]["event"]["eventTime"]
        while forgotten:
            ledger = self._ledgers.get(self._stem)
            if ledger is None:
                raise StoreUnavailable(f"the ledger {self._stem} was deleted; the events that it told of are kept")
            known = ledger["spec"].get("forgotten", {})
            merged = known | {what: until for what, until in forgotten.items() if what not in known or parse_moment(known[what]) < parse_moment(until)}
            if self._ledgers.replace(ledger, self._own, ledger["spec"] | {"forgotten": merged}) is not None:
                break
        for one in surplus:
            self._causes.delete(one)

    def _retrainings(self) -> list[Retraining]:
        specs = [one["spec"] for one in self._causes.select(f"{self._selector},crispline.io/decision=retrain")]
        retrainings = [Retraining(spec["cause"], parse_moment(spec["decision"]["eventTime"]), _retraining_state(spec)) for spec in specs]
        return sorted(retrainings, key=lambda one: one.event_time)

    def _events(self, selector: str) -> list[Alert | Performance]:
        found = sorted(self._causes.select(f"{self._selector},{selector}"), key=_order)
        return [_event(one) for one in found]

    def _name(self, cause: str) -> str:
        return f"{self._stem}-{hashlib.sha256(cause.encode()).hexdigest()[:32]}"

    def _labels(self, spec: Manifest) -> dict[str, str]:
        """What lists select by. They repeat the spec and are written with it."""
        labels = dict(self._own)
        if "event" in spec:
            labels |= {"crispline.io/event": spec["event"]["kind"], "crispline.io/handled": str(spec["event"]["handled"]).lower()}
        if "decision" in spec:
            labels["crispline.io/decision"] = spec["decision"]["outcome"]
        if "claim" in spec:
            labels["crispline.io/claim"] = spec["claim"]["state"]
        return labels


def _event(cause: Manifest) -> Alert | Performance:
    event = cause["spec"]["event"]
    return _KINDS[event["kind"]].model_validate_json(event["body"])


def _passing(event: Alert | Performance) -> str:
    """What an event is that later decisions can do without, once it is old: alert or estimate. Empty for measured performance."""
    if isinstance(event, Alert):
        return "alert"
    return "estimate" if event.kind == "estimated" else ""


def _order(cause: Manifest) -> tuple[datetime, datetime]:
    """Business time, then arrival."""
    event = cause["spec"]["event"]
    return parse_moment(event["eventTime"]), parse_moment(event["received"])


def _new_claim(name: str, parameters: Mapping[str, str], event_time: datetime) -> Manifest:
    return {
        "state": "claimed",
        "runName": name,
        "parameters": dict(parameters),
        "eventTime": format_moment(event_time),
        "runId": "",
        "outcome": "",
        "owner": "",
        "leaseUntil": _moment(0.0),
    }


def _claim(spec: Manifest) -> Claim:
    claim = spec["claim"]
    state: ClaimState = claim["state"]
    return Claim(
        cause=spec["cause"],
        usecase=spec["usecase"],
        run_name=claim["runName"],
        parameters=claim["parameters"],
        event_time=parse_moment(claim["eventTime"]),
        state=state,
        run_id=claim["runId"],
        outcome=claim["outcome"],
        owner=claim["owner"],
        lease_until=_seconds(claim["leaseUntil"]),
    )


def _retraining_state(spec: Manifest) -> Any:
    if not spec["decision"]["run"]:
        return "dry_run"
    if spec.get("claim", {}).get("state") != "finished":
        return "open"
    return "failed" if spec["claim"]["outcome"] == "failed" else "succeeded"


def _written(decision: Decision) -> Manifest:
    body = json.dumps(asdict(decision) | {"event_time": format_moment(decision.event_time)}, ensure_ascii=False)
    reason = decision.reason[:_LONGEST_REASON]
    return {"eventTime": format_moment(decision.event_time), "outcome": decision.outcome, "run": decision.run, "reason": reason, "body": body}


def _decision(spec: Manifest) -> Decision:
    values = json.loads(spec["decision"]["body"])
    return Decision(**(values | {"event_time": parse_moment(values["event_time"])}))


def _moment(seconds: float) -> str:
    """Wall clock, for leases and the order of arrival."""
    return format_moment(datetime.fromtimestamp(seconds, UTC))


def _seconds(moment: str) -> float:
    return parse_moment(moment).timestamp()
