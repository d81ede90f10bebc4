"""A profile of a dataset for people: distributions, missing values, the label over time, and what goes along with the label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from components.contracts.artifacts import DatasetManifest
from components.contracts.errors import InvalidData
from components.contracts.figures import COLOURS, drawing
from components.contracts.loading import LoadedUseCase
from components.contracts.report_page import Block, Details, Facts, Figure, Section, Table, Text, Verdict, page
from components.contracts.usecase import Column
from components.model_engineering.rows import LabelledRows, encoding_of, feature_columns, labelled_rows
from components.understanding.signals import Signal, signals

COLUMNS = 4
SPLITS = ("train", "validation", "embargo", "test")


def profile_page(usecase: LoadedUseCase, dataset: pd.DataFrame, manifest: DatasetManifest) -> str:
    """One self-contained HTML page. Relations with the label are shown for the training and validation periods; the test period stays unseen
    apart from its label share. Without labels of both classes in either period the page says so in their place."""
    encoding = encoding_of(usecase)
    seen = dataset[dataset["split"].isin(["train", "validation"]) & dataset["label"].notna()]
    label = usecase.config.data.label.name
    try:
        found = signals(labelled_rows(dataset, "train"), labelled_rows(dataset, "validation"), encoding.feature_names, frozenset(encoding.categorical))
        labelled = [
            Section("Label over time", [_label_over_time(dataset, label)]),
            Section("What goes along with the label", _association(found)),
            Section("Distributions", _distributions(LabelledRows(seen, seen["label"].astype(bool).to_numpy().astype(np.float64)), found, label)),
        ]
    except InvalidData as error:
        labelled = [Section("What goes along with the label", [Verdict("bad", "There are too few labels to show anything about them.", str(error))])]
    fitting = dataset[dataset["split"].isin(["train", "validation"])]
    return page(
        f"Data profile: {usecase.name}",
        [
            Section("Rows", _rows(manifest)),
            *labelled,
            Section("Missing values", _missing(fitting, encoding.feature_names)),
            Section("Columns", [Details("Contract of each feature", [_contract(feature_columns(usecase), fitting)])]),
        ],
        subtitle=usecase.config.description,
        lead=[
            Facts(
                {
                    "Rows": manifest.rows,
                    "Labelled, seen here": len(seen),
                    f"Share of {label}": float(seen["label"].astype(float).mean()) if len(seen) else None,
                    "Features": len(encoding.feature_names),
                    "Data as of": manifest.data_version.as_of,
                    "Dataset": manifest.id,
                }
            )
        ],
        footer=f"Dataset {manifest.id}, content {manifest.content_hash}; data version {manifest.data_version.id}; feature set {manifest.feature_set}",
    )


def _rows(manifest: DatasetManifest) -> list[Block]:
    splits = [[name, manifest.rows_by_split[name], manifest.label_share_by_split.get(name)] for name in SPLITS if name in manifest.rows_by_split]
    outcomes = sorted(manifest.outcomes.items(), key=lambda item: -item[1])
    return [
        Table(["period", "rows", "label share"], splits, caption="Periods follow each other in time; the embargo keeps labels apart that are not yet known."),
        Table(
            ["outcome", "rows"], [[name, count] for name, count in outcomes], caption="Rows with another outcome than a label are counted, never trained on."
        ),
    ]


def _label_over_time(dataset: pd.DataFrame, label: str) -> Figure:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    rows = dataset[dataset["label"].notna()]
    day = rows["prediction_moment"].dt.floor("D")
    daily = rows.assign(day=day, positive=rows["label"].astype(float)).groupby("day")["positive"].agg(["mean", "size"])
    week = daily.assign(positive=daily["mean"] * daily["size"]).rolling("7D")[["positive", "size"]].sum()
    with drawing(7.5, 2.8) as plot:
        plot.axes.plot(daily.index, daily["mean"], ".", markersize=3.5, alpha=0.5, label="day")
        plot.axes.plot(week.index, week["positive"] / week["size"], color=COLOURS[1], label="last 7 days")
        starts = dataset.groupby("split")["prediction_moment"].min()
        for number, name in enumerate(name for name in SPLITS[1:] if name in starts):
            plot.axes.axvline(starts[name], color="#808080", linewidth=0.8, linestyle=":")
            plot.axes.annotate(f" {name}", (starts[name], 0.22 - 0.07 * number), xycoords=("data", "axes fraction"), va="top", fontsize=8, color="#808080")
        plot.axes.set_ylabel(f"share of {label}")
        plot.axes.set_ylim(0, 1.2 * float(daily["mean"].max()))
        plot.axes.legend(loc="upper left", ncols=2)
        locator = AutoDateLocator(maxticks=9)
        plot.axes.xaxis.set_major_locator(locator)
        plot.axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    caption = f"Share of {label} by day of the prediction, and over the last seven days. Dotted lines: a period begins."
    return Figure(plot.svg, caption)


def _association(found: Sequence[Signal]) -> list[Block]:
    shown = list(reversed(found))
    with drawing(7.5, 0.6 + 0.19 * len(found)) as plot:
        places = np.arange(len(shown))
        plot.axes.barh(places, [signal.later_auc - 0.5 for signal in shown], left=0.5, height=0.62, label="validation period")
        plot.axes.plot([signal.fitted_auc for signal in shown], places, "|", color=COLOURS[1], markersize=8, markeredgewidth=1.6, label="training period")
        plot.axes.set_yticks(places, [signal.feature for signal in shown])
        plot.axes.axvline(0.5, color="#808080", linewidth=0.8)
        plot.axes.set_xlabel("AUC of a rule on this feature alone")
        plot.axes.legend(loc="lower right")
        plot.axes.grid(visible=False, axis="y")
    table = Table(
        ["feature", "correlation", "information, bits", "AUC, training", "AUC, validation"],
        [[signal.feature, signal.correlation, signal.information, signal.fitted_auc, signal.later_auc] for signal in found],
        caption="Point-biserial correlation (numbers only), mutual information in ten bins, and the one-feature rule: label rates by bin of the training period.",
    )
    note = Text("A rule takes the label rates of ten bins, or of each category, from the training period. A bar left of 0.5 turned around in the later period.")
    return [note, Figure(plot.svg, "How well each feature alone ranks the rows."), Details("All figures", [table])]


def _missing(fitting: pd.DataFrame, features: Sequence[str]) -> list[Block]:
    shares = fitting[list(features)].isna().mean().sort_values()
    shares = shares[shares > 0]
    if shares.empty:
        return [Text("No feature has a missing value.")]
    with drawing(7.5, 0.6 + 0.2 * len(shares)) as plot:
        places = np.arange(len(shares))
        plot.axes.barh(places, 100 * shares.to_numpy(), height=0.62)
        plot.axes.set_yticks(places, list(shares.index))
        plot.axes.set_xlabel("% of rows")
        plot.axes.grid(visible=False, axis="y")
        for place, share in zip(places, shares, strict=True):
            plot.axes.annotate(f" {share:.1%}", (100 * share, place), va="center", fontsize=8)
        plot.axes.margins(x=0.12)
    return [Figure(plot.svg, f"Features with missing values; the other {len(features) - len(shares)} have none.")]


def _distributions(rows: LabelledRows, found: Sequence[Signal], label: str) -> list[Block]:
    height = -(-len(found) // COLUMNS)
    with drawing(9.0, 1.75 * height, rows=height, columns=COLUMNS, solve_layout=False) as plot:
        plot.figure.subplots_adjust(left=0.035, right=0.995, top=1 - 0.2 / height, bottom=0.3 / height, hspace=0.5, wspace=0.16)
        axes = np.atleast_1d(plot.axes).ravel()
        for axis, signal in zip(axes, found, strict=False):
            axis.set_title(signal.feature, fontsize=9)
            axis.tick_params(labelsize=7)
            if signal.category:
                _draw_category(axis, rows, signal.feature)
            else:
                _draw_number(axis, rows, signal.feature)
        for axis in axes[len(found) :]:
            axis.set_visible(False)
    caption = (
        f"Numbers: density with (orange) and without (blue) {label}, between the 0.5th and the 99.5th percentile. "
        f"Categories, most frequent first: bars are shares of rows, points the share of {label}."
    )
    return [Figure(plot.svg, caption)]


def _draw_number(axis: object, rows: LabelledRows, name: str) -> None:
    values = pd.to_numeric(rows.frame[name]).to_numpy(dtype=np.float64, na_value=np.nan)
    present = ~np.isnan(values)
    if not present.any():
        return
    low, high = np.quantile(values[present], [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, min(31, max(2, len(np.unique(values[present])) + 1)))
    for positive, colour in ((0.0, COLOURS[0]), (1.0, COLOURS[1])):
        part = values[present & (rows.label == positive)]
        density, _ = np.histogram(part, edges, density=True) if len(part) else (np.zeros(len(edges) - 1), edges)
        axis.stairs(np.nan_to_num(density), edges, color=colour, linewidth=1.2)  # type: ignore[attr-defined]
    axis.set_yticks([])  # type: ignore[attr-defined]


def _draw_category(axis: object, rows: LabelledRows, name: str) -> None:
    groups = (
        pd.DataFrame({"category": rows.frame[name].astype(object).fillna("missing"), "label": rows.label}).groupby("category")["label"].agg(["size", "mean"])
    )
    groups = groups.sort_values("size", ascending=False).head(16)
    places = np.arange(len(groups))
    axis.bar(places, groups["size"] / len(rows), alpha=0.45)  # type: ignore[attr-defined]
    axis.plot(places, groups["mean"], "o", markersize=3, color=COLOURS[1])  # type: ignore[attr-defined]
    axis.set_xticks(places, [str(name) for name in groups.index], rotation=90 if len(groups) > 5 else 0)  # type: ignore[attr-defined]


def _contract(columns: dict[str, Column | None], fitting: pd.DataFrame) -> Table:
    missing = {name: float(fitting[name].isna().mean()) for name in columns}
    rows = [
        [name, "number", "statistic of a history, see features.py", "", missing[name]]
        if column is None
        else [name, column.type, column.description, column.unit, missing[name]]
        for name, column in columns.items()
    ]
    return Table(["feature", "type", "meaning", "unit", "missing"], rows)
