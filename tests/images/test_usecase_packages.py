"""A use case's own packages: added to an environment's, never changing one of them. The package index is a folder of small wheels."""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from pathlib import Path

import pytest

from components.contracts.errors import CrisplineError
from components.environments.names import ENVIRONMENTS
from pipelines.runners.environments import ROOT, environment_folder
from pipelines.usecase_packages import lock, requirement_files

PANDAS = re.search(r'^name = "pandas"\nversion = "(.+)"', (environment_folder("pipeline") / "uv.lock").read_text(), re.MULTILINE)


def _wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    stem = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {
        f"{name}.py": "",
        f"{stem}/METADATA": metadata,
        f"{stem}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode() for path, text in files.items()}
    files[f"{stem}/RECORD"] = "".join(f"{path},sha256={hashes.get(path, '')},{len(text)}\n" for path, text in files.items()) + f"{stem}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where uv looks for packages: it has pandas at the lock's version and at an older one."""
    assert PANDAS is not None
    folder = tmp_path / "index"
    folder.mkdir()
    for version in (PANDAS[1], "1.0"):
        _wheel(folder, "pandas", version)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return folder


def _usecase(folder: Path, environment: str, *requirements: str) -> Path:
    (folder / "requirements").mkdir(parents=True, exist_ok=True)
    (folder / "requirements" / f"{environment}.in").write_text("".join(f"{each}\n" for each in requirements))
    return folder


def test_a_package_more_is_locked_with_its_hash_beside_the_environments_own_versions(index: Path, tmp_path: Path) -> None:
    assert PANDAS is not None
    _wheel(index, "holidays_of_peru", "3.1", "pandas>=1")
    written = lock(_usecase(tmp_path / "peru", "pipeline", "holidays-of-peru"))
    assert written == [tmp_path / "peru" / "requirements" / "pipeline.txt"]
    text = written[0].read_text()
    wheel = next(index.glob("holidays_of_peru-*.whl"))
    assert f"holidays-of-peru==3.1 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}" in text
    assert f"pandas=={PANDAS[1]}" in text and "pandas==1.0" not in text


def test_a_package_that_needs_another_version_of_what_the_environment_has_is_refused(index: Path, tmp_path: Path) -> None:
    _wheel(index, "old_plots", "1.0", "pandas<2")
    usecase = _usecase(tmp_path / "old", "pipeline", "old-plots")
    with pytest.raises(CrisplineError, match=r"(?s)pipeline\.in cannot be met under the lock of the environment pipeline:.*pandas"):
        lock(usecase)
    assert not (usecase / "requirements" / "pipeline.txt").exists()


def test_a_list_for_an_environment_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CrisplineError, match=r"training\.in: there is no environment 'training'; the lists are pipeline\.in, serving\.in, monitoring\.in"):
        lock(_usecase(tmp_path / "wrong", "training", "numpy"))


def test_a_use_case_without_a_list_needs_nothing(tmp_path: Path) -> None:
    assert lock(tmp_path) == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_list_in_the_repository_is_locked_under_the_lock_as_it_is_now(environment: str) -> None:
    """Renew with `crispline packages lock`."""
    versions = dict(re.findall(r'^name = "(.+)"\nversion = "(.+)"', (environment_folder(environment) / "uv.lock").read_text(), re.MULTILINE))
    for source in requirement_files(ROOT / "usecases", environment, "in"):
        locked = dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", source.with_suffix(".txt").read_text(), re.MULTILINE))
        wanted = [line.split("#")[0].strip() for line in source.read_text().splitlines() if line.split("#")[0].strip()]
        assert wanted and all(re.split(r"[\[<>=!~; ]", each)[0].lower() in locked for each in wanted), source
        assert {name: version for name, version in locked.items() if versions.get(name, version) != version} == {}, source
