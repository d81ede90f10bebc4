"""The rule sees what it should see, at error probabilities that hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from components.deployment.canary.intervals import Labelled, Stratum, distribution_distance, performance_loss, share_difference, share_limits
from components.deployment.canary.judgement import CRITERIA, Calls, Evidence, Rule, Verdict, first_look, judge, look_of, probabilities, spent

pytestmark = pytest.mark.pipeline
RULE, STAGES = Rule(), 4


def beta(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).beta(2, 5, count)


def evidence(challenger: Calls, champion: Calls, shift: float = 0.0, **more: object) -> Evidence:
    return Evidence(challenger, champion, np.clip(beta(challenger.total, 1) + shift, 0, 1), beta(champion.total, 2), **more)  # type: ignore[arg-type]


def says(verdict: Verdict) -> dict[str, str]:
    return {finding.criterion: finding.says for finding in verdict.findings}


def labelled(count: int, separation: float, seed: int, request: np.ndarray | None = None) -> Labelled:
    """Labels with a base rate of 0.3 and scores whose AUC is Phi(separation / sqrt 2)."""
    random = np.random.default_rng(seed)
    label = (random.random(count) < 0.3).astype(np.int64)
    names = np.array([f"{seed}-{number}" for number in range(count)]) if request is None else request
    return Labelled(label, random.normal(separation * label), names)


# --- looks and what they may spend -------------------------------------------------------------------------------------------------------


def test_a_look_is_due_at_every_doubling() -> None:
    assert [look_of(calls, RULE) for calls in (0, 49, 50, 99, 100, 199, 200, 400, 800, 1_600)] == [0, 0, 1, 1, 2, 2, 3, 4, 5, 6]


def test_any_number_of_looks_spends_no_more_than_the_whole() -> None:
    assert 0.99 < sum(spent(look) for look in range(1, 10_000)) < 1


def test_all_criteria_stages_and_looks_together_spend_the_declared_probability_of_a_false_rollback() -> None:
    total = sum(probabilities(look, STAGES, RULE)[0] for look in range(1, 10_000)) * len(CRITERIA) * STAGES
    assert total == pytest.approx(RULE.false_rollback, rel=1e-3)


def test_the_probability_of_a_false_advance_is_spent_from_the_first_look_on_that_may_raise() -> None:
    from_there = [probabilities(look, STAGES, RULE)[1] for look in range(look_of(RULE.minimum_requests, RULE), 10_000)]
    assert sum(from_there) == pytest.approx(RULE.false_advance, rel=1e-3) and from_there[0] == RULE.false_advance / 2


@pytest.mark.parametrize("wrong", [{"false_rollback": 0.0}, {"error_margin": 1.0}, {"minimum_hold": "10"}, {"first_look": 1}, {"unknown": 1}])
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Rule.model_validate(wrong)


# --- what is seen ------------------------------------------------------------------------------------------------------------------------


def test_an_equal_challenger_is_safe_at_the_minimum_sample() -> None:
    verdict = judge(evidence(Calls(400, 0, 4), Calls(7_600, 0, 76)), 4, STAGES, RULE)
    assert verdict.safe and not verdict.harmful
    assert says(verdict) == {"errors": "safe", "latency": "safe", "prediction_drift": "safe", "performance": "not_judged"}


def test_below_the_minimum_sample_nothing_is_raised() -> None:
    assert not judge(evidence(Calls(399, 0, 0), Calls(40_000, 0, 0)), 3, STAGES, RULE).safe


def test_a_challenger_that_answers_nothing_is_harmful_at_the_first_look() -> None:
    verdict = judge(Evidence(Calls(50, 50, 0), Calls(950, 2, 9), np.array([]), beta(948, 2)), 1, STAGES, RULE)
    assert [finding.criterion for finding in verdict.harmful] == ["errors"] and not verdict.safe
    assert "50 of 50 against 2 of 950" in verdict.reason
    assert says(verdict)["prediction_drift"] == "not_judged"


def test_a_slow_challenger_is_harmful() -> None:
    assert says(judge(evidence(Calls(200, 0, 60), Calls(3_800, 0, 76)), 3, STAGES, RULE))["latency"] == "harm"


def test_a_challenger_that_predicts_something_else_on_the_same_traffic_is_harmful() -> None:
    verdict = judge(evidence(Calls(400, 0, 0), Calls(1_200, 0, 0), shift=0.35), 4, STAGES, RULE)
    assert says(verdict)["prediction_drift"] == "harm" and "mean" in verdict.reason


def test_a_difference_within_the_margin_is_not_harmful_however_sure_it_is() -> None:
    verdict = judge(evidence(Calls(500_000, 5_000, 0), Calls(500_000, 500, 0)), 10, STAGES, RULE)
    finding = next(each for each in verdict.findings if each.criterion == "errors")
    assert finding.says == "safe" and finding.low is not None and finding.low > 0


def test_at_weight_100_predictions_are_not_compared_and_need_not_be_safe() -> None:
    verdict = judge(evidence(Calls(800, 0, 8), Calls(400, 0, 4), shift=0.5, concurrent=False), 5, STAGES, RULE)
    assert verdict.safe and says(verdict)["prediction_drift"] == "not_judged"


def test_at_weight_100_it_takes_more_to_blame_the_model_for_a_bad_hour() -> None:
    bad_hour = Calls(800, 60, 8), Calls(400, 2, 4)
    assert says(judge(evidence(*bad_hour), 5, STAGES, RULE))["errors"] == "harm"
    assert says(judge(evidence(*bad_hour, concurrent=False), 5, STAGES, RULE))["errors"] != "harm"
    assert says(judge(evidence(Calls(800, 400, 8), Calls(400, 2, 4), concurrent=False), 5, STAGES, RULE))["errors"] == "harm"
    assert first_look(True, RULE) == RULE.first_look and first_look(False, RULE) == RULE.minimum_requests


def test_without_a_champion_to_compare_with_nothing_is_raised() -> None:
    assert not judge(evidence(Calls(800, 0, 0), Calls(0, 0, 0)), 5, STAGES, RULE).safe


def test_labels_that_came_can_roll_back_and_need_not_be_there() -> None:
    worse = [Stratum(labelled(1_500, 0.0, 1), labelled(3_000, 1.2, 2))]
    verdict = judge(evidence(Calls(800, 0, 0), Calls(2_400, 0, 0), strata=worse), 5, STAGES, RULE)
    assert [finding.criterion for finding in verdict.harmful] == ["performance"] and not verdict.safe
    same = [Stratum(labelled(1_500, 1.2, 1), labelled(3_000, 1.2, 2))]
    verdict = judge(evidence(Calls(800, 0, 0), Calls(2_400, 0, 0), strata=same), 5, STAGES, RULE)
    assert verdict.safe and not verdict.harmful


def test_too_few_labels_are_not_judged() -> None:
    few = [Stratum(labelled(199, 0.0, 1), labelled(3_000, 1.2, 2))]
    assert says(judge(evidence(Calls(800, 0, 0), Calls(2_400, 0, 0), strata=few), 5, STAGES, RULE))["performance"] == "not_judged"


@given(st.integers(1, 400), st.integers(1, 4_000), st.data(), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_nothing_is_harmful_and_safe_at_once(n: int, m: int, data: st.DataObject, look: int) -> None:
    x, y = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    verdict = judge(evidence(Calls(n, x, 0), Calls(m, y, 0)), look, STAGES, RULE)
    assert not (verdict.safe and verdict.harmful)
    for finding in verdict.findings:
        if finding.difference is not None and finding.low is not None and finding.high is not None:
            assert finding.low <= finding.difference <= finding.high


# --- the bounds hold what they promise ---------------------------------------------------------------------------------------------------


def test_exact_limits_are_those_of_the_textbook() -> None:
    low, high = share_limits(0, 400, 0.05)
    assert low == 0 and high == pytest.approx(1 - 0.05 ** (1 / 400))


@pytest.mark.parametrize(("p", "q", "n", "m"), [(0.005, 0.005, 400, 7_600), (0.03, 0.01, 400, 1_200), (0.2, 0.2, 50, 950), (0.5, 0.45, 200, 200)])
def test_the_bounds_of_a_difference_of_shares_fail_no_more_often_than_they_may(p: float, q: float, n: int, m: int) -> None:
    random, runs, alpha = np.random.default_rng(3), 1_500, 0.05
    found = [share_difference((int(x), n), (int(y), m), alpha, alpha) for x, y in zip(random.binomial(n, p, runs), random.binomial(m, q, runs), strict=True)]
    allowed = alpha + 3 * (alpha * (1 - alpha) / runs) ** 0.5
    assert sum(each.low > p - q for each in found) / runs <= allowed
    assert sum(each.high < p - q for each in found) / runs <= allowed


def test_the_band_of_the_distance_holds_at_the_margin() -> None:
    """The challenger is a mixture whose distance from the champion is exactly 0.25."""
    random, runs, alpha = np.random.default_rng(4), 200, 0.05
    low = high = 0
    for _ in range(runs):
        challenger = np.where(random.random(400) < 0.25, 2 + random.random(400), random.beta(2, 5, 400))
        found = distribution_distance(challenger, random.beta(2, 5, 1_200), alpha, alpha)
        low, high = low + (found.low > 0.25), high + (found.high < 0.25)
    assert low / runs <= alpha and high / runs <= alpha


@pytest.mark.parametrize("paired", [False, True])
def test_the_error_of_a_loss_in_performance_is_that_of_repeated_samples(paired: bool) -> None:
    """One bootstrap against a hundred and fifty samples; benchmarks/canary_rule.py measures what the bounds do with it."""
    one, other = (float(np.sqrt(2) * norm.ppf(auc)) for auc in (0.75, 0.70))

    def sample(seed: int) -> Stratum:
        champion = labelled(600, one, 2 * seed)
        if not paired:
            return Stratum(labelled(600, other, 2 * seed + 1), champion)
        noise = np.random.default_rng(seed).normal(size=600)
        similar = other * champion.label + 0.8 * (champion.probability - one * champion.label) + 0.6 * noise
        return Stratum(Labelled(champion.label, similar, champion.request), champion, paired=True)

    repeated = [
        roc_auc_score(found.champion.label, found.champion.probability) - roc_auc_score(found.challenger.label, found.challenger.probability)
        for found in map(sample, range(150))
    ]
    half = float(norm.sf(1))  # an alpha whose bound lies one standard error away
    found = performance_loss("roc_auc", [sample(1_000)], half, half)
    assert found is not None
    assert np.mean(repeated) == pytest.approx(0.05, abs=0.01)
    assert found.high - found.value == pytest.approx(found.value - found.low)
    assert found.high - found.value == pytest.approx(float(np.std(repeated, ddof=1)), rel=0.3)


def test_rows_of_one_request_do_not_count_as_independent() -> None:
    """The same rows, sent by 30 requests instead of 600: what is known about the loss is less."""
    champion, challenger = labelled(600, 1.0, 1), labelled(600, 1.0, 2)
    together = np.array([str(number // 20) for number in range(600)])
    order = np.argsort(challenger.probability)  # rows of one request resemble each other
    clustered = Labelled(challenger.label[order], challenger.probability[order], together)
    alone = Labelled(challenger.label[order], challenger.probability[order], np.arange(600).astype(str))
    wide = performance_loss("roc_auc", [Stratum(clustered, champion)], 0.05, 0.05)
    narrow = performance_loss("roc_auc", [Stratum(alone, champion)], 0.05, 0.05)
    assert wide is not None and narrow is not None and wide.value == narrow.value and wide.low < narrow.low


def test_stages_are_compared_one_by_one() -> None:
    """Both models are equal, but the second stage is harder and has more of the challenger: pooled rows would blame the challenger."""
    easy = Stratum(labelled(300, 2.0, 1), labelled(3_000, 2.0, 2))
    hard = Stratum(labelled(3_000, 0.3, 3), labelled(3_000, 0.3, 4))
    found = performance_loss("roc_auc", [easy, hard], 0.05, 0.05)
    pooled = [
        Stratum(
            *(
                Labelled(*(np.concatenate(part) for part in zip(*((a.label, a.probability, a.request) for a in arm), strict=True)))
                for arm in ((easy.challenger, hard.challenger), (easy.champion, hard.champion))
            )
        )
    ]
    blamed = performance_loss("roc_auc", pooled, 0.05, 0.05)
    assert found is not None and blamed is not None
    assert abs(found.value) < 0.03 < blamed.value


def test_a_stage_with_one_class_says_nothing() -> None:
    one_class = labelled(300, 1.0, 1)
    nothing = Labelled(np.zeros(300, dtype=np.int64), one_class.probability, one_class.request)
    assert performance_loss("roc_auc", [Stratum(nothing, labelled(300, 1.0, 2))], 0.05, 0.05) is None
