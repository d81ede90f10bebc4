"""How often the statistical gates say no, to models that deserve it and to models that do not.

    components/environments/pipeline/.venv/bin/python -m benchmarks.gate_power [--runs 200]

Whole test periods are simulated (14 days of 450 rows; the label's share and how well anything can be predicted vary from day to day, as one
day's weather does), scored by a champion and a challenger whose errors are correlated, and judged by the gates' own code with the limits of
usecases/flights. Size: how often a gate refuses what should pass. Power: how often it refuses what should not. A naive gate stands beside each:
the estimate against the same limit, and for slices one interval a part without correction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from components.contracts.evaluation import EvaluationResult
from components.contracts.loading import load_usecase
from components.contracts.usecase import Gate, Slice
from components.evaluation.bootstrap import DayBootstrap, FloatArray
from components.evaluation.comparison import Opponent, compare, compare_parts
from components.evaluation.gates import judge_gates
from components.evaluation.metrics import Scored, improvement, measure, samples_of
from components.evaluation.slices import measure_slices, parts_of

RESULT = Path(__file__).parent / "results" / "gate_power.md"
DAYS, ROWS_A_DAY, CARRIERS = 14, 450, 12
AUC, DAILY, CORRELATION = 0.70, 0.15, 0.9  # the champion's AUC; how its separation varies by day; correlation of the two models' errors
SLICES = [Slice(name="carrier", column="carrier", minimum_rows=200), Slice(name="origin", column="origin", minimum_rows=200)]


def world(random: np.random.Generator, loss: float, where: str = "") -> tuple[pd.DataFrame, Scored, Scored]:
    """(rows, challenger, champion): the challenger's AUC is lower by `loss`, everywhere or only at the origin `where`."""
    day = np.repeat(np.arange(DAYS), ROWS_A_DAY)
    frame = pd.DataFrame(
        {
            "event_time": pd.Timestamp("2013-03-01", tz="UTC") + pd.to_timedelta(day, unit="D"),
            "carrier": random.choice([f"C{number:02d}" for number in range(CARRIERS)], len(day)),
            "origin": random.choice(["EWR", "JFK", "LGA"], len(day)),
        }
    )
    label = random.random(len(day)) < norm.cdf(random.normal(-0.7, 0.3, DAYS))[day]
    lost = np.where(frame["origin"] == where, loss, 0.0) if where else np.full(len(day), loss)
    separation = np.sqrt(2) * norm.ppf(AUC - np.stack([lost, np.zeros(len(day))])) + random.normal(0, DAILY, DAYS)[day]
    shared, own = random.normal(size=len(day)), random.normal(size=(2, len(day)))
    score = separation * label + np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
    ours, theirs = (Scored.undecided(norm.cdf(each - 1.0), label) for each in score)
    return frame, ours, theirs


def judged(frame: pd.DataFrame, ours: Scored, theirs: Scored, gates: Sequence[Gate], seed: int) -> tuple[set[str], EvaluationResult, DayBootstrap]:
    """Names of the gates that refuse."""
    evaluation = load_usecase("flights").config.evaluation
    bootstrap = DayBootstrap.draw(frame["event_time"], evaluation.bootstrap_samples, evaluation.confidence, seed)
    parts = measure_slices(frame, ours, bootstrap, SLICES, ["roc_auc"])
    against = compare(ours, Opponent("champion", "champion", theirs), bootstrap, ["roc_auc"])
    losses = compare_parts(frame, ours, theirs, bootstrap, SLICES, parts, ["roc_auc"], evaluation.confidence)
    result = EvaluationResult.model_construct(
        champion="champion",
        metrics=measure(["roc_auc"], ours, bootstrap),
        slices=parts,
        comparisons=(against.model_copy(update={"parts": losses}),),
    )
    report = judge_gates(evaluation.model_copy(update={"gates": list(gates)}), result)
    return {verdict.name for verdict in report.verdicts if verdict.outcome == "failed"}, result, bootstrap


def uncorrected(frame: pd.DataFrame, ours: Scored, theirs: Scored, bootstrap: DayBootstrap, limit: float) -> bool:
    """Whether one interval a part, without correction, accuses any part."""
    for part in SLICES:
        for _, rows in parts_of(frame, part):
            inside = bootstrap.part(rows)
            loss: FloatArray = -improvement("roc_auc", samples_of("roc_auc", ours.part(rows), inside), samples_of("roc_auc", theirs.part(rows), inside))
            if np.quantile(loss[1:], 0.05) > limit:
                return True
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="simulated test periods per line")
    runs = parser.parse_args(arguments).runs
    gates = {gate.name: gate for gate in load_usecase("flights").config.evaluation.gates}
    champion, part = gates["not_worse_than_champion"], gates["no_slice_worse_than_champion"]
    whole = [0.0, 0.01, 0.02, champion.limit, 0.06, 0.08]
    lines = [
        f"# Size and power of the gates\n\nWritten by `python -m benchmarks.gate_power --runs {runs}`: {DAYS} days of {ROWS_A_DAY} rows, {CARRIERS + 3} parts, a champion with an AUC of {AUC:g}, "
        f"the errors of both models correlated by {CORRELATION:g}. ±: 95 % interval of the simulation.\n",
        f"## `{champion.name}` (at most {champion.limit:g} AUC worse, by the interval's upper end)\n",
        "| the challenger's loss of AUC | refused | refused by the estimate alone |\n|---|---|---|",
    ]
    for loss in whole:
        refused = by_estimate = 0
        for seed in range(runs):
            frame, ours, theirs = world(np.random.default_rng([seed, round(1000 * loss)]), loss)
            names, result, _ = judged(frame, ours, theirs, [champion], seed)
            refused += champion.name in names
            by_estimate += -result.comparisons[0].differences["roc_auc"].improvement.value > champion.limit
        lines.append(f"| {loss:g}{' (the limit)' if loss == champion.limit else ''} | {share(refused, runs)} | {share(by_estimate, runs)} |")
        print(lines[-1], flush=True)
    lines += [
        f"\n## `{part.name}` (no part worse by more than {part.limit:g} AUC beyond chance, all parts at once)\n",
        "| the challenger's loss of AUC at one of three origins | refused | refused without correction for the number of parts |\n|---|---|---|",
    ]
    for loss in (0.0, part.limit, 0.05, 0.1, 0.15, 0.2):
        refused = naive = 0
        for seed in range(runs):
            frame, ours, theirs = world(np.random.default_rng([seed, 7, round(1000 * loss)]), loss, where="JFK")
            names, _, bootstrap = judged(frame, ours, theirs, [part], seed)
            refused += part.name in names
            naive += uncorrected(frame, ours, theirs, bootstrap, part.limit)
        lines.append(f"| {loss:g}{' (the limit)' if loss == part.limit else ''} | {share(refused, runs)} | {share(naive, runs)} |")
        print(lines[-1], flush=True)
    RESULT.write_text("\n".join(lines) + "\n")
    return 0


def share(count: int, runs: int) -> str:
    p = count / runs
    return f"{p:.1%} ± {1.96 * np.sqrt(max(p * (1 - p), 1 / runs) / runs):.1%}"


if __name__ == "__main__":
    sys.exit(main())
