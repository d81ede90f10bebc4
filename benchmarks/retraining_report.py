"""The results of benchmarks/retraining_decision.py as Markdown and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.streams.stream import Stream
from components.contracts.figures import COLOURS, drawing
from components.monitoring.backtest.comparison import Difference, Margin, Summary, Verdict, margin_of_pool, not_worse, pooled
from components.monitoring.backtest.replay import Served

ALWAYS, FIXED, OURS = "always", "always, fixed window", "crispline"
SHOWN = ("never", ALWAYS, FIXED, "every 2nd", "every 4th", "every alarm", "below the promise", OURS, "oracle")


@dataclass(frozen=True)
class Judged:
    """One stream's outcome. `differences`: crispline less another policy, (AUC, log loss) by that policy's name."""

    name: str
    role: str
    windows: int
    windows_with_labels: int
    rows: int
    margin: Margin
    summaries: list[Summary]
    differences: dict[str, tuple[Difference, Difference]]
    served: dict[str, Served]
    seconds_per_fit: float

    def verdict(self, other: str) -> tuple[Verdict, Verdict]:
        auc, loss = self.differences[other]
        allowed = self.margin if other in (ALWAYS, FIXED) else Margin(0.0, 0.0)
        return not_worse(auc, allowed.auc, True), not_worse(loss, allowed.log_loss, False)

    def runs(self, name: str) -> int:
        return next(one.runs for one in self.summaries if one.name == name)


def write(judged: Sequence[Judged], streams: Mapping[str, Stream], folder: Path) -> None:
    """retraining_decision.md, retraining_decision.svg, retraining_runs.svg and retraining_windows.svg in `folder`."""
    folder.mkdir(exist_ok=True)
    for name, svg in {"decision": _differences(judged), "runs": _runs(judged), "windows": _windows(judged)}.items():
        # Opened alone, a figure has no page to take its colours from.
        (folder / f"retraining_{name}.svg").write_text(svg.replace("<svg ", '<svg style="color:#222;background:#fff" ', 1))
    (folder / "retraining_decision.md").write_text(_text(judged, streams))


def _text(judged: Sequence[Judged], streams: Mapping[str, Stream]) -> str:
    found = [one for one in judged if one.role == "judged"]
    parts = [
        "# The retraining decision",
        "",
        "`benchmarks/.venv/bin/python -m benchmarks.retraining_decision --cache <folder>` regenerates this page and its figures. What is compared and what was fixed before "
        "judging: the module's docstring. Differences are crispline less the other policy, with a 95% paired interval (circular block bootstrap over windows).",
        "",
        "## The outcome on streams that no constant was chosen on",
        "",
        _goal(found),
        "",
        "![Differences to always retraining](retraining_decision.svg)",
        "",
        _table_of_goals(found),
        "",
        "*held*: the whole interval lies within the margin (against never: above zero), or better. *missed*: all of it beyond. *undecided*: neither; the windows are too few or too noisy.",
        "",
        "## Every policy",
        "",
        "Means over the streams of each role; `below` is the share of windows with the AUC below the promise, `runs` the share of always's runs.",
        "",
        _means(judged),
        "",
        "![Runs against performance](retraining_runs.svg)",
        "",
        *(line for one in judged for line in _stream(one)),
        "## Window by window",
        "",
        "![AUC by window](retraining_windows.svg)",
        "",
        "## The streams",
        "",
        "| stream | role | predicts | out of | why it is here |",
        "|---|---|---|---|---|",
        *(f"| {one.name} | {one.role} | {streams[one.name].predicts} | {streams[one.name].source} | {streams[one.name].differs} |" for one in judged),
        "",
        _costs(judged),
        "",
    ]
    return "\n".join(parts)


def _goal(found: Sequence[Judged]) -> str:
    lines = []
    for other, said in ((ALWAYS, "always retraining, each run's window chosen by the same backtest"), (FIXED, "always retraining on the fixed sliding window")):
        auc, loss = ([one.verdict(other)[number] for one in found] for number in (0, 1))
        both = pooled([one.differences[other] for one in found])
        allowed = margin_of_pool([one.margin for one in found])
        lines.append(
            f"- Against {said}: within the margin by interval on {auc.count('held')} of {len(found)} streams by AUC and {loss.count('held')} by log loss; missed on "
            f"{auc.count('missed')} and {loss.count('missed')}. Mean over the streams: {_difference(both[0])} AUC (mean margin {allowed.auc:.4f}), "
            f"{_difference(both[1])} log loss (mean margin {allowed.log_loss:.4f}); interval over streams."
        )
    never = [one.verdict("never") for one in found]
    shares = [one.runs(OURS) / max(1, one.runs(ALWAYS)) for one in found]
    lines.append(
        f"- Against never: above zero by interval on {sum(v[0] == 'held' for v in never)} (AUC) and {sum(v[1] == 'held' for v in never)} (log loss) of {len(found)}; "
        f"below zero by interval on {sum(v[0] == 'missed' for v in never)} and {sum(v[1] == 'missed' for v in never)}."
    )
    lines.append(f"- Runs: {np.mean(shares):.0%} of always's on average, {max(shares):.0%} at most.")
    return "\n".join(lines)


def _table_of_goals(found: Sequence[Judged]) -> str:
    lines = [
        "| stream | windows | runs of | margin AUC | less always, AUC | less always, log loss | less always (fixed), AUC | less always (fixed), log loss | less never, AUC | less never, log loss |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        cells = [f"{_difference(one.differences[other][number])} {one.verdict(other)[number]}" for other in (ALWAYS, FIXED, "never") for number in (0, 1)]
        lines.append(f"| {one.name} | {one.windows} | {one.runs(OURS)} of {one.runs(ALWAYS)} | {one.margin.auc:.4f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _means(judged: Sequence[Judged]) -> str:
    lines = ["| role | policy | AUC | log loss | worst window | below | runs |", "|---|---|---|---|---|---|---|"]
    for role in ("development", "judged"):
        part = [one for one in judged if one.role == role]
        for name in SHOWN if part else ():
            found = [next(s for s in one.summaries if s.name == name) for one in part]
            share = np.mean([s.runs / max(1, one.runs(ALWAYS)) for s, one in zip(found, part, strict=True)])
            lines.append(
                f"| {role} | {name} | {np.mean([s.auc for s in found]):.4f} | {np.mean([s.log_loss for s in found]):.4f} | {np.mean([s.worst for s in found]):.3f} | "
                f"{np.mean([s.below for s in found]):.0%} | {share:.0%} |"
            )
    return "\n".join(lines)


def _stream(one: Judged) -> list[str]:
    lines = [
        f"### {one.name}",
        "",
        f"{one.role}; {one.rows:,} rows, {one.windows} windows, {one.windows_with_labels} with new labels. Margin {one.margin.auc:.4f} AUC, {one.margin.log_loss:.4f} log loss.",
        "",
        "| policy | AUC | log loss | worst window | below | runs | cost | crispline less this: AUC | log loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for s in one.summaries:
        pair = one.differences.get(s.name)
        cells = f"{_difference(pair[0])} | {_difference(pair[1])}" if pair else " | "
        lines.append(f"| {s.name} | {s.auc:.4f} | {s.log_loss:.4f} | {s.worst:.3f} | {s.below:.0%} | {s.runs} | {s.money:,.0f} | {cells} |")
    return [*lines, ""]


def _costs(judged: Sequence[Judged]) -> str:
    fits, seconds = sum(one.windows_with_labels * 5 for one in judged), float(np.mean([one.seconds_per_fit for one in judged]))
    return f"Trials are no runs, and not for nothing: five fits for each measured window, {fits:,} on all streams, {seconds:.2f} s each on one core (the scoring of all later windows included)."


def _difference(one: Difference) -> str:
    return f"{one.value:+.4f} ({one.low:+.4f} to {one.high:+.4f})"


def _differences(judged: Sequence[Judged]) -> str:
    with drawing(8.5, 0.33 * len(judged) + 1.2, columns=2) as drawn:
        for number, (axes, title) in enumerate(zip(drawn.axes, ("AUC: right is better", "log loss: left is better"), strict=True)):
            for row, one in enumerate(judged):
                for shift, other, colour in ((-0.16, ALWAYS, COLOURS[0]), (0.16, FIXED, COLOURS[1])):
                    difference = one.differences[other][number]
                    axes.plot([difference.low, difference.high], [row + shift] * 2, color=colour, linewidth=1.4, label=f"less {other}" if row == 0 else None)
                    axes.scatter([difference.value], [row + shift], color=colour, s=14, zorder=3)
                allowed = -one.margin.auc if number == 0 else one.margin.log_loss
                axes.plot([allowed] * 2, [row - 0.35, row + 0.35], color="#010203", linewidth=1.0)
            axes.axvline(0, color="#010203", linewidth=0.6)
            axes.set_title(title)
            axes.set_yticks(
                range(len(judged)), [f"{one.name}{' (dev)' if one.role == 'development' else ''}" for one in judged] if number == 0 else [""] * len(judged)
            )
            axes.invert_yaxis()
            limit = 0.06 if number == 0 else 0.15
            axes.set_xlim(-limit, limit)
        drawn.axes[0].legend(fontsize=7, loc="lower right")
    return drawn.svg


def _runs(judged: Sequence[Judged]) -> str:
    roles = sorted({one.role for one in judged})
    with drawing(8.5, 3.6, columns=len(roles)) as drawn:
        for axes, role in zip(np.atleast_1d(drawn.axes), roles, strict=True):
            part = [one for one in judged if one.role == role]
            for number, name in enumerate(SHOWN):
                found = [next(s for s in one.summaries if s.name == name) for one in part]
                share = float(np.mean([s.runs / max(1, one.runs(ALWAYS)) for s, one in zip(found, part, strict=True)]))
                mean = float(np.mean([s.auc for s in found]))
                axes.scatter([share], [mean], s=60 if name == OURS else 28, color=COLOURS[number % len(COLOURS)], zorder=3)
                axes.annotate(name, (share, mean), xytext=(5, 3), textcoords="offset points", fontsize=7)
            axes.axvline(0.25, linestyle="--", linewidth=0.8, color="#010203")
            axes.set_title(f"{role}: mean AUC of {len(part)} streams")
            axes.set_xlabel("runs, as a share of always's")
            axes.set_xlim(-0.05, 1.3)
    return drawn.svg


def _windows(judged: Sequence[Judged]) -> str:
    columns = 3
    rows = -(-len(judged) // columns)
    with drawing(10.5, 1.7 * rows, rows=rows, columns=columns, solve_layout=False) as drawn:
        drawn.figure.subplots_adjust(left=0.05, right=0.99, top=0.98, bottom=0.03, hspace=0.45, wspace=0.18)
        for axes in drawn.axes.flat[len(judged) :]:
            axes.set_visible(False)
        for axes, one in zip(drawn.axes.flat, judged, strict=False):
            for number, name in enumerate(("never", ALWAYS, OURS)):
                axes.plot(one.served[name].auc, linewidth=1.4 if name == OURS else 0.8, color=COLOURS[number], label=name)
            at = [run.window for run in one.served[OURS].runs]
            axes.scatter(at, one.served[OURS].auc[at], s=12, color=COLOURS[2], zorder=4)
            axes.set_title(one.name, fontsize=8)
            axes.tick_params(labelsize=6)
        drawn.axes.flat[0].legend(fontsize=6)
    return drawn.svg
