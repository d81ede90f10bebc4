"""What the decision threshold does to people and money."""

from __future__ import annotations

from components.contracts.evaluation import Decisions
from components.contracts.usecase import Business
from components.evaluation.metrics import Costs, Scored


def costs_of(business: Business) -> Costs:
    return Costs(false_alarm=business.cost_false_alarm, miss=business.cost_miss)


def decisions(scored: Scored) -> Decisions:
    """Shares decided positive: of all rows, of the positives, of the negatives (None where there are none)."""
    decided, label = scored.decided, scored.label
    return Decisions(
        positive_share=float(decided.mean()),
        true_positive_rate=float(decided[label].mean()) if label.any() else None,
        false_positive_rate=float(decided[~label].mean()) if not label.all() else None,
    )
