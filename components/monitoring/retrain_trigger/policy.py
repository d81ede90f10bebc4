"""Is retraining needed, and what would it be worth? A pure function of what arrived, what is known and what was done.

Three things speak for a run (all intervals at `evaluation.confidence`):
- a break: measured log loss lies above what the probabilities promise, further than chance and the inputs explain;
- the promise is broken: the whole interval of `retraining.metric` lies below `retraining.threshold` (measured or estimated), or the measured value
  does in this window and in the one right before it;
- age: what the champion's age has cost since it was trained is at least what a run costs (`retrain_trigger.worth`).
A value below without these is doubtful and waits for labels. Where trials say that newer labels do not help, a broken promise pages a person
instead of retraining in vain. Drift alone is evidence, never the verdict: it cannot say whether the model still ranks well. Faulty data pages a
person, and stops a retraining on the rows that it touches.

Even then a run needs new labels over `model.test_period`, because the gates judge champion and challenger on that much time that the champion was
not trained on. After that come cooldown, budget, and the share of windows that may bring a run.
All times are business time.
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
from components.monitoring.retrain_trigger.worth import (
    WINDOWS_PER_RUN,
    TrainingWindow,
    Worth,
    best_training_window,
    is_broken,
    runs_left,
    worth_of_run,
)

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
    """`run`: whether a run is to be started (outcome retrain, and run_mode enabled). `training_window`: the rows that it should learn from."""

    cause: str
    event_time: datetime
    outcome: Outcome
    reason: str
    run: bool = False
    training_window: TrainingWindow = "sliding"
    inputs: dict[str, JsonValue] = field(default_factory=dict)
    thresholds: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class _Verdict:
    """`broken`: what is served is known to be wrong, so that a person must know when nothing can be done."""

    outcome: Outcome
    reason: str
    broken: bool = True


def business_time(config: UseCase, cause: Alert | Performance) -> datetime:
    """When the cause could be known: an assessment's `as_of`; the moment at which an alert's window was closed."""
    return cause.as_of if isinstance(cause, Performance) else cause.window_end + config.monitoring.lateness


def decide(config: UseCase, cause: Alert | Performance, evidence: Evidence, history: Iterable[Retraining]) -> Decision:
    """Decide on one cause. `evidence` and `history` may hold later entries: they are left out by their business time."""
    now = business_time(config, cause)
    past = tuple(sorted((one for one in history if one.event_time <= now and one.cause != cause.id), key=lambda one: one.event_time))
    known = tuple(one for one in evidence.performance if one.as_of <= now and one.id != cause.id)
    alerts = tuple(one for one in evidence.alerts if business_time(config, one) <= now and one.id != cause.id)
    measured = tuple(one for one in (*known, cause) if isinstance(one, Performance) and one.kind == "measured")
    left = runs_left(len({one.window_start for one in measured}), sum(1 for one in past if one.state != "failed"))
    worth = worth_of_run(measured, cause.model_version, _last_training(past), left)
    verdict = _alert(config, cause, evidence.champion, known) if isinstance(cause, Alert) else _performance(config, cause, evidence.champion, known, worth)
    rows, span = _new_labels(config, measured, past)
    if verdict.outcome == "retrain":
        assert isinstance(cause, Performance)
        verdict = _hindrance(config, cause, now, verdict, past, alerts, span, left) or verdict
    return Decision(
        cause=cause.id,
        event_time=now,
        outcome=verdict.outcome,
        reason=verdict.reason,
        run=verdict.outcome == "retrain" and config.retraining.run_mode == "enabled",
        training_window=best_training_window(measured) or "sliding",
        inputs=_inputs(cause)
        | {"new_labelled_rows": rows, "new_labelled_time": format_duration(span), "runs_in_budget_period": _spent(config, now, past), "runs_left": left}
        | ({"cost_of_age": worth.money, "gain": worth.gain, "gain_error": worth.error, "gain_windows": worth.windows} if worth.windows else {}),
        thresholds={
            config.retraining.metric: config.retraining.threshold,
            "test_period": format_duration(config.model.test_period),
            "cooldown": format_duration(config.retraining.cooldown),
            "budget_runs": config.retraining.budget_runs,
            "cost_of_run": config.retraining.cost_of_run,
            "run_mode": config.retraining.run_mode,
        },
    )


def training_start(config: UseCase, decision: Decision, evidence: Evidence) -> datetime:
    """The first prediction moment that the run should learn from.

    `growing` reaches back to what the first model learnt from: `retraining.training_window` before the first window that was judged.
    """
    window = config.retraining.training_window
    sliding = decision.event_time - window
    match decision.training_window:
        case "short":
            return decision.event_time - window / 2
        case "growing":
            return min([sliding, *(one.window_start - window for one in evidence.performance if one.as_of <= decision.event_time)])
    return sliding


def _performance(config: UseCase, cause: Performance, champion: str, known: tuple[Performance, ...], worth: Worth) -> _Verdict:
    threshold = config.retraining.threshold
    said = f"{cause.metric} was {cause.kind} at {cause.value:.3f} ({cause.low:.3f} to {cause.high:.3f}) for {_span(cause)}"
    if champion and cause.model_version != champion:
        return _Verdict("nothing", f"{said}, by model {cause.model_version}, which is no longer in service.")
    if cause.metric != config.retraining.metric:
        return _Verdict("nothing", f"{said}; the promise is about {config.retraining.metric}.")
    if is_broken(cause):
        return _Verdict(
            "retrain",
            f"{said}, and its probabilities no longer mean what they say: log loss {cause.log_loss:.3f} where they promise {cause.expected_log_loss:.3f}. "
            "What it was taught is no longer true.",
        )
    before = [one for one in known if one.kind == "measured" and one.model_version == cause.model_version and one.window_end == cause.window_start]
    unknown = cause.low <= 0 and cause.high >= 1  # labels of one class, or next to none, tell nothing of a ranking
    surely = cause.high < threshold
    twice = not unknown and cause.kind == "measured" and cause.value < threshold and bool(before) and before[0].value < threshold
    promised = f"below the promised {threshold:g}"
    if surely and worth.windows and worth.gain <= 0:
        return _Verdict(
            "page",
            f"{said}: the whole interval lies {promised}, but models of newer labels did no better in {_windows(worth)}: "
            "retraining will not help, a person must look at the problem or the promise.",
        )
    # Where trials were made they decide whether retraining can mend the promise; without any, it is worth the attempt.
    mends = not worth.windows or worth.is_sure
    if surely and mends:
        return _Verdict("retrain", f"{said}: the whole interval lies {promised}. {_age(config, worth)}".rstrip())
    if twice and mends:
        return _Verdict(
            "retrain",
            f"{said}, and at {before[0].value:.3f} in the window before: twice in a row {promised}. {_age(config, worth)}".rstrip(),
        )
    if cause.kind == "measured" and worth.pays(config.retraining.cost_of_run):
        return _Verdict("retrain", f"{said}. {_age(config, worth)} A run costs {_money(config, config.retraining.cost_of_run)}.", broken=False)
    if unknown:
        return _Verdict("nothing", f"{said}: what came in tells nothing of the ranking. {_age(config, worth)}".rstrip())
    if cause.value >= threshold:
        drift = "; the inputs do not explain the loss (concept drift), but the promise holds" if cause.concept_drift else ""
        return _Verdict("nothing", f"{said}: not below the promised {threshold:g}{drift}. {_age(config, worth)}".rstrip())
    if cause.kind == "estimated":
        return _Verdict("wait_for_labels", f"{said}: below the promised {threshold:g}, but within the estimate's error; the labels will tell.")
    if surely or twice:
        return _Verdict("wait_for_labels", f"{said}: {promised}, but models of newer labels were not surely better in {_windows(worth)}.")
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
    needed: _Verdict,
    past: tuple[Retraining, ...],
    alerts: tuple[Alert, ...],
    span: timedelta,
    left: int,
) -> _Verdict | None:
    """Why a needed retraining is not started, or None."""
    policy, need = config.retraining, needed.reason
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
    if left < 1:
        taken = f"One run in {WINDOWS_PER_RUN} windows is allowed, and all are taken"
        return _Verdict("page", f"{need} {taken}: a person must decide.") if needed.broken else _Verdict("nothing", f"{need} {taken}.")
    return None


def _last_training(past: tuple[Retraining, ...]) -> datetime | None:
    """A failed run trained nothing."""
    return max((one.event_time for one in past if one.state != "failed"), default=None)


def _new_labels(config: UseCase, measured: tuple[Performance, ...], past: tuple[Retraining, ...]) -> tuple[int, timedelta]:
    """Labelled rows, and the time that their windows cover, in measurements made after the last training."""
    since = _last_training(past)
    new = [one for one in measured if since is None or one.as_of > since]
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


def _age(config: UseCase, worth: Worth) -> str:
    """What the champion's age has cost, in words; empty when no trial says."""
    if not worth.windows:
        return ""
    if worth.gain <= worth.error:
        return f"In {_windows(worth)} since it was trained, models of newer labels were not surely better."
    return (
        f"In {_windows(worth)} since it was trained, its age has cost about {_money(config, worth.money)} "
        f"(log loss per row {worth.gain / worth.windows:.4f} above that of models of newer labels)."
    )


def _windows(worth: Worth) -> str:
    return "1 window" if worth.windows == 1 else f"{worth.windows} windows"


def _money(config: UseCase, amount: float) -> str:
    return f"{amount:,.0f} {config.business.currency}"
