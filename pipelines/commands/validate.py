"""`crispline validate`: every breach of the contract, or a word of what was checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from components.contracts.errors import InvalidUseCase
from components.contracts.loading import load_usecase
from components.contracts.platform import usecases_root


def validate_usecases(folders: Sequence[Path]) -> int:
    """Check the folders, or every use case where none is given; returns the exit code: 0, or 2 when one breaks the contract."""
    console, errors = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)
    chosen = list(folders) or sorted(file.parent for file in usecases_root().glob("*/usecase.yaml"))
    if not chosen:
        errors.print(f"[red]✗[/] no use case under {escape(str(usecases_root()))}; copy usecases/flights and change it")
        return InvalidUseCase.exit_code
    code = 0
    for folder in chosen:
        try:
            usecase = load_usecase(folder)
        except InvalidUseCase as error:
            code = error.exit_code
            count = len(error.problems)
            errors.print(f"[red]✗[/] {escape(str(folder))}: {count} {'problem' if count == 1 else 'problems'}")
            for problem in error.problems:
                place = f"{problem.file}:{problem.line}" if problem.line else str(problem.file)
                errors.print(f"  {escape(place)}: [bold]{escape(problem.key)}[/]: {escape(problem.message)}\n    [dim]remedy:[/] {escape(problem.remedy)}")
        else:
            views, gates = len(usecase.features.views), len(usecase.config.evaluation.gates)
            console.print(f"[green]✓[/] {escape(usecase.name)}: {len(usecase.config.data.tables)} tables, {views} feature views, {gates} gates")
    return code
