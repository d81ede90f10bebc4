"""The evaluation's figures as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from components.contracts.evaluation import Comparison, Disturbance, EvaluationResult, MetricValue, SlicePart
from components.contracts.figures import COLOURS, drawing
from components.contracts.usecase import Metric

MODEL, OTHER, LIMIT = COLOURS[0], COLOURS[4], COLOURS[1]
TOP_FEATURES, TOP_IN_SLICE = 15, 8


def roc_plot(result: EvaluationResult) -> str:
    with drawing(4.2, 3.6) as drawn:
        axes = drawn.axes
        axes.plot([0, 1], [0, 1], linestyle=":", color="#888888", linewidth=1)
        axes.plot(*zip(*result.curves.roc, strict=True), color=MODEL, linewidth=1.8)
        decided = result.decisions
        if decided.true_positive_rate is not None and decided.false_positive_rate is not None:
            axes.plot([decided.false_positive_rate], [decided.true_positive_rate], "o", color=LIMIT)
            axes.annotate(
                "decision threshold", (decided.false_positive_rate, decided.true_positive_rate), xytext=(8, -10), textcoords="offset points", fontsize=8
            )
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return drawn.svg


def precision_recall_plot(result: EvaluationResult) -> str:
    with drawing(4.2, 3.6) as drawn:
        axes = drawn.axes
        share = result.positives / result.rows
        axes.axhline(share, linestyle=":", color="#888888", linewidth=1)
        axes.annotate("share of positives", (1, share), xytext=(0, 3), textcoords="offset points", fontsize=8, ha="right")
        axes.plot(*zip(*result.curves.precision_recall, strict=True), color=MODEL, linewidth=1.8)
        axes.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return drawn.svg


def reliability_plot(result: EvaluationResult) -> str:
    with drawing(7.5, 3.4) as drawn:
        axes = drawn.axes
        bins = result.curves.reliability
        top = max([each.observed.high for each in bins] + [each.predicted for each in bins]) * 1.08
        axes.plot([0, top], [0, top], linestyle=":", color="#888888", linewidth=1)
        x, y = [each.predicted for each in bins], [each.observed.value for each in bins]
        errors = [[each.observed.value - each.observed.low for each in bins], [each.observed.high - each.observed.value for each in bins]]
        axes.errorbar(x, y, yerr=errors, fmt="o-", color=MODEL, linewidth=1.2, markersize=4, capsize=2)
        axes.axvline(result.decision_threshold, color=LIMIT, linewidth=1, linestyle="--")
        axes.annotate("decision threshold", (result.decision_threshold, top), xytext=(4, -10), textcoords="offset points", fontsize=8)
        axes.set(xlabel="predicted probability", ylabel="observed share", xlim=(0, top), ylim=(0, top))
    return drawn.svg


def slices_plot(parts: Sequence[SlicePart], metric: Metric, overall: MetricValue, limit: float | None) -> str:
    """A dot with its interval for each judged part; the band is the interval over all rows."""
    judged = [part for part in parts if part.judged and metric in part.metrics]
    return _dots([(f"{part.part} (n = {part.rows})", part.metrics[metric]) for part in judged], metric, overall, limit)


def comparison_plot(comparison: Comparison) -> str:
    """Improvement of each metric in units of its own interval's half width, so that one axis fits all."""
    rows = []
    for metric, difference in comparison.differences.items():
        value = difference.improvement
        scale = max(value.high - value.value, value.value - value.low) or abs(value.value) or 1.0
        rows.append((metric, MetricValue(value=value.value / scale, low=value.low / scale, high=value.high / scale)))
    return _dots(rows, "improvement, in half widths of its interval (right of 0: better)", None, None, zero=True)


def robustness_plot(disturbances: Sequence[Disturbance], metric: Metric, limit: float | None) -> str:
    """Loss of `metric` under each disturbance, feeds first, then the features that cost most."""
    feeds = [each for each in disturbances if each.kind != "feature_missing"]
    singles = sorted((each for each in disturbances if each.kind == "feature_missing"), key=lambda each: -each.loss[metric].value)[:TOP_IN_SLICE]
    shown = [each for each in [*feeds, *singles] if metric in each.loss]
    with drawing(7.5, 0.6 + 0.24 * len(shown)) as drawn:
        axes = drawn.axes
        values = [each.loss[metric] for each in shown]
        errors = [[value.value - value.low for value in values], [value.high - value.value for value in values]]
        colours = [
            {"view_missing": COLOURS[0], "feature_missing": COLOURS[5], "perturbed": COLOURS[2], "all_views_missing": "#999999"}[each.kind] for each in shown
        ]
        names = [each.name if each.judged else f"{each.name} (not judged)" for each in shown]
        axes.barh(
            range(len(shown)), [value.value for value in values], xerr=errors, color=colours, height=0.65, error_kw={"elinewidth": 0.9, "ecolor": "#888888"}
        )
        axes.set_yticks(range(len(shown)), names)
        axes.invert_yaxis()
        axes.axvline(0, color="#888888", linewidth=0.8)
        _limit(axes, limit)
        axes.set_xlabel(f"loss of {metric}")
        axes.grid(False, axis="y")
    return drawn.svg


def importance_plot(result: EvaluationResult) -> str:
    names = list(result.explanation.importance)[:TOP_FEATURES]
    with drawing(7.5, 0.6 + 0.24 * len(names)) as drawn:
        axes = drawn.axes
        directions = [result.explanation.direction[name] for name in names]
        colours = ["#999999" if each is None or abs(each) < 0.3 else (COLOURS[1] if each > 0 else COLOURS[0]) for each in directions]
        axes.barh(range(len(names)), [result.explanation.importance[name] for name in names], color=colours, height=0.65)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("mean absolute contribution, log odds")
        axes.grid(False, axis="y")
    return drawn.svg


def slice_importance_plot(result: EvaluationResult, slice: str) -> str:
    """Heat map: the features that matter most overall, by part of a slice."""
    parts = [each for each in result.explanation.by_slice if each.slice == slice]
    names = list(result.explanation.importance)[:TOP_IN_SLICE]
    with drawing(7.5, 1.1 + 0.24 * len(parts)) as drawn:
        axes = drawn.axes
        values = [[part.importance[name] for name in names] for part in parts]
        axes.imshow(values, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
        top = max(max(row) for row in values)
        for row, each in enumerate(values):
            for column, value in enumerate(each):
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="white" if value > 0.6 * top else "#222222")
        axes.set_yticks(range(len(parts)), [f"{part.part} (n = {part.rows})" for part in parts])
        axes.set_xticks(range(len(names)), names, rotation=20, ha="right", rotation_mode="anchor")
        axes.grid(False)
    return drawn.svg


def _dots(rows: Sequence[tuple[str, MetricValue]], label: str, overall: MetricValue | None, limit: float | None, zero: bool = False) -> str:
    with drawing(7.5, 0.7 + 0.24 * len(rows)) as drawn:
        axes = drawn.axes
        values = [value for _, value in rows]
        if overall is not None:
            axes.axvspan(overall.low, overall.high, color=MODEL, alpha=0.12, linewidth=0)
            axes.axvline(overall.value, color=MODEL, linewidth=0.8)
        if zero:
            axes.axvline(0, color="#888888", linewidth=1)
        errors = [[value.value - value.low for value in values], [value.high - value.value for value in values]]
        axes.errorbar([value.value for value in values], range(len(rows)), xerr=errors, fmt="o", color=MODEL, markersize=4.5, elinewidth=1.2, capsize=2)
        _limit(axes, limit)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(label)
    return drawn.svg


def _limit(axes: object, limit: float | None) -> None:
    if limit is not None:
        axes.axvline(limit, color=LIMIT, linewidth=1.2, linestyle="--")  # type: ignore[attr-defined]
        axes.annotate("limit", (limit, 1), xycoords=("data", "axes fraction"), xytext=(3, -9), textcoords="offset points", fontsize=8, color=LIMIT)  # type: ignore[attr-defined]
