"""`crispline scorecard`: the ML Test Score from the last test and pipeline runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform, usecases_root
from pipelines.runners.environments import ROOT
from pipelines.scorecard.catalogue import SECTIONS
from pipelines.scorecard.score import Scorecard, as_markdown, scorecard

Form = Literal["table", "markdown", "json"]


def show_scorecard(usecase: str, state: Path, form: Form) -> None:
    """Print the card. Without a state folder the checks of pipeline runs count as not run, and that is said."""
    folder = usecases_root() / usecase
    if not folder.is_dir():
        raise CrisplineError(f"there is no use case {usecase!r} under {usecases_root()}")
    there = (state / "platform.json").exists()
    card = scorecard(folder, ROOT, Platform.load(state / "platform.json") if there else None)
    if form == "markdown":
        print(as_markdown(card))
    elif form == "json":
        print(
            json.dumps(
                {"usecase": card.usecase, "score": card.score, "sections": {s: card.section(s) for s in SECTIONS}, "tests": [asdict(row) for row in card.rows]}
            )
        )
    else:
        _print(card)
        if not there:
            Console(stderr=True).print(
                f"{state} is no state folder, so checks of pipeline runs count as not run; name one with --state (make demo leaves .crispline/demo)"
            )


def _print(card: Scorecard) -> None:
    console = Console(highlight=False)
    for section, title in SECTIONS.items():
        table = Table(title=f"{title}: {card.section(section):g} of 7", title_justify="left", show_edge=False)
        for column in ("test", "points", "how"):
            table.add_column(column, justify="right" if column == "points" else "left")
        for row in card.rows:
            if row.test.section == section:
                table.add_row(escape(row.test.title), f"{row.points:g}", escape(row.how))
        console.print(table, "")
    console.print(f"[bold]ML Test Score of {card.usecase}: {card.score:g}[/bold] (the lowest section decides)")
