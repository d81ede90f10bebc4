"""Plots as inline SVG that follows the page's colours, with the same bytes for the same data. Needs matplotlib, imported only when a figure is drawn."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Muted, and told apart with any common colour vision (Wong 2011, https://doi.org/10.1038/nmeth.1618).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Stands for "the page's text colour" while matplotlib draws; it becomes currentColor, so a dark page gets light text and axes.
_INK = "#010203"


@dataclass
class Drawing:
    """What `drawing` hands out: matplotlib's figure and axes; `svg` is there once the block has ended."""

    figure: Any
    axes: Any
    svg: str = ""


@contextmanager
def drawing(width: float = 7.5, height: float = 3.0, rows: int = 1, columns: int = 1, solve_layout: bool = True) -> Iterator[Drawing]:
    """Draw in the block, read `.svg` after it.

    `width`, `height` in inches; `axes` is one Axes, or an array of them when `rows` or `columns` is above 1. `solve_layout`: fit margins to
    the texts; for dozens of axes that takes longer than drawing, so switch it off and call `figure.subplots_adjust`.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["system-ui", "DejaVu Sans"],
        "font.size": 9.0,
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.alpha": 0.18,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "legend.frameon": False,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "grid.color": _INK,
        "legend.labelcolor": _INK,
        "font.weight": "normal",
        "figure.constrained_layout.use": solve_layout,
    }
    import logging

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        drawn = Drawing(figure, figure.subplots(rows, columns))
        yield drawn
        drawn.svg = _svg(figure)


def _svg(figure: Any) -> str:
    import matplotlib

    first = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "crispline"}):
        figure.savefig(first, format="svg", metadata={"Date": None, "Creator": None})
    text = first.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL).replace(_INK, "currentColor")
    # Ids must be unique in a page of many figures: a prefix from the content.
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)
    return re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
