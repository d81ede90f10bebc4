"""The steps at their edge: artifacts, records, champion bundles, pages in a browser; and slices, SHAP and the champion's contract."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.contracts.errors import CrisplineError
from components.contracts.evaluation import EvaluationResult, Reproduction
from components.contracts.features import FeatureSet
from components.contracts.loading import LoadedUseCase
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.contracts.usecase import Slice
from components.evaluation.checks import CHECKS
from components.evaluation.comparison import IncomparableChampion, load_champion, require_comparable
from components.evaluation.slices import parts_of
from components.evaluation.steps import run_evaluation, run_judge
from components.model_engineering.baseline import Baseline

pytestmark = pytest.mark.pipeline


@pytest.fixture(autouse=True)
def reproduction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of these tests come without the record of a training; test_evaluation_gates.py trains one twice."""
    again = Reproduction(same_bytes=True, largest_difference=0.0)
    monkeypatch.setattr("components.evaluation.evaluate.measure_reproduction", lambda *_: again)


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    embedded = Platform.embedded(tmp_path / "state")
    (tmp_path / "platform.json").write_text(embedded.model_dump_json())
    monkeypatch.setenv("CRISPLINE_PLATFORM", str(tmp_path / "platform.json"))
    return embedded


@pytest.fixture
def artifacts(world: Any, good_model: Path, tmp_path: Path) -> dict[str, Path]:
    world.dataset.to_parquet(tmp_path / "dataset")
    (tmp_path / "manifest").write_text(world.manifest.model_dump_json())
    Baseline(constant=0.3, intercept=-1.0, numeric={}, categorical={}).save(tmp_path / "baseline")
    return {"dataset": tmp_path / "dataset", "manifest": tmp_path / "manifest", "model": good_model, "baseline": tmp_path / "baseline"}


def outputs(folder: Path) -> dict[str, Path]:
    return {name: folder / "out" / name for name in ("evaluation", "report", "model_card")}


def bundle_of(usecase: LoadedUseCase, world: Any, model: Path, features: FeatureSet, bundles_uri: str) -> str:
    from components.deployment.bundle import REQUIRED_FILES, BundleFields, build_bundle

    files = dict.fromkeys(REQUIRED_FILES, b"{}") | {name: (model / name).read_bytes() for name in ("model.ubj", "calibrator.json", "model.json")}
    files["features.json"] = features.model_dump_json().encode()
    fields = BundleFields(
        usecase=usecase.name,
        model_version="m",
        data_version="d",
        dataset="d",
        feature_set=features.definition_hash,
        feature_views=tuple(view.served_name for view in features.views),
        gates_record="g",
        gates_passed=True,
        cause="",
        created=world.manifest.data_version.as_of,
    )
    return build_bundle(files, fields, bundles_uri)


def test_the_steps_write_result_pages_and_records(usecase: LoadedUseCase, platform: Platform, artifacts: dict[str, Path], tmp_path: Path) -> None:
    written = outputs(tmp_path)
    result = run_evaluation("flights", **artifacts, champion="", **written)
    assert EvaluationResult.model_validate_json(written["evaluation"].read_text()) == result
    assert run_judge("flights", evaluation=written["evaluation"], cause="first", gates=tmp_path / "gates") == "passed"
    assert run_judge("flights", evaluation=written["evaluation"], cause="first", gates=tmp_path / "gates") == "passed", "judging again changes nothing"
    store = RecordStore(platform.records_uri)
    assert [record.outcome for record in store.list("gates")] == ["passed"]
    assert len(list(store.list("check"))) == len(CHECKS)
    assert [record.outcome for record in store.list("evaluation")] == ["measured"]
    assert json.loads((tmp_path / "gates").read_text())["outcome"] == "passed"
    assert all(record.event_time == result.event_time for record in store.list("check"))


def test_the_champion_comes_from_its_release_bundle(
    usecase: LoadedUseCase, world: Any, platform: Platform, artifacts: dict[str, Path], train: Callable[..., Path], tmp_path: Path
) -> None:
    champion = bundle_of(usecase, world, train("subset", features=("carrier", "origin", "precip")), usecase.features, platform.bundles_uri)
    result = run_evaluation("flights", **artifacts, champion=champion, **outputs(tmp_path))
    comparison = result.comparison("champion")
    assert result.champion == champion
    assert comparison is not None
    assert comparison.rows == result.rows
    assert comparison.differences["roc_auc"].improvement.low > 0


def test_a_refusal_is_a_successful_run_with_a_record(platform: Platform, artifacts: dict[str, Path], train: Callable[..., Path], tmp_path: Path) -> None:
    written = outputs(tmp_path)
    run_evaluation("flights", **(artifacts | {"model": train("poor", features=("weekday",))}), champion="", **written)
    assert run_judge("flights", evaluation=written["evaluation"], cause="x", gates=tmp_path / "gates") == "failed"
    assert "The model is refused" in written["report"].read_text()
    assert next(RecordStore(platform.records_uri).list("gates")).reason.startswith("Refused by")


def test_a_champion_whose_feature_is_absent_is_an_error_that_names_it(
    usecase: LoadedUseCase, world: Any, platform: Platform, train: Callable[..., Path], tmp_path: Path
) -> None:
    champion = bundle_of(usecase, world, train("full"), usecase.features, platform.bundles_uri)
    columns = [name for name in world.dataset.columns if name != "precip"]
    with pytest.raises(IncomparableChampion, match="precip"):
        load_champion(platform.bundles_uri, champion, usecase.features, columns, tmp_path / "champion")


def test_a_champion_trained_on_another_definition_of_a_feature_is_an_error(usecase: LoadedUseCase) -> None:
    from datetime import timedelta

    old = usecase.features.model_copy(
        update={
            "views": tuple(
                view.model_copy(update={"max_staleness": timedelta(hours=1)}) if view.name == "airport_weather" else view for view in usecase.features.views
            )
        }
    )
    with pytest.raises(IncomparableChampion, match="another definition of temp"):
        require_comparable("r", ["carrier", "temp"], old, usecase.features, ["carrier", "temp"])
    require_comparable("r", ["carrier", "route_late_share"], old, usecase.features, ["carrier", "route_late_share"])


def test_a_test_split_with_one_class_is_an_error_with_the_remedy(world: Any, good_model: Path, evaluate: Callable[..., Any]) -> None:
    with pytest.raises(CrisplineError, match=r"lengthen model\.test_period"):
        evaluate(good_model, dataset=world.dataset.assign(label=pd.array([False] * len(world.dataset), dtype="boolean")))


def test_every_row_is_in_exactly_one_part_of_a_slice() -> None:
    frame = pd.DataFrame({"distance": [0.0, 500.0, 500.1, 9000.0, None], "carrier": ["AA", None, "UA", "AA", "UA"]})
    banded = dict(parts_of(frame, Slice(name="distance", column="distance", bands=[0, 500, 1000])))
    assert {name: rows.tolist().index(True) for name, rows in banded.items()} == {"0 to 500": 0, "500 to 1000": 2, "outside of the bands": 3, "missing": 4}
    assert sum(rows.sum() for rows in banded.values()) == 5
    assert sum(rows.sum() for _, rows in parts_of(frame, Slice(name="carrier", column="carrier"))) == 5


def test_shap_finds_what_the_data_was_made_of(good: EvaluationResult) -> None:
    truth = {"origin_delay_2h", "route_late_share", "precip", "carrier_delay_7d"}
    assert set(list(good.explanation.importance)[:4]) == truth
    assert all((good.explanation.direction[name] or 0) > 0.8 for name in truth)
    assert {each.slice for each in good.explanation.by_slice} >= {"carrier", "origin", "distance"}


def test_losing_a_feed_that_matters_costs_more_than_one_that_does_not(good: EvaluationResult) -> None:
    loss = {each.name: each.loss["roc_auc"] for each in good.robustness.disturbances}
    assert loss["airport_weather missing"].low > 0.01
    assert abs(loss["plane missing"].value) < 0.01
    assert loss["all feature views missing"].value > loss["airport_weather missing"].value


def test_a_measured_prediction_time_is_plausible(good: EvaluationResult) -> None:
    assert 0 < good.latency.one_row_median_ms <= good.latency.one_row_p95_ms
    assert good.latency.batch_median_ms > good.latency.one_row_median_ms
    assert good.latency.batch_rows == 1000


def test_the_pages_open_in_a_browser_without_a_network(platform: Platform, artifacts: dict[str, Path], tmp_path: Path) -> None:
    browser = next((found for found in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if found), None)
    written = outputs(tmp_path)
    run_evaluation("flights", **artifacts, champion="", **written)
    for name, headings in {"report": ("Gates", "Slices", "Quality risks"), "model_card": ("Intended use", "Ethical considerations", "Gates")}.items():
        text = written[name].read_text()
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", text.replace("http://www.w3.org", "")), "nothing is loaded from elsewhere"
        assert text.count("<svg") >= 3
        if browser is None:
            continue
        page = written[name].rename(tmp_path / f"{name}.html")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        assert all(f"<h2>{heading}</h2>" in shown for heading in headings)
    if browser is None:
        pytest.skip("no Chromium on this machine: the pages were not rendered")


def test_the_definitions_of_the_steps_match_the_implementation() -> None:
    from components.evaluation import component

    assert set(component.evaluate.component_spec.inputs) == {"usecase", "dataset", "manifest", "model", "baseline", "champion"}
    assert set(component.evaluate.component_spec.outputs) == {"evaluation", "report", "model_card"}
    assert set(component.judge.component_spec.inputs) == {"usecase", "evaluation", "cause"}
    assert set(component.judge.component_spec.outputs) == {"gates", "Output"}
