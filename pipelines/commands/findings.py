"""What a doctor finds, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `needed`: crispline does not work without it."""

    subject: str
    good: bool
    found: str
    remedy: str
    needed: bool = True


def tell(findings: Iterable[Finding]) -> int:
    """Print the findings on stdout as they come; returns 1 when something needed is missing."""
    console = Console(highlight=False, soft_wrap=True)
    missing = False
    for finding in findings:
        sign = "[green]✓[/]" if finding.good else "[red]✗[/]" if finding.needed else "[yellow]–[/]"
        console.print(f"{sign} {finding.subject:<24} {escape(finding.found)}")
        if not finding.good:
            console.print(f"    {escape(finding.remedy)}")
            missing = missing or finding.needed
    return 1 if missing else 0
