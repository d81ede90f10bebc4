"""Each test file runs in the environment that it names: `pytestmark = pytest.mark.<environment>`; without a mark, in the root environment."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_MARK = re.compile(r"^pytestmark\s*=.*pytest\.mark\.(pipeline|serving|monitoring)\b", re.MULTILINE)


def _environment_of_this_process() -> str:
    prefix = Path(sys.prefix)
    return prefix.parent.name if prefix.parent.parent.name == "environments" else "root"


def _environment_of(test_file: Path) -> str:
    mark = _MARK.search(test_file.read_text())
    return mark[1] if mark else "root"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out files of other environments, and folders that hold nothing else: their conftest.py may import what is not installed here."""
    here = _environment_of_this_process()
    if collection_path.is_dir():
        if ".venv" in collection_path.parts:
            return True
        files = [file for file in collection_path.rglob("test_*.py") if ".venv" not in file.parts]
        return True if files and all(_environment_of(file) != here for file in files) else None
    if collection_path.suffix == ".py" and collection_path.name.startswith("test_") and _environment_of(collection_path) != here:
        return True
    return None


def pytest_report_header() -> str:
    return f"crispline environment: {_environment_of_this_process()}"
