"""The plots of the loop's report, as inline SVG. Data in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from components.contracts.events import Performance
from components.contracts.figures import COLOURS, drawing

MEASURED, BAD, GOOD, ESTIMATED, WARN, CALM = COLOURS
QUIET = "#8a94a0"
LANES = ("alerts", "decisions", "trainings", "releases")
LANE_COLOURS = {
    "alert": WARN, "page": BAD, "retrain": MEASURED, "wait_for_labels": QUIET, "nothing": QUIET,
    "passed": GOOD, "failed": BAD, "promoted": GOOD, "rolled_back": BAD, "no_go": BAD, "duplicate": QUIET,
}  # fmt: skip


@dataclass(frozen=True)
class Happening:
    """Something on the timeline: a lane of `LANES`, when (business time), and its outcome, which gives the colour."""

    lane: str
    moment: datetime
    outcome: str


def timeline(performance: Sequence[Performance], happenings: Sequence[Happening], threshold: float, metric: str) -> str:
    """Live performance by window with interval and threshold, above lanes of what happened when."""
    import matplotlib.dates as dates

    with drawing(width=10.5, height=5.2, rows=2) as plot:
        top, lanes = plot.axes
        plot.figure.get_layout_engine().set(h_pad=0.02)
        top.get_gridspec().set_height_ratios((3, 1.3))
        for kind, colour, style, label in (
            ("estimated", ESTIMATED, "--", "estimated while labels are missing"),
            ("measured", MEASURED, "-", "measured once they came"),
        ):
            rows = sorted((row for row in performance if row.kind == kind), key=lambda row: (row.window_start, row.model_version))
            x = [_middle(row) for row in rows]
            top.fill_between(x, [row.low for row in rows], [row.high for row in rows], color=colour, alpha=0.14, linewidth=0)
            top.plot(x, [row.value for row in rows], style, color=colour, marker="o", markersize=4, linewidth=1.6, label=label)
        drifted = [row for row in performance if row.concept_drift]
        if drifted:
            top.scatter(
                [_middle(row) for row in drifted], [row.value for row in drifted], s=90, facecolors="none", edgecolors=BAD, linewidths=1.6,
                label="below what the inputs explain", zorder=5,
            )  # fmt: skip
        top.axhline(threshold, color=BAD, linewidth=1.3, linestyle=(0, (5, 3)))
        top.annotate(f"promised: {threshold:g}", (0.004, threshold), xycoords=("axes fraction", "data"), color=BAD, va="bottom")
        top.set_ylabel(metric.replace("_", " "))
        top.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3)
        for number, lane in enumerate(reversed(LANES)):
            for event in (event for event in happenings if event.lane == lane):
                lanes.scatter(
                    dates.date2num(event.moment),
                    number,
                    color=LANE_COLOURS.get(event.outcome, QUIET),
                    s=42,
                    marker="D" if lane == "releases" else "o",
                    zorder=3,
                )
        for event in (event for event in happenings if event.outcome == "promoted"):
            top.axvline(dates.date2num(event.moment), color=GOOD, linewidth=1.2, alpha=0.7)
        lanes.set_yticks(range(len(LANES)), list(reversed(LANES)))
        lanes.set_ylim(-0.6, len(LANES) - 0.4)
        moments = [_middle(row) for row in performance] + [float(dates.date2num(event.moment)) for event in happenings]
        for axes in (top, lanes):
            axes.xaxis.set_major_locator(dates.MonthLocator())
            axes.xaxis.set_major_formatter(dates.DateFormatter("%b"))
            if moments:
                axes.set_xlim(min(moments) - 4, max(moments) + 4)
    return plot.svg


def drift_heatmap(windows: Sequence[datetime], features: Sequence[str], ratios: npt.NDArray[np.float64]) -> str:
    """Drift statistic over its alarm threshold, shape (features, windows): 1 is the threshold, NaN is not tested."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("drift", [(0, "#e8f1fa"), (0.45, "#9cc3e6"), (0.5, "#f3b562"), (1, "#a63603")])
    with drawing(width=10.5, height=0.22 * len(features) + 0.9) as plot:
        image = plot.axes.imshow(np.clip(ratios, 0, 2), aspect="auto", cmap=colours, vmin=0, vmax=2, interpolation="nearest")
        plot.axes.grid(False)
        plot.axes.set_yticks(range(len(features)), list(features))
        firsts = [number for number, moment in enumerate(windows) if number == 0 or moment.month != windows[number - 1].month]
        plot.axes.set_xticks(firsts, [windows[number].strftime("%b") for number in firsts])
        bar = plot.figure.colorbar(image, ax=plot.axes, pad=0.01, fraction=0.025, ticks=[0, 1, 2])
        bar.ax.set_yticklabels(["none", "alarm", "twice"])
    return plot.svg


def policies(months: Sequence[str], values: Mapping[str, Sequence[float]], threshold: float, metric: str) -> str:
    """The promised metric by month under each retraining policy; NaN where there is none."""
    colours = {"never": QUIET, "monthly": WARN, "crispline": MEASURED}
    with drawing(width=10.5, height=2.9) as plot:
        for name, series in values.items():
            wide = 2.4 if name == "crispline" else 1.6
            plot.axes.plot(range(len(months)), list(series), color=colours.get(name, CALM), marker="o", markersize=5, linewidth=wide, label=name)
        plot.axes.axhline(threshold, color=BAD, linewidth=1.3, linestyle=(0, (5, 3)))
        plot.axes.set_xticks(range(len(months)), list(months))
        plot.axes.set_ylabel(metric.replace("_", " "))
        plot.axes.legend(ncols=len(values), loc="upper center", bbox_to_anchor=(0.5, 1.16))
    return plot.svg


def costs(months: Sequence[str], with_model: Sequence[float], without: Sequence[float], currency: str) -> str:
    """Cost per month of acting on the predictions beside that of never acting, in the use case's currency."""
    with drawing(width=10.5, height=2.4) as plot:
        x = np.arange(len(months))
        plot.axes.bar(x - 0.2, list(without), 0.38, color=QUIET, label="without predictions")
        plot.axes.bar(x + 0.2, list(with_model), 0.38, color=MEASURED, label="acting on predictions")
        plot.axes.set_xticks(x, list(months))
        plot.axes.set_ylabel(currency)
        plot.axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    return plot.svg


def _middle(row: Performance) -> float:
    import matplotlib.dates as dates

    return float(dates.date2num(row.window_start + (row.window_end - row.window_start) / 2))
