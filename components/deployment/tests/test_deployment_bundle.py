"""A release is what its id says, bit for bit, or it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.contracts.serving import ServingContract
from components.contracts.storage import BlobStore, sha256
from components.deployment.bundle import REQUIRED_FILES, build_bundle, fetch_bundle, open_bundle, read_file, read_manifest, verify_bundle
from components.deployment.request_check import request_check
from components.deployment.tests.example_release import CREATED, build_release, release_files
from components.model_server.scoring import ScoringModel

pytestmark = pytest.mark.pipeline


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "bundles")


@pytest.fixture
def release(store: str) -> str:
    return build_release(store)


def test_the_same_release_has_the_same_id(store: str, release: str, tmp_path: Path) -> None:
    assert build_release(tmp_path / "elsewhere") == release == build_release(store)
    assert build_release(store, seed=8) != release
    assert build_release(store, gates_passed=False) != release


def test_what_is_fetched_is_what_was_built(store: str, release: str, tmp_path: Path) -> None:
    manifest = fetch_bundle(store, release, tmp_path / "release")
    assert open_bundle(tmp_path / "release") == (release, manifest)
    assert {name: sha256((tmp_path / "release" / name).read_bytes()) for name in manifest.files} == manifest.files
    assert set(REQUIRED_FILES) <= set(manifest.files) and manifest.model_version == "model-7"
    assert ScoringModel.load(tmp_path / "release").feature_names == load_usecase("flights").features.feature_names
    assert fetch_bundle(store, release, tmp_path / "release") == manifest


def test_a_changed_blob_is_not_fetched(store: str, release: str, tmp_path: Path) -> None:
    digest = read_manifest(store, release).files["model.ubj"]
    blob = Path(store) / digest[:2] / digest
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError, match="does not match its hash"):
        fetch_bundle(store, release, tmp_path / "release")
    assert not (tmp_path / "release").exists() and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(IntegrityError, match=r"model\.ubj"):
        verify_bundle(store, release)


def test_a_changed_manifest_is_not_read(store: str, release: str) -> None:
    blob = Path(store) / release[:2] / release
    blob.write_bytes(blob.read_bytes().replace(b'"gates_passed":true', b'"gates_passed":false'))
    with pytest.raises(IntegrityError):
        read_manifest(store, release)


@pytest.mark.parametrize("name", ["model.ubj", "serving.json", "detectors/detectors.json", "reference.json"])
def test_a_changed_file_in_a_fetched_folder_is_not_served(store: str, release: str, tmp_path: Path, name: str) -> None:
    fetch_bundle(store, release, tmp_path / "release")
    file = tmp_path / "release" / name
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=name):
        open_bundle(tmp_path / "release")


def test_a_file_that_is_absent_or_foreign_is_noticed(store: str, release: str, tmp_path: Path) -> None:
    fetch_bundle(store, release, tmp_path / "release")
    (tmp_path / "release" / "detectors" / "planted.pkl").write_bytes(b"code")
    with pytest.raises(IntegrityError, match=r"planted\.pkl"):
        open_bundle(tmp_path / "release")
    (tmp_path / "release" / "detectors" / "planted.pkl").unlink()
    (tmp_path / "release" / "calibrator.json").unlink()
    with pytest.raises(IntegrityError, match=r"calibrator\.json"):
        open_bundle(tmp_path / "release")


def test_a_folder_of_another_release_is_not_overwritten(store: str, release: str, tmp_path: Path) -> None:
    fetch_bundle(store, release, tmp_path / "release")
    with pytest.raises(IntegrityError, match="holds release"):
        fetch_bundle(store, build_release(store, seed=8), tmp_path / "release")


def test_a_release_without_a_required_file_is_not_built(store: str) -> None:
    files, _ = release_files(load_usecase("flights"))
    del files["gates.json"]
    with pytest.raises(CrisplineError, match=r"gates\.json"):
        build_bundle(files, None, store)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../b", "", "manifest.json", "a\\b", "./a"])
def test_a_name_that_leaves_the_bundle_is_refused(store: str, release: str, tmp_path: Path, name: str) -> None:
    with pytest.raises(IntegrityError):
        build_bundle({name: b""}, None, store)  # type: ignore[arg-type]
    document = json.loads(BlobStore(store).get(release))
    document["files"][name] = document["files"]["model.ubj"]
    planted = BlobStore(store).put(json.dumps(document).encode())
    with pytest.raises(IntegrityError):
        fetch_bundle(store, planted, tmp_path / "release")


@pytest.mark.parametrize("release", ["", "latest", "0" * 64, "../" * 21 + "x"])
def test_an_id_that_names_no_release_is_refused(store: str, release: str) -> None:
    with pytest.raises(IntegrityError):
        read_manifest(store, release)


def test_a_blob_that_is_no_manifest_is_no_release(store: str, release: str) -> None:
    with pytest.raises(IntegrityError, match="not the manifest"):
        read_manifest(store, read_manifest(store, release).files["serving.json"])


def test_an_assembled_release_carries_its_contract_and_evidence(platform: Platform, make_release: Callable[..., str]) -> None:
    release = make_release()
    contract = ServingContract.model_validate_json(read_file(platform.bundles_uri, release, "serving.json"))
    usecase = load_usecase("flights")
    assert contract.feature_set == usecase.features
    assert set(contract.columns) == set(usecase.features.feature_names) | set(usecase.features.join_keys)
    assert contract.columns["tailnum"].nullable and not contract.columns["route"].nullable
    assert contract.columns["temp"].nullable and contract.columns["origin_late_share_6h"].range == (0.0, 1.0)
    assert contract.lead_seconds == 7200 and contract.maximum_batch_rows == 2000
    assert json.loads(read_file(platform.bundles_uri, release, "gates.json"))["outcome"] == "passed"
    assert read_file(platform.bundles_uri, release, "usecase.yaml") == (usecase.folder / "usecase.yaml").read_bytes()


def test_a_new_release_leaves_evidence_that_its_contract_refuses_malformed_requests(platform: Platform, make_release: Callable[..., str]) -> None:
    release = make_release()
    found = [record for record in RecordStore(platform.records_uri).list("check") if record.details["check"] == "request_validation"]
    assert [(record.outcome, record.lineage.release, record.lineage.model_version) for record in found] == [("passed", release, "model-1")]
    assert found[0].details["misjudged"] == [] and int(str(found[0].inputs["requests"])) > 50


def test_a_contract_that_misjudges_requests_fails_the_check(platform: Platform, make_release: Callable[..., str]) -> None:
    content = read_file(platform.bundles_uri, make_release(), "serving.json")
    contract = ServingContract.model_validate_json(content).model_copy(update={"lead_seconds": -3600.0})
    record = request_check(contract, "release", "model", CREATED)
    assert record.outcome == "failed" and "instances[0].prediction_moment instead of accepted" in record.reason
