"""Whether the traffic shows the new weight yet. Git says what should be; between the commit and the splitter lie a reconciler and new pods.

Nothing but the traffic is asked, so every splitter is treated alike: calls counted between two readings are compared under the new weight
and under the old one (Page's cumulative sum of log-likelihood ratios, 1954, https://doi.org/10.1093/biomet/41.1-2.100). Under the old weight
the sum reaches ln(100) in fewer than one reading of a hundred; a start that is seen too early would only count a few calls too many.
"""

from __future__ import annotations

import math

LIMIT = math.log(100)
_FLOOR = 0.005  # a weight of 0 or 100 is taken as this far from it, so that one stray call decides nothing


def log_likelihood_ratio(challenger: int, champion: int, old_weight: int, new_weight: int) -> float:
    """ln of how much likelier these calls are under `new_weight` than under `old_weight` (percentages)."""
    old, new = (min(1 - _FLOOR, max(_FLOOR, weight / 100)) for weight in (old_weight, new_weight))
    return challenger * math.log(new / old) + champion * math.log((1 - new) / (1 - old))


def cumulated(before: float, challenger: int, champion: int, old_weight: int, new_weight: int) -> float:
    """Page's sum after one more reading; it starts at 0 and the weight is in effect from `LIMIT` on."""
    return max(0.0, before + log_likelihood_ratio(challenger, champion, old_weight, new_weight))
