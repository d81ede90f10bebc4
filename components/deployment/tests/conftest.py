"""A platform of its own for each test, with releases and the gates records that they were judged by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.contracts.artifacts import DatasetManifest, DataVersion
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore
from components.deployment.assemble import assemble
from components.deployment.tests.example_release import CREATED, train


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform.embedded(tmp_path / "state")


def dataset_manifest() -> DatasetManifest:
    usecase = load_usecase("flights")
    return DatasetManifest(
        id="dataset-1",
        usecase="flights",
        data_version=DataVersion(id="data-1", usecase="flights", as_of=CREATED, tables={}),
        feature_set=usecase.features.definition_hash,
        rows=400,
        rows_by_split={"train": 400},
        label_share_by_split={"train": 0.5},
        outcomes={},
        boundaries={},
        content_hash="hash",
    )


def gates_record(version: str, outcome: str = "passed") -> Record:
    lineage = Lineage(data_version="data-1", dataset="dataset-1", model_version=version, cause="first")
    return Record(kind="gates", id=f"gates-{version}", usecase="flights", event_time=CREATED, outcome=outcome, reason="All gates passed.", lineage=lineage)


@pytest.fixture
def make_release(platform: Platform, tmp_path: Path) -> Callable[..., str]:
    """A release of a model of its own, assembled as the step does, its gates record stored."""

    def make(seed: int = 1, outcome: str = "passed", stored: str = "") -> str:
        parts = tmp_path / f"parts-{seed}-{outcome}"
        trained = train(load_usecase("flights"), parts / "model", seed)
        (parts / "detectors" / "detectors").mkdir(parents=True)
        for name in ("reference.parquet", "reference.json", "detectors/detectors.json"):
            (parts / "detectors" / name).write_bytes(name.encode())
        gates = gates_record(trained.version, outcome)
        if stored != "nothing":
            RecordStore(platform.records_uri).append(gates.model_copy(update={"outcome": stored or outcome}))
        for name, content in (("gates.json", gates.model_dump_json()), ("evaluation.json", "{}"), ("card.html", "<html></html>")):
            (parts / name).write_text(content)
        return assemble(
            platform,
            load_usecase("flights"),
            manifest=dataset_manifest(),
            model=parts / "model",
            evaluation=parts / "evaluation.json",
            gates=parts / "gates.json",
            detectors=parts / "detectors",
            model_card=parts / "card.html",
            cause="first",
            as_of=CREATED,
        )

    return make
