"""The rule: what live evidence must show for a canary to be raised, and what rolls it back. Pure functions of evidence and rule.

Looks. A stage is looked at when the challenger has had `first_look` calls, twice as many, four times, and so on. Look j may spend 1/(j(j+1))
of the error probability; these shares sum to 1 over any number of looks, so that looking often costs little and is accounted for.

Each criterion has a one-sided interval for its difference (challenger minus champion) and a margin, the difference that is acceptable:

- harm: the whole interval lies above the margin. One harmful criterion at any look of any stage rolls back, so the probability is divided:
  `false_rollback` is that of rolling back a challenger within all margins, over all criteria, stages and looks together.
- safe: the whole interval lies below the margin (non-inferiority). All criteria must be safe at the same look, from `minimum_requests` on, so
  nothing is divided among criteria; `false_advance` is the probability of raising a challenger that is outside of a margin, at each stage.
- unclear: neither. The stage goes on to the next look, at most for `patience`.

Performance is judged where labels came: it can be harmful, and it need not be safe, because most labels come after the canary has ended.
See docs/explanation/canary.md and benchmarks/canary_rule.py for the size and the power of this rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from components.contracts.durations import Duration, parse_duration
from components.contracts.usecase import Metric
from components.deployment.canary.intervals import Difference, Numbers, Stratum, distribution_distance, performance_loss, share_difference

Criterion = Literal["errors", "latency", "prediction_drift", "performance"]
# At weight 100 there is no champion beside the challenger that would tell a bad hour from a bad model, so it takes more to blame the model.
ALONE = 3.0
CRITERIA: tuple[Criterion, ...] = ("errors", "latency", "prediction_drift", "performance")
Says = Literal["harm", "safe", "unclear", "not_judged"]
Probability = Annotated[float, Field(gt=0, lt=0.5)]
Margin = Annotated[float, Field(gt=0, lt=1)]


class Rule(BaseModel):
    """Error probabilities, minimum samples and margins. Margins are points of share, a distance of distributions, or points of the metric."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    false_rollback: Probability = Field(default=0.05, description="probability of rolling back a challenger that is within all margins, over the whole canary")
    false_advance: Probability = Field(default=0.05, description="probability of raising a challenger that is outside of a margin, at one stage")
    first_look: int = Field(default=50, ge=10, description="calls of the challenger before it is looked at for harm")
    minimum_requests: int = Field(default=400, ge=10, description="calls of the challenger before a stage may be raised")
    minimum_labelled: int = Field(default=200, ge=20, description="labelled predictions of each model before performance is judged")
    error_margin: Margin = Field(default=0.02, description="share of calls without an answer (any status from 400 on) above the champion's")
    slow_seconds: float = Field(default=0.25, gt=0, description="a call that takes longer is slow; a bucket limit of the latency histogram")
    slow_margin: Margin = Field(default=0.05, description="share of slow calls above the champion's")
    drift_margin: Margin = Field(default=0.25, description="largest distance of the two distributions of predicted probabilities")
    performance_margin: Margin = Field(default=0.05, description="promised metric below the champion's, where labels came")
    minimum_hold: Duration = Field(default=parse_duration("10m"), description="shortest time at a stage, however much traffic there is")
    start_deadline: Duration = Field(default=parse_duration("30m"), description="time from the commit by which the traffic must show the new weight")
    patience: Duration = Field(default=parse_duration("7d"), description="longest time at a stage; what is not shown to be safe by then is rolled back")


@dataclass(frozen=True)
class Calls:
    """Calls of one predictor: how many, how many got no answer (any status from 400 on), how many were slow."""

    total: int
    errors: int
    slow: int


@dataclass(frozen=True)
class Evidence:
    """What one stage has shown so far.

    `challenger_probability`, `champion_probability`: one served probability a request [rows], because a request is what the splitter draws.
    `concurrent`: whether both had traffic at the same time; at weight 100 the champion's calls are those of the stage before, margins of
    errors and latency are `ALONE` times as wide, and predictions are not compared. `strata`: labelled rows of all stages so far.
    """

    challenger: Calls
    champion: Calls
    challenger_probability: Numbers
    champion_probability: Numbers
    concurrent: bool = True
    strata: Sequence[Stratum] = ()
    metric: Metric = "roc_auc"


@dataclass(frozen=True)
class Finding:
    """One criterion at one look. `low`, `high`: one-sided bounds of `difference`; NaN-free, None where nothing could be said."""

    criterion: Criterion
    says: Says
    margin: float
    sentence: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Verdict:
    """`safe`: everything that must be safe is; the stage may be raised once it has lasted `minimum_hold`."""

    look: int
    harmful: tuple[Finding, ...]
    safe: bool
    findings: tuple[Finding, ...]
    challenger: Calls = field(default=Calls(0, 0, 0))
    champion: Calls = field(default=Calls(0, 0, 0))

    @property
    def reason(self) -> str:
        """For the person who reads the record: what was harmful, else what is still open, else what was shown to be safe."""
        open_ones = () if self.safe else tuple(each for each in self.findings if each.says in ("unclear", "not_judged"))
        told = self.harmful or open_ones or tuple(each for each in self.findings if each.says == "safe")
        return "; ".join(each.sentence for each in told)

    def as_json(self) -> dict[str, JsonValue]:
        return {
            "look": self.look,
            "safe": self.safe,
            "challenger": asdict(self.challenger),
            "champion": asdict(self.champion),
            "findings": {each.criterion: {name: value for name, value in asdict(each).items() if name != "criterion"} for each in self.findings},
        }


def look_of(calls: int, rule: Rule) -> int:
    """The number of the look that so many calls allow: 0 before the first, then one more at each doubling."""
    return 0 if calls < rule.first_look else 1 + int(math.log2(calls / rule.first_look) + 1e-9)


def first_look(concurrent: bool, rule: Rule) -> int:
    """Calls of the challenger before the first look; alone it is not looked at before it may be raised."""
    return rule.first_look if concurrent else max(rule.first_look, rule.minimum_requests)


def spent(look: int) -> float:
    """Share of an error probability that look `look` (from 1) may spend; the shares of all looks sum to 1."""
    return 1 / (look * (look + 1))


def probabilities(look: int, stages: int, rule: Rule) -> tuple[float, float]:
    """Error probability of each lower bound (harm) and of each upper bound (safe) at a look of a canary with so many stages."""
    first_safe = look_of(max(rule.minimum_requests, rule.first_look), rule)
    return rule.false_rollback / (len(CRITERIA) * stages) * spent(look), rule.false_advance * spent(max(1, look - first_safe + 1))


def judge(evidence: Evidence, look: int, stages: int, rule: Rule) -> Verdict:
    """Judge one look (from 1) of one of `stages` stages."""
    alpha_low, alpha_high = probabilities(look, stages, rule)
    wider = 1.0 if evidence.concurrent else ALONE
    findings = (
        _share("errors", evidence, wider * rule.error_margin, alpha_low, alpha_high),
        _share("latency", evidence, wider * rule.slow_margin, alpha_low, alpha_high),
        _drift(evidence, rule, alpha_low, alpha_high),
        _performance(evidence, rule, alpha_low, alpha_high),
    )
    required = [each for each in findings if each.criterion != "performance" and (evidence.concurrent or each.criterion != "prediction_drift")]
    return Verdict(
        look=look,
        harmful=tuple(each for each in findings if each.says == "harm"),
        safe=evidence.challenger.total >= rule.minimum_requests
        and all(each.says == "safe" for each in required)
        and not any(each.says == "harm" for each in findings),
        findings=findings,
        challenger=evidence.challenger,
        champion=evidence.champion,
    )


def _share(criterion: Literal["errors", "latency"], evidence: Evidence, margin: float, alpha_low: float, alpha_high: float) -> Finding:
    what = "calls without an answer" if criterion == "errors" else "slow calls"
    challenger, champion = evidence.challenger, evidence.champion
    if not challenger.total or not champion.total:
        return Finding(criterion, "not_judged", margin, f"{what}: the {'champion' if challenger.total else 'challenger'} had no calls to compare with")
    x, y = (challenger.errors, champion.errors) if criterion == "errors" else (challenger.slow, champion.slow)
    found = share_difference((x, challenger.total), (y, champion.total), alpha_low, alpha_high)
    sentence = f"{what}: {x} of {challenger.total} against {y} of {champion.total} of the champion, {_points(found, margin)}"
    return Finding(criterion, _says(found, margin), margin, sentence, found.value, found.low, found.high)


def _drift(evidence: Evidence, rule: Rule, alpha_low: float, alpha_high: float) -> Finding:
    challenger, champion, margin = evidence.challenger_probability, evidence.champion_probability, rule.drift_margin
    if not evidence.concurrent:
        return Finding("prediction_drift", "not_judged", margin, "predictions: the champion has no traffic at weight 100 to compare with")
    if not len(challenger) or not len(champion):
        return Finding("prediction_drift", "not_judged", margin, f"predictions: {len(challenger)} and {len(champion)} of the champion are in the log")
    found = distribution_distance(challenger, champion, alpha_low, alpha_high)
    sentence = (
        f"predictions: distance {found.value:.3f} ({found.low:.3f} to {found.high:.3f}, margin {margin:g}), "
        f"mean {np.mean(challenger):.3f} against {np.mean(champion):.3f} in {len(challenger)} and {len(champion)} requests"
    )
    return Finding("prediction_drift", _says(found, margin), margin, sentence, found.value, found.low, found.high)


def _performance(evidence: Evidence, rule: Rule, alpha_low: float, alpha_high: float) -> Finding:
    margin = rule.performance_margin
    challenger = sum(len(stratum.challenger) for stratum in evidence.strata)
    champion = sum(len(stratum.champion) for stratum in evidence.strata)
    if min(challenger, champion) < rule.minimum_labelled:
        sentence = f"{evidence.metric}: {challenger} and {champion} labelled predictions, {rule.minimum_labelled} each are needed"
        return Finding("performance", "not_judged", margin, sentence)
    found = performance_loss(evidence.metric, evidence.strata, alpha_low, alpha_high)
    if found is None:
        return Finding("performance", "not_judged", margin, f"{evidence.metric}: one class only")
    sentence = f"{evidence.metric}: {found.value:+.3f} worse than the champion ({found.low:+.3f} to {found.high:+.3f}, margin {margin:g}), {challenger} and {champion} labelled"
    return Finding("performance", _says(found, margin), margin, sentence, found.value, found.low, found.high)


def _says(found: Difference, margin: float) -> Says:
    if found.low > margin:
        return "harm"
    return "safe" if found.high < margin else "unclear"


def _points(found: Difference, margin: float) -> str:
    return f"{100 * found.value:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f}, margin {100 * margin:g})"
