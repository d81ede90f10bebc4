"""Is retraining needed to keep performance above the promise? A pure function of what arrived, what is known and what was done.

When performance counts as below the threshold (all intervals at `evaluation.confidence`):
- measured, and the whole interval lies below: one window is enough;
- measured, and the value lies below in this window and in the one right before it: a model that just holds its promise falls below in one
  window every other time, in two running once in four; the second look costs one window of delay and halves the needless runs;
- estimated, and the whole interval (sampling and backtest error) lies below.
A value below without these is doubtful and waits for labels. Drift alone is evidence, never the verdict: it cannot say whether the model
still ranks well. Faulty data pages a person, and stops a retraining on the rows that it touches.

Even then a run needs new labels since the last training: `business.success.minimum_rows` of them, below which training is a no-go anyway, over
`model.test_period` of time, because the gates judge champion and challenger on that much time that the champion was not trained on. After
that come cooldown and budget. All times are business time; no constant here was chosen by looking at data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import JsonValue

from components.contracts.durations import format_duration, format_moment
from components.contracts.events import Alert, Performance
from components.contracts.usecase import UseCase

Outcome = Literal["retrain", "wait_for_labels", "page", "nothing"]
FAULTS = ("data_quality", "lost_events")


@dataclass(frozen=True)
class Evidence:
    """What is known at the cause's business time. `champion`: the model version in service, empty when unknown."""

    champion: str = ""
    performance: tuple[Performance, ...] = ()
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True)
class Retraining:
    """An earlier decision to retrain. `state`: open, succeeded, failed or dry_run (decided, not run)."""

    cause: str
    event_time: datetime
    state: Literal["open", "succeeded", "failed", "dry_run"]


@dataclass(frozen=True)
class Decision:
    """`run`: whether a run is to be started (outcome retrain, and run_mode enabled)."""

    cause: str
    event_time: datetime
    outcome: Outcome
    reason: str
    run: bool = False
    inputs: dict[str, JsonValue] = field(default_factory=dict)
    thresholds: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class _Verdict:
    outcome: Outcome
    reason: str


def business_time(config: UseCase, cause: Alert | Performance) -> datetime:
    """When the cause could be known: an assessment's `as_of`; the moment at which an alert's window was closed."""
    return cause.as_of if isinstance(cause, Performance) else cause.window_end + config.monitoring.lateness


def decide(config: UseCase, cause: Alert | Performance, evidence: Evidence, history: Iterable[Retraining]) -> Decision:
    """Decide on one cause. `evidence` and `history` may hold later entries: they are left out by their business time."""
    now = business_time(config, cause)
    past = tuple(sorted((one for one in history if one.event_time <= now and one.cause != cause.id), key=lambda one: one.event_time))
    known = tuple(one for one in evidence.performance if one.as_of <= now and one.id != cause.id)
    alerts = tuple(one for one in evidence.alerts if business_time(config, one) <= now and one.id != cause.id)
    verdict = _alert(config, cause, evidence.champion, known) if isinstance(cause, Alert) else _performance(config, cause, evidence.champion, known)
    rows, span = _new_labels(config, cause, known, past)
    if verdict.outcome == "retrain":
        assert isinstance(cause, Performance)
        verdict = _hindrance(config, cause, now, verdict.reason, past, alerts, span) or verdict
    return Decision(
        cause=cause.id,
        event_time=now,
        outcome=verdict.outcome,
        reason=verdict.reason,
        run=verdict.outcome == "retrain" and config.retraining.run_mode == "enabled",
        inputs=_inputs(cause) | {"new_labelled_rows": rows, "new_labelled_time": format_duration(span), "runs_in_budget_period": _spent(config, now, past)},
        thresholds={
            config.retraining.metric: config.retraining.threshold,
            "test_period": format_duration(config.model.test_period),
            "cooldown": format_duration(config.retraining.cooldown),
            "budget_runs": config.retraining.budget_runs,
            "run_mode": config.retraining.run_mode,
        },
    )


def _performance(config: UseCase, cause: Performance, champion: str, known: tuple[Performance, ...]) -> _Verdict:
    threshold = config.retraining.threshold
    said = f"{cause.metric} was {cause.kind} at {cause.value:.3f} ({cause.low:.3f} to {cause.high:.3f}) for {_span(cause)}"
    if champion and cause.model_version != champion:
        return _Verdict("nothing", f"{said}, by model {cause.model_version}, which is no longer in service.")
    if cause.metric != config.retraining.metric:
        return _Verdict("nothing", f"{said}; the promise is about {config.retraining.metric}.")
    if cause.high < threshold:
        return _Verdict("retrain", f"{said}: the whole interval lies below the promised {threshold:g}.")
    if cause.value >= threshold:
        drift = "; the inputs do not explain the loss (concept drift), but the promise holds" if cause.concept_drift else ""
        return _Verdict("nothing", f"{said}: not below the promised {threshold:g}{drift}.")
    if cause.kind == "estimated":
        return _Verdict("wait_for_labels", f"{said}: below the promised {threshold:g}, but within the estimate's error; the labels will tell.")
    before = [one for one in known if one.kind == "measured" and one.model_version == cause.model_version and one.window_end == cause.window_start]
    if before and before[0].value < threshold:
        return _Verdict("retrain", f"{said}, and at {before[0].value:.3f} in the window before: twice in a row below the promised {threshold:g}.")
    return _Verdict("wait_for_labels", f"{said}: below the promised {threshold:g}, but one window may be chance; the next one decides.")


def _alert(config: UseCase, cause: Alert, champion: str, known: tuple[Performance, ...]) -> _Verdict:
    threshold = config.retraining.threshold
    said = f"{cause.kind} in {cause.subject} for {_span(cause)} ({cause.effect})"
    if cause.kind in FAULTS:
        return _Verdict("page", f"{said}: a fault of the data or its transport. Retraining would learn from it, so a person must look.")
    if champion and cause.model_version != champion:
        return _Verdict("nothing", f"{said}, of model {cause.model_version}, which is no longer in service.")
    own = [one for one in known if one.model_version == cause.model_version and one.metric == config.retraining.metric]
    latest = max(own, key=lambda one: (one.window_end, one.kind == "measured"), default=None)
    if latest is None:
        return _Verdict("wait_for_labels", f"{said}: drift is evidence, not a verdict, and performance is not known yet.")
    performance = f"{latest.metric} was last {latest.kind} at {latest.value:.3f} ({latest.low:.3f} to {latest.high:.3f}) for {_span(latest)}"
    if latest.low >= threshold:
        return _Verdict("nothing", f"{said}, but {performance}: above the promised {threshold:g}.")
    return _Verdict("wait_for_labels", f"{said}, and {performance}: not surely above the promised {threshold:g}; the labels will tell.")


def _hindrance(
    config: UseCase,
    cause: Performance,
    now: datetime,
    need: str,
    past: tuple[Retraining, ...],
    alerts: tuple[Alert, ...],
    span: timedelta,
) -> _Verdict | None:
    """Why a needed retraining is not started, or None."""
    policy = config.retraining
    faulty = [one for one in alerts if one.kind == "data_quality" and one.window_end > cause.window_start]
    if faulty:
        return _Verdict("page", f"{need} But the data of {_span(faulty[0])} is faulty ({faulty[0].effect}): a person must look before anything learns from it.")
    if policy.run_mode == "disabled":
        return _Verdict("nothing", f"{need} Retraining is disabled (retraining.run_mode).")
    under_way = [one for one in past if one.state == "open"]
    if under_way:
        return _Verdict("nothing", f"{need} A retraining is under way, for cause {under_way[-1].cause}.")
    # A failed run trained nothing: it costs budget, and does not make anyone wait.
    effective = [one for one in past if one.state != "failed"]
    if effective and now < effective[-1].event_time + policy.cooldown:
        until = format_moment(effective[-1].event_time + policy.cooldown)
        return _Verdict("nothing", f"{need} The last retraining was decided at {format_moment(effective[-1].event_time)}; cooldown until {until}.")
    spent = _spent(config, now, past)
    if spent >= policy.budget_runs:
        return _Verdict(
            "page",
            f"{need} The budget of {policy.budget_runs} runs in {format_duration(policy.budget_period)} is spent: a person must decide.",
        )
    # By time, not by rows: the log may hold a sample of what the label table holds, and the run's own feasibility check counts the rows.
    if span < config.model.test_period:
        return _Verdict(
            "wait_for_labels",
            f"{need} Since the last training labels over {format_duration(span)} came in; {format_duration(config.model.test_period)} are needed to learn "
            "something new and to judge it.",
        )
    return None


def _new_labels(config: UseCase, cause: Alert | Performance, known: tuple[Performance, ...], past: tuple[Retraining, ...]) -> tuple[int, timedelta]:
    """Labelled rows, and the time that their windows cover, in measurements made after the last training."""
    since = max((one.event_time for one in past if one.state != "failed"), default=None)
    both = (*known, cause) if isinstance(cause, Performance) else known
    new = [one for one in both if one.kind == "measured" and (since is None or one.as_of > since)]
    rows = sum(one.outcomes.get(config.data.label.labelled_outcome, 0) for one in new)
    windows = {(one.window_start, one.window_end) for one in new}
    return rows, sum((end - start for start, end in windows), timedelta(0))


def _spent(config: UseCase, now: datetime, past: tuple[Retraining, ...]) -> int:
    return sum(1 for one in past if one.event_time > now - config.retraining.budget_period)


def _inputs(cause: Alert | Performance) -> dict[str, JsonValue]:
    window: dict[str, JsonValue] = {"window_start": format_moment(cause.window_start), "window_end": format_moment(cause.window_end), "rows": cause.rows}
    if isinstance(cause, Alert):
        return window | {"kind": cause.kind, "detector": cause.detector, "statistic": cause.statistic, "alert_threshold": cause.threshold}
    return window | {
        "kind": cause.kind,
        cause.metric: cause.value,
        "low": cause.low,
        "high": cause.high,
        "explained": cause.explained,
        "concept_drift": cause.concept_drift,
    }


def _span(what: Alert | Performance) -> str:
    return f"{format_moment(what.window_start)} to {format_moment(what.window_end)}"
