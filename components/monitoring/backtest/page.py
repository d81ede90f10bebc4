"""The backtest as a page: what each policy would have delivered, where the decision would have retrained and why, what other settings would do."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from components.contracts.durations import format_duration, format_moment
from components.contracts.figures import COLOURS, drawing
from components.contracts.report_page import Badge, Block, Facts, Figure, Section, Table, Text, Tone, Verdict, page
from components.contracts.usecase import UseCase
from components.monitoring.backtest.comparison import Difference, Margin, Summary, not_worse
from components.monitoring.backtest.grid import Grid
from components.monitoring.backtest.history import History
from components.monitoring.backtest.replay import Served

OURS = "crispline"
_TONES: Mapping[str, Tone] = {"held": "good", "undecided": "warn", "missed": "bad"}
_OUTCOMES: Mapping[str, Tone] = {"retrain": "info", "page": "bad", "wait_for_labels": "warn", "nothing": "good"}


@dataclass(frozen=True)
class Setting:
    """What another choice in usecase.yaml would have done."""

    key: str
    value: str
    current: bool
    summary: Summary


@dataclass(frozen=True)
class Backtest:
    config: UseCase
    history: History
    grid: Grid
    served: Mapping[str, Served]
    summaries: Sequence[Summary]
    differences: Mapping[str, tuple[Difference, Difference]]
    margin: Margin
    settings: Sequence[Setting]
    rows_in_all: int


def backtest_page(found: Backtest) -> str:
    history, config = found.history, found.config
    mine, always = found.served[OURS], next(one for name, one in found.served.items() if name.startswith("always"))
    verdict = not_worse(found.differences[always.name][0], found.margin.auc, True)
    first, last = history.moment_of(0), history.moment_of(history.windows)
    return page(
        "Backtest of the retraining decision",
        [
            Section("Policies", _policies(found)),
            Section("Window by window", _windows(found)),
            Section("Decisions", _decisions(found)),
            Section("Other settings", _other_settings(found)),
            Section("Which rows to learn from", _training_windows(found)),
            Section("How this was computed", _method(found)),
        ],
        subtitle=f"{config.name}, {format_moment(first)} to {format_moment(last)}",
        lead=[
            Verdict(_TONES[verdict], _headline(mine, always), _words(found, always)),
            Facts(
                {
                    "promise": f"{config.retraining.metric} {config.retraining.threshold:g}",
                    "windows": f"{history.windows} of {format_duration(history.window)}",
                    "rows": len(history.label),
                    "a run costs": f"{config.retraining.cost_of_run:,.0f} {config.business.currency}",
                    "margin": f"{found.margin.auc:.4f} AUC",
                }
            ),
        ],
        footer="Numbers compare policies on one history; they promise nothing for another year.",
    )


def _headline(mine: Served, always: Served) -> str:
    return f"{len(mine.runs)} retrainings instead of {len(always.runs)}: mean AUC {np.nanmean(mine.auc):.4f} against {np.nanmean(always.auc):.4f}"


def _words(found: Backtest, always: Served) -> str:
    auc, _ = found.differences[always.name]
    never, _ = found.differences["never"]
    said = {"held": "Within the margin, by interval", "undecided": "Not decided by interval", "missed": "Below the margin, by interval"}
    return (
        f"{said[not_worse(auc, found.margin.auc, True)]}: {auc.value:+.4f} ({auc.low:+.4f} to {auc.high:+.4f}) against always retraining, where one run a window is worth "
        f"{found.margin.auc:.4f}. Against never retraining: {never.value:+.4f} ({never.low:+.4f} to {never.high:+.4f})."
    )


def _policies(found: Backtest) -> list[Block]:
    rows = []
    for one in found.summaries:
        difference = found.differences.get(one.name)
        interval = f"{difference[0].value:+.4f} ({difference[0].low:+.4f} to {difference[0].high:+.4f})" if difference else ""
        rows.append([one.name, one.auc, one.log_loss, one.worst, f"{one.below:.0%}", one.runs, one.money, interval])
    with drawing(7.5, 3.2) as drawn:
        for number, one in enumerate(found.summaries):
            drawn.axes.scatter([one.runs], [one.auc], s=60 if one.name == OURS else 30, color=COLOURS[number % len(COLOURS)], zorder=3)
            drawn.axes.annotate(one.name, (one.runs, one.auc), xytext=(6, 3), textcoords="offset points", fontsize=8)
        drawn.axes.set_xlabel("retrainings")
        drawn.axes.set_ylabel("mean AUC of the windows")
    return [
        Table(
            [
                "policy",
                "mean AUC",
                "mean log loss",
                "worst window",
                "below the promise",
                "runs",
                f"cost, {found.config.business.currency}",
                "crispline less this, AUC",
            ],
            rows,
            caption="The oracle looks ahead: the best that as many runs as a quarter of the windows could have done. Cost: errors and runs.",
            tones={number: "info" for number, one in enumerate(found.summaries) if one.name == OURS},
        ),
        Figure(drawn.svg, "Up and to the left is better: more performance from fewer runs.", "Mean AUC against the number of retrainings, one point a policy"),
    ]


def _windows(found: Backtest) -> list[Block]:
    return [
        Figure(
            windows_figure(found.history, found.served, found.config.retraining.threshold),
            "Dots: retrainings of crispline. Dashed: the promise.",
            "AUC by window",
        ),
        Figure(
            windows_figure(found.history, found.served, None, "log_loss"),
            "Log loss, lower is better: it sees probabilities that are wrong although the order is right.",
            "Log loss by window",
        ),
    ]


def windows_figure(history: History, served: Mapping[str, Served], threshold: float | None, measure: str = "auc") -> str:
    shown = [name for name in served if name in ("never", OURS) or name == "always"]
    with drawing(7.5, 2.8) as drawn:
        middle = [history.moment_of(number) + history.window / 2 for number in range(history.windows)]
        for number, name in enumerate(shown):
            values = getattr(served[name], measure)
            drawn.axes.plot(middle, values, label=name, linewidth=1.8 if name == OURS else 1.0, color=COLOURS[number])
            if name == OURS:
                at = [run.window for run in served[name].runs]
                drawn.axes.scatter([middle[one] for one in at], values[at], s=26, color=COLOURS[number], zorder=4)
        if threshold is not None:
            drawn.axes.axhline(threshold, linestyle="--", linewidth=0.9, color="#010203")
        drawn.axes.set_ylabel("AUC" if measure == "auc" else "log loss")
        drawn.axes.legend(ncols=3, loc="best", fontsize=8)
    return drawn.svg


def _decisions(found: Backtest) -> list[Block]:
    rows: list[list[object]] = []
    tones: dict[int, Tone] = {}
    for window, (outcome, reason) in sorted(found.served[OURS].reasons.items()):
        if outcome in ("retrain", "page"):
            tones[len(rows)] = _OUTCOMES[outcome]
        rows.append([format_moment(found.history.moment_of(window))[:10], Badge(_OUTCOMES[outcome], outcome.replace("_", " ")), reason])
    return [Table(["on", "decision", "reason"], rows, caption="One line for each measured window, when its labels were in.", tones=tones)]


def _other_settings(found: Backtest) -> list[Block]:
    rows: list[list[object]] = []
    tones: dict[int, Tone] = {}
    for number, one in enumerate(found.settings):
        tones |= {number: "info"} if one.current else {}
        rows.append(
            [
                one.key,
                one.value + (" (now)" if one.current else ""),
                one.summary.auc,
                one.summary.log_loss,
                one.summary.worst,
                one.summary.runs,
                one.summary.money,
            ]
        )
    return [
        Text("One setting is changed at a time, all others stay as they are in usecase.yaml."),
        Table(["retraining.", "value", "mean AUC", "mean log loss", "worst window", "runs", f"cost, {found.config.business.currency}"], rows, tones=tones),
    ]


def _training_windows(found: Backtest) -> list[Block]:
    rows = []
    for name, table in found.grid.log_loss.items():
        fresh, auc = np.diagonal(table), np.diagonal(found.grid.auc[name])
        aged = [table[max(0, window - 4), window] for window in range(found.history.windows)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            rows.append([name, float(np.nanmean(auc)), float(np.nanmean(fresh)), float(np.nanmean(aged))])
    return [
        Table(
            ["training window", "mean AUC, new model", "mean log loss, new model", "log loss, four windows old"],
            rows,
            caption="sliding: retraining.training_window; short: half of it; growing: all rows; weighted: all rows, half weight at half the training window's age.",
        ),
        Text("Each run learns from the rows whose trials had the lowest log loss over the last twelve measured windows."),
    ]


def _method(found: Backtest) -> list[Block]:
    return [
        Text(
            f"{len(found.history.label):,} of {found.rows_in_all:,} rows were drawn without regard to time or label. At the start of each window with new labels four models were "
            f"trained on what was known then, {len(found.grid.probability)} in all ({found.grid.seconds:.2f} s each): XGBoost with fixed parameters, no tuning, no calibration, no gates, "
            "the same for every policy. The decision is the trigger's own code, given the measured windows in the order in which they would have become known. Estimates and drift alarms "
            "of the live monitoring are not replayed. Intervals: circular block bootstrap over windows, 95%."
        ),
        Text(
            f"Margin: by the declared costs of errors, a fall of {found.margin.auc:.4f} in AUC or a rise of {found.margin.log_loss:.4f} in log loss costs in a window what one run costs "
            "(binormal model). Where that is close to zero, money says to retrain whenever it helps at all, and the budget decides."
        ),
    ]
