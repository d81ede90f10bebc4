"""A use case's folder is accepted whole or refused with file, line, key and remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components.contracts.errors import InvalidUseCase, Problem
from components.contracts.loading import load_usecase

FLIGHTS = Path(__file__).parents[3] / "usecases" / "flights"
Edit = Callable[[str, str, str], Path]


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """Copy the example with one text replaced in one of its files."""

    def edit(name: str, old: str, new: str) -> Path:
        folder = tmp_path / "flights"
        shutil.copytree(FLIGHTS, folder, ignore=shutil.ignore_patterns("tests", "__pycache__"))
        text = (folder / name).read_text()
        assert old in text, f"the example has no {old!r} any more; correct this test"
        (folder / name).write_text(text.replace(old, new, 1))
        return folder

    return edit


def problems(folder: Path) -> list[Problem]:
    with pytest.raises(InvalidUseCase) as refusal:
        load_usecase(folder)
    return refusal.value.problems


def line_of(file: Path, text: str) -> int:
    return next(number for number, line in enumerate(file.read_text().splitlines(), start=1) if text in line)


@pytest.mark.ml_test("data-1")
def test_the_example_is_accepted() -> None:
    assert load_usecase("flights").name == "flights"


def test_a_wrong_key_is_refused_with_the_nearest_right_one(edited: Edit) -> None:
    folder = edited("usecase.yaml", "cost_miss:", "cost_mis:")
    wrong = next(problem for problem in problems(folder) if problem.key == "business.cost_mis")
    assert (wrong.file, wrong.line) == (folder / "usecase.yaml", line_of(folder / "usecase.yaml", "cost_mis:"))
    assert wrong.message == "the key is unknown"
    assert "cost_miss" in wrong.remedy


def test_a_missing_key_is_refused_with_the_place_where_it_belongs(edited: Edit) -> None:
    folder = edited("usecase.yaml", "  currency: USD\n", "")
    (missing,) = problems(folder)
    assert missing.key == "business.currency"
    assert missing.line == line_of(folder / "usecase.yaml", "business:")
    assert "add `currency:`" in missing.remedy


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("seed: 20130331", "seed: early", "model.seed"),
        ("cooldown: 28d", "cooldown: a month", "retraining.cooldown"),
        ("run_mode: enabled", "run_mode: on", "retraining.run_mode"),
        ("minimum_rows: 5000", 'minimum_rows: "5000"', "business.success.minimum_rows"),
        ("cost_miss: 400.0", "cost_miss: -1.0", "business.cost_miss"),
    ],
)
def test_a_wrong_type_or_value_is_refused_with_what_was_found(edited: Edit, old: str, new: str, key: str) -> None:
    folder = edited("usecase.yaml", old, new)
    (wrong,) = problems(folder)
    assert wrong.key == key
    assert wrong.line == line_of(folder / "usecase.yaml", new)
    assert "found" in wrong.message and wrong.remedy


def test_yaml_that_cannot_be_read_is_refused_with_its_line(edited: Edit) -> None:
    folder = edited("usecase.yaml", "users: [rebooking desk,", "users: [rebooking desk, {,")
    (wrong,) = problems(folder)
    assert wrong.key == "yaml"
    assert wrong.line >= line_of(folder / "usecase.yaml", "users:")


@pytest.mark.parametrize(
    ("file", "old", "new", "key", "message"),
    [
        ("features.py", '"distance", "scheduled_minutes"', '"distance", "dep_delay", "scheduled_minutes"', "dep_delay", "after the prediction moment"),
        ("features.py", 'Latest(name="seats", column="seats")', 'Latest(name="seats", column="engines")', "seats", "no column 'engines'"),
        ("features.py", "    keyed_by_tick=True,\n", "", "airport_weather", "not keyed by tick"),
        ("features.py", 'name="origin_delay_2h"', 'name="temp"', "temp", "two features have this name"),
        ("features.py", 'table="planes"', 'table="aircraft"', "plane", "no table 'aircraft'"),
        ("usecase.yaml", "slice: origin", "slice: airport", "evaluation.gates.4.slice", "no slice is named 'airport'"),
        ("usecase.yaml", "{name: carrier, column: carrier}", "{name: carrier, column: airline}", "evaluation.slices.0.column", "no table has a column"),
        ("usecase.yaml", "check: feasibility", "check: prayer", "business.quality.risks.0.check", "the risk is uncovered"),
        ("usecase.yaml", "never_after: 28d", "never_after: 10d", "data.label.never_after", "closed before they can arrive"),
        ("usecase.yaml", "    delay: 15d", "    delay: 20d", "data.label.delay", "known at the latest"),
        ("usecase.yaml", "training_window: 90d", "training_window: 20d", "retraining.training_window", "is not longer than the test period"),
        ("usecase.yaml", "canary_steps: [5, 25, 50, 100]", "canary_steps: [5, 25, 50]", "deployment.canary_steps", "end at 100"),
        (
            "usecase.yaml",
            "column: carrier}\n    - {name: origin_mix",
            "column: route}\n    - {name: origin_mix",
            "monitoring.detectors.4.column",
            "not a request",
        ),
        ("usecase.yaml", "threshold: 15.0\n    group: outcome", "threshold: 15.0\n    group: departure", "data.label.column", "use one group"),
    ],
)
@pytest.mark.ml_test("data-1", "data-4")
def test_a_contradiction_is_refused_with_line_and_remedy(edited: Edit, file: str, old: str, new: str, key: str, message: str) -> None:
    folder = edited(file, old, new)
    found = [problem for problem in problems(folder) if problem.key.endswith(key) and message in f"{problem.message} {problem.remedy}"]
    assert found, problems(folder)
    assert found[0].file == folder / file
    assert found[0].line > 0
    assert found[0].remedy


@pytest.mark.ml_test("data-4", "data-5", "model-7")
def test_a_protected_column_is_no_feature(edited: Edit) -> None:
    folder = edited("usecase.yaml", "carrier: {type: category,", "carrier: {type: category, protected: true,")
    assert any("protected attribute" in problem.message for problem in problems(folder))


def test_every_breach_is_listed_not_only_the_first(edited: Edit) -> None:
    folder = edited("usecase.yaml", "cost_miss: 400.0", "cost_mis: 400.0")
    (folder / "usecase.yaml").write_text((folder / "usecase.yaml").read_text().replace("seed: 20130331", "seed: early"))
    assert {problem.key for problem in problems(folder)} == {"business.cost_mis", "business.cost_miss", "model.seed"}


@pytest.mark.ml_test("data-4")
def test_features_may_import_nothing_but_the_contracts(edited: Edit) -> None:
    folder = edited("features.py", "from datetime import timedelta\n", "from datetime import timedelta\nimport feast\n")
    (wrong,) = problems(folder)
    assert (wrong.key, wrong.line) == ("feast", line_of(folder / "features.py", "import feast"))


def test_a_mistake_in_a_feature_is_refused_at_its_line(edited: Edit) -> None:
    folder = edited("features.py", 'function="share_true"', 'function="median"')
    wrong = problems(folder)[0]
    assert wrong.file == folder / "features.py" and wrong.line > 0


def test_a_folder_without_features_is_refused(edited: Edit) -> None:
    folder = edited("usecase.yaml", "name: flights", "name: flights")
    (folder / "features.py").unlink()
    (wrong,) = problems(folder)
    assert wrong.key == "features.py"


def test_an_unknown_use_case_is_refused_with_the_way_to_a_new_one() -> None:
    with pytest.raises(InvalidUseCase, match=r"copy usecases/flights/usecase\.yaml"):
        load_usecase("ships")


def test_loading_imports_no_heavy_package() -> None:
    heavy = ["pandas", "numpy", "kfp", "mlflow", "feast", "xgboost", "pyarrow", "upath"]
    code = f"import sys; from components.contracts.loading import load_usecase; load_usecase('flights'); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
