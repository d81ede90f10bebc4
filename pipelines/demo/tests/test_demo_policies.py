"""The comparison of policies: the same rows for each, by month, with nothing claimed beyond the figures."""

import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from pipelines.demo.policies import compare, monthly_moments, score

pytestmark = pytest.mark.pipeline

APRIL, JULY = datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 7, 1, tzinfo=UTC)


def scored() -> pd.DataFrame:
    """Four rows in April, four in May, one in June. `never` ranks April perfectly and May exactly wrong."""
    moments = ["2013-04-02", "2013-04-03", "2013-04-04", "2013-04-05", "2013-05-02", "2013-05-03", "2013-05-04", "2013-05-05", "2013-06-02"]
    return pd.DataFrame(
        {
            "entity": list("abcdefghi"),
            "moment": pd.to_datetime(moments, utc=True).astype("datetime64[us, UTC]"),
            "label": [True, True, False, False, True, True, False, False, True],
            "never": [0.9, 0.8, 0.2, 0.1, 0.1, 0.2, 0.8, 0.9, 0.5],
            "monthly": [0.9, 0.8, 0.2, 0.1, 0.9, 0.1, 0.2, 0.05, 0.5],
        }
    )


def served(entities: str, probability: float = 0.5) -> pd.DataFrame:
    return pd.DataFrame({"entity": list(entities), "probability": probability})


def test_only_rows_that_were_served_are_compared() -> None:
    comparison = compare(scored(), served("abcz"), 1, "roc_auc", 0.65)
    assert comparison.scores["entity"].tolist() == ["a", "b", "c"]
    assert comparison.rows == 3


def test_the_first_answer_to_an_entity_counts() -> None:
    twice = pd.DataFrame({"entity": ["a", "a"], "probability": [0.3, 0.7]})
    assert compare(scored(), twice, 0, "roc_auc", 0.65).scores["crispline"].tolist() == [0.3]


def test_each_month_has_its_own_value() -> None:
    months, values = compare(scored(), served("abcdefgh"), 2, "roc_auc", 0.65).by_month()
    assert months == ["Apr", "May"]
    # May, monthly: of the four pairs (late, on time), only the one of 0.1 and 0.2 is ranked wrongly.
    assert values == {"never": [1.0, 0.0], "monthly": [1.0, 0.75], "crispline": [0.5, 0.5]}


def test_a_month_with_one_class_has_no_value_and_does_not_enter_the_mean() -> None:
    comparison = compare(scored(), served("abcdefghi"), 0, "roc_auc", 0.65)
    assert math.isnan(comparison.by_month()[1]["never"][2])
    assert comparison.overall() == {"never": 0.5, "monthly": 0.875, "crispline": 0.5}


def test_trainings_are_counted_by_policy() -> None:
    comparison = compare(scored(), served("abcdefghi"), 3, "roc_auc", 0.65)
    assert comparison.runs == {"never": 0, "monthly": 2, "crispline": 3}
    sentence = comparison.sentence("AUC")
    assert "0.500 with 3 retrainings, 0.500 without any, and 0.875 with 2 monthly ones" in sentence


@pytest.mark.parametrize(("monthly", "word"), [(0.9, "hurt"), (0.1, "helped")])
def test_the_explanation_says_whether_monthly_retraining_paid(monthly: float, word: str) -> None:
    # One late and one punctual row; `never` ranks them right when monthly ranks them wrong, and the other way round.
    frame = scored().iloc[[0, 2]].assign(monthly=[1 - monthly, monthly], never=[monthly, 1 - monthly])
    explanation = compare(frame, served("ac"), 0, "roc_auc", 0.65).explanation()
    assert f"Retraining every month {word} here" in explanation
    assert f"Highest mean: {'never' if word == 'hurt' else 'monthly'}." in explanation


def test_average_precision_is_the_metric_when_it_was_promised() -> None:
    label, probability = pd.Series([True, False, True]), pd.Series([0.9, 0.8, 0.1])
    assert score("average_precision", label, probability) == pytest.approx((1 + 2 / 3) / 2)
    assert score("roc_auc", label, probability) == 0.5
    assert np.isnan(score("roc_auc", pd.Series([True, True]), pd.Series([0.1, 0.2])))


def test_monthly_training_happens_at_the_first_of_each_month_inside_the_replay() -> None:
    assert monthly_moments(APRIL, JULY) == [datetime(2013, 5, 1, tzinfo=UTC), datetime(2013, 6, 1, tzinfo=UTC)]
    assert monthly_moments(datetime(2013, 3, 2, tzinfo=UTC), datetime(2013, 3, 20, tzinfo=UTC)) == []
