"""A point is given for what ran on this state of the code and passed, and for nothing else."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore
from pipelines.runners.environments import ROOT
from pipelines.scorecard.catalogue import ML_TESTS, SECTIONS
from pipelines.scorecard.kept_results import MarkedTest, keep, marked_tests, outcome_of
from pipelines.scorecard.score import as_markdown, by_hand, latest_checks, score, scorecard

SLICES = next(test for test in ML_TESTS if test.id == "model-6")
TUNED = next(test for test in ML_TESTS if test.id == "model-3")
A, B = MarkedTest("tests/test_a.py", "test_one", ("model-3",)), MarkedTest("tests/test_a.py", "test_two", ("model-3", "model-6"))


def check(name: str, outcome: str, model: str, minute: int) -> Record:
    return Record(
        kind="check", id=f"{name}-{minute}", usecase="flights", event_time=datetime(2013, 5, 1, 0, minute, tzinfo=UTC), outcome=outcome, reason="",
        details={"check": name}, lineage=Lineage(model_version=model),
    )  # fmt: skip


def test_the_catalogue_has_seven_tests_in_each_of_four_sections() -> None:
    assert [sum(test.section == section for test in ML_TESTS) for section in SECTIONS] == [7, 7, 7, 7]
    assert len({test.id for test in ML_TESTS}) == 28


def test_every_mark_in_the_sources_names_a_test_of_the_catalogue() -> None:
    known = {test.id for test in ML_TESTS}
    used = {id for test in marked_tests(ROOT) for id in test.ids}
    assert used and used <= known


@pytest.mark.parametrize(
    ("outcomes", "points"),
    [
        ({A: "passed", B: "passed"}, 1.0),
        ({A: "passed", B: "failed"}, 0.0),
        ({A: "passed", B: "skipped"}, 0.0),
        ({A: "passed", B: "not run"}, 0.0),
    ],
)
def test_all_that_automates_a_test_has_to_have_run_and_passed(outcomes: dict[MarkedTest, str], points: float) -> None:
    row = score(TUNED, outcomes, {}, {"model-3": "done by hand"})  # type: ignore[arg-type]
    assert row.points == points, "documentation does not make good what failed"


def test_a_check_that_did_not_run_or_failed_leaves_no_point() -> None:
    passed = {B: "passed"}
    assert score(SLICES, passed, {}, {}).points == 0.0  # type: ignore[arg-type]
    assert score(SLICES, passed, {"slices": check("slices", "failed", "m1", 1)}, {}).points == 0.0  # type: ignore[arg-type]
    assert score(SLICES, passed, {"slices": check("slices", "passed", "m1", 1)}, {}).points == 1.0  # type: ignore[arg-type]


def test_what_is_documented_counts_half_where_nothing_is_automated() -> None:
    assert score(TUNED, {}, {}, {"model-3": "a grid, in the notebook"}).points == 0.5
    assert score(TUNED, {}, {}, {}).points == 0.0


def test_a_refused_challenger_does_not_speak_for_the_champion(tmp_path: Path) -> None:
    store = RecordStore(Platform.embedded(tmp_path).records_uri)
    promotion = Record(
        kind="promotion",
        id="p",
        usecase="flights",
        event_time=datetime(2013, 4, 1, tzinfo=UTC),
        outcome="promoted",
        reason="",
        lineage=Lineage(model_version="m1"),
    )
    for record in (promotion, check("slices", "passed", "m1", 1), check("slices", "failed", "m2", 2)):
        store.append(record)
    assert latest_checks(Platform.embedded(tmp_path), "flights")["slices"].outcome == "passed"


def test_results_of_another_state_of_the_code_count_for_nothing(tmp_path: Path) -> None:
    source = tmp_path / "tests" / "test_it.py"
    source.parent.mkdir()
    source.write_text('import pytest\n\n\n@pytest.mark.ml_test("model-3")\n@pytest.mark.parametrize("n", [1, 2])\ndef test_it(n):\n    pass\n')
    (marked,) = marked_tests(tmp_path)
    assert outcome_of(tmp_path) == {marked: "not run"}
    keep(tmp_path, "root", {"tests/test_it.py::test_it[1]": "passed"})
    assert outcome_of(tmp_path) == {marked: "passed"}
    keep(tmp_path, "root", {"tests/test_it.py::test_it[2]": "failed"})
    assert outcome_of(tmp_path) == {marked: "failed"}, "one bad case counts for all"
    source.write_text(source.read_text() + "\n# changed\n")
    assert outcome_of(tmp_path) == {marked: "not run"}


def test_a_heading_without_text_documents_nothing(tmp_path: Path) -> None:
    (tmp_path / "ml-test-score.md").write_text("# By hand\n\n## data-2 All features\nMeasured.\n\n## model-3 Tuned\n\n## nonsense\nText\n")
    assert by_hand(tmp_path) == {"data-2": "Measured."}


def test_without_a_run_the_score_is_the_documented_part_and_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "usecases" / "mine"
    folder.mkdir(parents=True)
    card = scorecard(folder, tmp_path, None)
    assert card.score == 0.0
    text = as_markdown(card)
    assert "| Features and data | 0 |" in text and "check slices: not run" in text
    assert json.dumps(text)
