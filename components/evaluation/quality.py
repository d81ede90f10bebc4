"""The Q of CRISP-ML(Q): every risk of every phase, the check that covers it, and the evidence that this evaluation has for it."""

from __future__ import annotations

from components.contracts.evaluation import GateReport
from components.contracts.loading import LoadedUseCase
from components.contracts.report_page import Badge, Block, Table, Text
from components.contracts.usecase import QUALITY_CHECKS, Quality
from components.evaluation.checks import CHECKS, check_of

PHASES = ("business", "data", "features", "model", "evaluation", "deployment", "monitoring", "retraining")


def quality_table(usecase: LoadedUseCase, gates: GateReport) -> list[Block]:
    """One row a risk. Checks of other phases leave their evidence as records of their own."""
    rows = []
    for phase in PHASES:
        quality: Quality = getattr(usecase.config, phase).quality
        for risk in quality.risks:
            badge, evidence = _evidence(gates, risk.check)
            rows.append([phase, risk.risk, risk.check, badge, evidence])
    text = "Every phase declares its risks; a risk without a check is refused when the use case is read."
    return [Text(text), Table(["phase", "risk", "check", "here", "evidence"], rows)]


def _evidence(gates: GateReport, check: str) -> tuple[Badge, str]:
    if check not in CHECKS:
        return Badge("info", "other phase"), f"record of kind check: {QUALITY_CHECKS[check]}"
    verdicts = [verdict for verdict in gates.verdicts if check_of(verdict) == check]
    if not verdicts:
        return Badge("warn", "not judged"), "measured, but no gate sets a limit"
    failed = [verdict for verdict in verdicts if verdict.outcome == "failed"]
    return Badge("bad", "failed") if failed else Badge("good", "passed"), "; ".join(verdict.why for verdict in failed or verdicts)
