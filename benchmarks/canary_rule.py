"""Size and power of the canary's rule, by simulation of whole canaries through the very function that judges live ones.

    components/environments/pipeline/.venv/bin/python benchmarks/canary_rule.py [--runs 1000]

A canary runs through 5, 25, 50 and 100 %; the challenger is looked at when its calls double, as the controller does it. A scenario says what
the challenger does; a table says how often it was raised to the end and rolled back, and after how many calls of its own. A stage ends
undecided at `MOST` calls. Performance is measured apart, because its bootstrap costs a thousand times more than the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import norm

from components.deployment.canary.intervals import Labelled, Numbers, Stratum, performance_loss
from components.deployment.canary.judgement import CRITERIA, Calls, Evidence, Rule, first_look, judge, look_of, probabilities

RULE = Rule()
PLAN = (5, 25, 50, 100)
MOST = 3_200  # calls of the challenger at one stage
CHAMPION_ERRORS, CHAMPION_SLOW = 0.005, 0.02
RESULT = Path(__file__).parent / "results" / "canary_rule.md"


@dataclass(frozen=True)
class Scenario:
    """What the challenger does more than the champion: `errors` and `slow` in share of calls, `drift` as the exact distance of predictions.

    `bursts`: errors of both come in bursts (a dependency fails for everybody), so calls are not independent. `from_stage`: sound before.
    """

    name: str
    errors: float = 0.0
    slow: float = 0.0
    drift: float = 0.0
    bursts: bool = False
    from_stage: int = 0


SOUND = (
    Scenario("the same as the champion"),
    Scenario("half of each margin", errors=RULE.error_margin / 2, slow=RULE.slow_margin / 2, drift=RULE.drift_margin / 2),
    Scenario("exactly at all three margins", errors=RULE.error_margin, slow=RULE.slow_margin, drift=RULE.drift_margin),
    Scenario("the same, errors of both in bursts", bursts=True),
)
HARMFUL = (
    Scenario("errors +1 point above the margin", errors=RULE.error_margin + 0.01),
    Scenario("errors +5 points", errors=0.05),
    Scenario("errors +10 points", errors=0.10),
    Scenario("errors +50 points", errors=0.50),
    Scenario("answers nothing", errors=1 - CHAMPION_ERRORS),
    Scenario("slow calls +10 points", slow=0.10),
    Scenario("slow calls +20 points", slow=0.20),
    Scenario("predictions at distance 0.30", drift=0.30),
    Scenario("predictions at distance 0.40", drift=0.40),
    Scenario("predictions at distance 0.60", drift=0.60),
    Scenario("errors +10 points, from 50 % on", errors=0.10, from_stage=2),
)
MARGINS = (
    Scenario("errors", errors=RULE.error_margin),
    Scenario("slow calls", slow=RULE.slow_margin),
    Scenario("predictions", drift=RULE.drift_margin),
)


@dataclass(frozen=True)
class Ended:
    outcome: str  # raised, rolled back, undecided
    stage: int  # position in the plan
    calls: int  # of the challenger at that stage
    requests: int  # of everybody, over all stages


@dataclass(frozen=True)
class Stream:
    """One predictor's calls at one stage, in order: whether each failed, whether it was slow, what it predicted."""

    error: np.ndarray
    slow: np.ndarray
    probability: Numbers

    def calls(self, count: int) -> Calls:
        return Calls(count, int(self.error[:count].sum()), int(self.slow[:count].sum()))

    def answered(self, count: int) -> Numbers:
        return np.asarray(self.probability[:count][~self.error[:count]], dtype=np.float64)


def stream(random: np.random.Generator, count: int, errors: float, slow: float, drift: float, burst: np.ndarray | None) -> Stream:
    share = np.full(count, errors) if burst is None else errors + (1 - errors) * np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(burst)), burst)
    mixed = random.random(count) < drift  # a part that lies above everything the champion predicts: the distance is exactly that part
    probability = np.where(mixed, 2 + random.random(count), random.beta(2, 5, count))
    return Stream(random.random(count) < share, random.random(count) < slow, probability)


def canary(random: np.random.Generator, scenario: Scenario, stages: int = len(PLAN)) -> Ended:
    """One whole canary, or its first `stages` stages."""
    requests, before = 0, Calls(0, 0, 0)
    for stage, weight in enumerate(PLAN[:stages]):
        harmful = stage >= scenario.from_stage
        burst = np.where(random.random(60) < 0.03, random.uniform(0.1, 0.6, 60), 0.0) if scenario.bursts else None
        most = MOST * (100 - weight) // weight
        ours = stream(random, MOST, CHAMPION_ERRORS + scenario.errors * harmful, CHAMPION_SLOW + scenario.slow * harmful, scenario.drift * harmful, burst)
        theirs = stream(random, most, CHAMPION_ERRORS, CHAMPION_SLOW, 0.0, burst)
        outcome = "undecided"
        count = first_look(weight < 100, RULE)
        while count <= MOST:
            # The controller looks when it comes by, not exactly at the doubling.
            seen = min(MOST, count + int(random.integers(0, max(1, count // 4))))
            other = seen * (100 - weight) // weight
            concurrent = weight < 100
            evidence = Evidence(
                ours.calls(seen), theirs.calls(other) if concurrent else before, ours.answered(seen), theirs.answered(other), concurrent=concurrent
            )
            verdict = judge(evidence, look_of(seen, RULE), len(PLAN), RULE)
            if verdict.harmful or verdict.safe:
                outcome = "rolled back" if verdict.harmful else "raised"
                break
            count *= 2
        requests += seen + other
        before = evidence.champion
        if outcome != "raised":
            return Ended(outcome, stage, seen, requests)
    return Ended("raised", stages - 1, seen, requests)


def naive(random: np.random.Generator, scenario: Scenario) -> bool:
    """What one would do first: test errors, slow calls and predictions at p < 0.05 after every 50 calls, at one stage of 25 %."""
    from scipy.stats import fisher_exact, ks_2samp

    ours = stream(random, 1_600, CHAMPION_ERRORS + scenario.errors, CHAMPION_SLOW + scenario.slow, scenario.drift, None)
    theirs = stream(random, 4_800, CHAMPION_ERRORS, CHAMPION_SLOW, 0.0, None)
    for count in range(50, 1_601, 50):
        mine, other = ours.calls(count), theirs.calls(3 * count)
        pairs = ((mine.errors, other.errors), (mine.slow, other.slow))
        if any(fisher_exact([[x, count - x], [y, 3 * count - y]], alternative="greater").pvalue < 0.05 for x, y in pairs):
            return True
        if ks_2samp(ours.answered(count), theirs.answered(3 * count), method="asymp").pvalue < 0.05:
            return True
    return False


def labelled(random: np.random.Generator, count: int, auc: float, name: str) -> Labelled:
    label = (random.random(count) < 0.3).astype(np.int64)
    separation = float(np.sqrt(2) * norm.ppf(auc))
    return Labelled(label, random.normal(separation * label), np.array([f"{name}{number}" for number in range(count)]))


def performance(runs: int) -> list[str]:
    """Harm by labels at one look: champion AUC 0.70, three times as many labels of the champion."""
    lines = ["| challenger's AUC | loss | 400 labels | 1,000 labels | 4,000 labels |", "|---|---|---|---|---|"]
    for auc in (0.70, 0.65, 0.60, 0.50):
        cells = []
        for count in (400, 1_000, 4_000):
            random = np.random.default_rng(round(1_000 * auc) + count)
            alpha = probabilities(look_of(count, RULE), len(PLAN), RULE)
            found = 0
            for _ in range(runs):
                stratum = Stratum(labelled(random, count, auc, "a"), labelled(random, 3 * count, 0.70, "b"))
                loss = performance_loss("roc_auc", [stratum], *alpha)
                found += loss is not None and loss.low > RULE.performance_margin
            cells.append(f"{found / runs:.1%}")
        lines.append(f"| {auc:.2f} | {0.70 - auc:.2f} | " + " | ".join(cells) + " |")
    return lines


def table(scenarios: tuple[Scenario, ...], runs: int) -> list[str]:
    lines = [
        "| challenger | rolled back | raised to the end | undecided | its calls at the stage that ended it, median (95th percentile) | requests of everybody, median |",
        "|---|---|---|---|---|---|",
    ]
    for number, scenario in enumerate(scenarios):
        random = np.random.default_rng(1_000 + number)
        ended = [canary(random, scenario) for _ in range(runs)]
        calls = [each.calls for each in ended]
        cells = [share(ended, lambda each, word=word: each.outcome == word) for word in ("rolled back", "raised", "undecided")]  # type: ignore[misc]
        lines.append(
            f"| {scenario.name} | "
            + " | ".join(cells)
            + f" | {np.median(calls):,.0f} ({np.percentile(calls, 95):,.0f}) | {np.median([each.requests for each in ended]):,.0f} |"
        )
    return lines


def share(ended: list[Ended], holds: Callable[[Ended], bool]) -> str:
    found = sum(map(holds, ended)) / len(ended)
    return f"{found:.1%} ± {1.96 * (found * (1 - found) / len(ended)) ** 0.5:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    runs = parser.parse_args().runs
    random = np.random.default_rng(1)
    advances = []
    for scenario in MARGINS:
        ended = [canary(random, scenario, stages=1) for _ in range(runs)]
        advances.append(
            f"| {scenario.name} | {share(ended, lambda each: each.outcome == 'raised')} | {share(ended, lambda each: each.outcome == 'rolled back')} |"
        )
    few = max(50, runs // 5)
    alarms = sum(naive(random, SOUND[0]) for _ in range(few)) / few
    text = [
        "# Size and power of the canary's rule",
        "",
        f"Measured by `benchmarks/canary_rule.py --runs {runs}`: whole simulated canaries over the plan {list(PLAN)}, judged by the function that judges "
        f"live ones, with the default rule (false rollback {RULE.false_rollback:g}, false advance {RULE.false_advance:g}, first look {RULE.first_look}, minimum "
        f"{RULE.minimum_requests} calls; margins: errors {RULE.error_margin:g}, slow {RULE.slow_margin:g}, distance {RULE.drift_margin:g}, performance "
        f"{RULE.performance_margin:g}). The champion fails in {CHAMPION_ERRORS:.1%} and is slow in {CHAMPION_SLOW:.0%} of its calls. A stage ends undecided at "
        f"{MOST:,} calls of the challenger. ±: 95 % interval of the simulation.",
        "",
        "## Challengers that should not be rolled back",
        "",
        *table(SOUND, runs),
        "",
        f"For comparison: testing each of {len(CRITERIA) - 1} criteria at p < 0.05 after every 50 calls, up to 1,600 at one stage, rolls back a challenger that is "
        f"the same as the champion in {alarms:.0%} of {few} runs.",
        "",
        "## Challengers that should be rolled back",
        "",
        *table(HARMFUL, max(100, runs // 2)),
        "",
        "## Raised from the first stage although exactly at one margin",
        "",
        f"Allowed is {RULE.false_advance:.0%}.",
        "",
        "| at its margin | raised | rolled back |",
        "|---|---|---|",
        *advances,
        "",
        "## Labels",
        "",
        f"Rolled back at one look, champion's AUC 0.70, margin {RULE.performance_margin:g}, {few} runs each:",
        "",
        *performance(few),
    ]
    RESULT.write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
