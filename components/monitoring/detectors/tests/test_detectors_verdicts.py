"""What alarms and what does not, on data made for it, with alibi-detect itself."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.contracts.errors import CrisplineError, InvalidData
from components.contracts.usecase import Detector, Monitoring
from components.monitoring.detectors.alibi import AlibiDetect, load_library
from components.monitoring.detectors.base import PROBABILITY, DetectorResult
from components.monitoring.detectors.faults import FAULTS
from components.monitoring.detectors.fitting import MISSING_VALUES, DetectorSet, fit
from components.monitoring.drift import attribute_to_faults

pytestmark = pytest.mark.monitoring
WINDOW_START = "2013-04-04T00:00:00Z"
Period = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def fitted(period: Period, features: list[str], categorical: list[str], monitoring: Monitoring) -> DetectorSet:
    return fit("flights", "m1", monitoring, period(84, "2013-01-03T00:00:00Z", 1), features, categorical)


def alarms(results: list[DetectorResult]) -> dict[str, DetectorResult]:
    return {result.detector: result for result in results if result.alarm}


def test_another_week_of_the_same_process_is_no_alarm(fitted: DetectorSet, period: Period) -> None:
    assert alarms(fitted.test(period(7, WINDOW_START, 99))) == {}


def test_a_shift_of_one_feature_is_named_with_its_size(fitted: DetectorSet, period: Period) -> None:
    found = alarms(fitted.test(period(7, WINDOW_START, 99, shift=1.5)))
    assert found["features"].subject == "x0"
    assert "standard deviations" in found["features"].effect
    moved = next(part for part in found["features"].parts if part.part == "x0")
    assert moved.effect == pytest.approx(1.5 / np.sqrt(1.25), rel=0.25)


def test_what_the_predictions_say_alarms_when_it_moves(fitted: DetectorSet, period: Period) -> None:
    window = period(7, WINDOW_START, 99)
    window[PROBABILITY] = np.clip(window[PROBABILITY] + 0.25, 0, 1)
    assert {"predictions", "class_mix"} <= set(alarms(fitted.test(window)))


def test_a_change_of_the_carriers_mix_alarms_in_points(fitted: DetectorSet, period: Period) -> None:
    found = alarms(fitted.test(period(7, WINDOW_START, 99, carriers=(0.1, 0.3, 0.2, 0.4))))
    assert "carrier_mix" in found
    assert "origin_mix" not in found
    assert found["carrier_mix"].parts[0].effect == pytest.approx(30, abs=5)


def test_a_change_of_correlation_shows_in_the_joint_detector_only(fitted: DetectorSet, period: Period) -> None:
    assert set(alarms(fitted.test(period(7, WINDOW_START, 99, correlation=-0.6)))) == {"joint"}


def test_a_null_column_is_a_data_quality_fault_and_not_drift(fitted: DetectorSet, period: Period) -> None:
    window = period(7, WINDOW_START, 99)
    window["x2"] = np.nan
    window[PROBABILITY] = np.clip(window[PROBABILITY] + 0.3, 0, 1)  # what the fault does to the predictions
    results, attributed = attribute_to_faults(fitted.test(window))
    found = alarms(list(results))
    assert set(found) == {MISSING_VALUES}
    assert found[MISSING_VALUES].kind == "data_quality"
    assert found[MISSING_VALUES].subject == "x2"
    assert "predictions" in attributed


@pytest.mark.ml_test("monitoring-2")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda values, random: np.where(random.uniform(size=len(values)) < 0.4, 0.31, values), "stuck at 0.31"),
        (lambda values, _: values * 1.609344, "miles and kilometres"),
        (lambda values, _: (values - 32) / 1.8, "Celsius instead of Fahrenheit"),
        (lambda values, _: values / 1000, "a thousandfold prefix"),
    ],
)
def test_a_stuck_sensor_and_another_unit_are_faults_and_not_drift(
    period: Period, features: list[str], categorical: list[str], monitoring: Monitoring, fault: Callable[..., np.ndarray], said: str
) -> None:
    def measured(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(x2=60 + 15 * frame["x2"])  # a thermometer in Fahrenheit

    fitted = fit("flights", "m1", monitoring, measured(period(84, "2013-01-03T00:00:00Z", 1)), features, categorical)
    window = measured(period(7, WINDOW_START, 99))
    window["x2"] = fault(window["x2"].to_numpy(), np.random.default_rng(3))
    results, attributed = attribute_to_faults(fitted.test(window))
    found = alarms(list(results))
    assert set(found) == {FAULTS} and "features" in attributed
    assert (found[FAULTS].kind, found[FAULTS].subject) == ("data_quality", "x2") and said in found[FAULTS].effect


def test_drift_counts_by_what_it_does_to_the_predictions(fitted: DetectorSet, period: Period) -> None:
    """x0 is what the model uses most, x5 nothing that it uses: x5 moves further and comes last."""
    window = period(7, WINDOW_START, 99, shift=1.0)
    window["x5"] += 2.0
    found = alarms(fitted.test(window))["features"]
    relevance = {part.part: part.relevance for part in found.parts if part.alarm}
    effect = {part.part: part.effect for part in found.parts if part.alarm}
    assert effect["x5"] > effect["x0"]
    assert relevance["x0"] is not None and relevance["x5"] is not None
    assert relevance["x0"] > 5 > 2 > relevance["x5"]
    assert found.subject.split(", ")[0] == "x0" and "moves the predictions by" in found.effect


def test_drift_is_not_taken_for_a_fault(fitted: DetectorSet, period: Period) -> None:
    for seed in range(5):
        found = alarms(fitted.test(period(7, WINDOW_START, 200 + seed, shift=1.5)))
        assert "features" in found and FAULTS not in found


def test_a_fault_hides_no_drift_of_another_feature(fitted: DetectorSet, period: Period) -> None:
    window = period(7, WINDOW_START, 99, shift=1.5)
    window["x2"] = np.nan
    results, _ = attribute_to_faults(fitted.test(window))
    assert alarms(list(results))["features"].subject == "x0"


def test_a_single_missing_value_leaves_its_column_watched(fitted: DetectorSet, period: Period) -> None:
    window = period(7, WINDOW_START, 99, shift=1.5)
    window.loc[0, "x0"] = np.nan
    assert "x0" in alarms(fitted.test(window))["features"].subject


def test_an_unseen_category_alone_is_no_drift(fitted: DetectorSet, period: Period) -> None:
    window = period(7, WINDOW_START, 99)
    window.loc[window.index[:3], "carrier"] = "NEW"
    assert alarms(fitted.test(window)) == {}


def test_a_calendar_field_is_not_watched_by_rule(fitted: DetectorSet) -> None:
    assert set(fitted.file.excluded) == {"month"}


def test_weeks_that_vary_among_themselves_do_not_alarm_where_the_library_alone_does(
    features: list[str], categorical: list[str], monitoring: Monitoring, period: Period
) -> None:
    """Each week has a level of its own: rows are not independent, so alibi-detect's p-value fires every week; the calibrated limit does not."""
    reference, later = period(84, "2013-01-03T00:00:00Z", 5), period(84, "2013-04-04T00:00:00Z", 6)
    random = np.random.default_rng(0)
    for frame in (reference, later):
        week = ((frame["prediction_moment"] - frame["prediction_moment"].min()).dt.days // 7).to_numpy()
        frame["x5"] += 0.6 * random.normal(size=12)[week]
    fitted = fit("flights", "m1", monitoring, reference, features, categorical)
    weeks = [group for _, group in later.groupby((later["prediction_moment"] - later["prediction_moment"].min()).dt.days // 7)]
    ours = sum("features" in alarms(fitted.test(week)) for week in weeks)
    naive = sum(AlibiDetect().numeric(fitted.sample[["x5"]].to_numpy(), week[["x5"]].to_numpy())[0][1] < 0.05 for week in weeks)
    assert naive >= 9
    assert ours <= 2


def test_on_a_stationary_stream_the_promise_is_kept(features: list[str], categorical: list[str], monitoring: Monitoring, period: Period) -> None:
    """One false alarm in ten windows is promised; of 40 windows a binomial with that rate stays at 8 or fewer in 96% of cases."""
    alarmed = 0
    for seed in range(4):
        fitted = fit("flights", "m1", monitoring, period(84, "2013-01-03T00:00:00Z", 100 + seed, rows_a_day=40), features, categorical)
        for number in range(10):
            alarmed += bool(alarms(fitted.test(period(7, WINDOW_START, 1000 + 50 * seed + number, rows_a_day=40))))
    assert alarmed <= 8


def test_files_read_back_to_the_same_verdict(fitted: DetectorSet, period: Period, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    window = period(7, WINDOW_START, 99, shift=0.7)
    assert DetectorSet.load(tmp_path).test(window) == fitted.test(window)


def test_a_release_without_detectors_says_so(tmp_path: Path) -> None:
    with pytest.raises(CrisplineError, match="bundled without detectors"):
        DetectorSet.load(tmp_path)


def test_a_history_that_is_too_short_is_refused(features: list[str], categorical: list[str], monitoring: Monitoring, period: Period) -> None:
    with pytest.raises(InvalidData, match="at least 4 blocks"):
        fit("flights", "m1", monitoring, period(3, "2013-01-03T00:00:00Z", 1), features, categorical)


def test_a_promise_that_the_history_cannot_support_is_refused_with_what_it_could(
    features: list[str], categorical: list[str], monitoring: Monitoring, period: Period
) -> None:
    reference = period(84, "2013-01-03T00:00:00Z", 1, rows_a_day=40)
    strict = monitoring.model_copy(update={"false_alarms": 1000})
    with pytest.raises(InvalidData, match=r"one false alarm in 1000 windows, and \d+ blocks of history support one in (\d+)") as refused:
        fit("flights", "m1", strict, reference, features, categorical)
    supported = int(str(refused.value).split("promise at most ")[1].split(",")[0])
    assert 10 < supported < 1000
    fit("flights", "m1", monitoring.model_copy(update={"false_alarms": supported}), reference, features, categorical)


def test_a_history_of_days_gives_thresholds_from_days(features: list[str], categorical: list[str], monitoring: Monitoring, period: Period) -> None:
    fitted = fit("flights", "m1", monitoring, period(18, "2013-01-03T00:00:00Z", 1), features, categorical)
    assert {detector.calibration.block_length_seconds for detector in fitted.file.detectors} == {86_400.0}


def test_with_blocks_enough_the_limit_is_an_order_statistic(features: list[str], categorical: list[str], monitoring: Monitoring, period: Period) -> None:
    short = monitoring.model_copy(
        update={"window": timedelta(days=1), "minimum_rows": 30, "false_alarms": 4, "detectors": [Detector(name="features", subject="features")]}
    )
    fitted = fit("flights", "m1", short, period(60, "2013-01-03T00:00:00Z", 3, rows_a_day=60), features, categorical)
    calibration = fitted.file.detectors[0].calibration
    assert calibration.method == "order_statistic"
    assert sum(value > calibration.limit for value in calibration.values) <= calibration.alpha * (calibration.blocks + 1)


def test_an_unknown_segment_is_refused(features: list[str], categorical: list[str], monitoring: Monitoring, period: Period) -> None:
    wrong = monitoring.model_copy(update={"detectors": [Detector(name="tail_mix", subject="segment_mix", column="tailnum")]})
    with pytest.raises(CrisplineError, match="tailnum"):
        fit("flights", "m1", wrong, period(30, "2013-01-03T00:00:00Z", 1), features, categorical)


def test_the_distances_are_those_of_alibi_detect() -> None:
    random = np.random.default_rng(0)
    reference, window = random.normal(size=(500, 2)), random.normal(size=(300, 2)) + np.array([0.0, 1.0])
    expected = load_library().KSDrift(reference, p_val=0.05).predict(window, drift_type="feature")["data"]
    found = AlibiDetect().numeric(reference, window)
    assert [distance for distance, _ in found] == pytest.approx(list(expected["distance"]))
    assert [p_value for _, p_value in found] == pytest.approx(list(expected["p_val"]))
    assert AlibiDetect().categorical(np.array([0, 1, 1] * 50), np.array([2, 1, 1] * 50), 4)[1] < 1e-6
