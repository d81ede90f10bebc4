"""Each test file runs in the environment that it names: `pytestmark = pytest.mark.<environment>`; without a mark, in the root environment."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_MARK = re.compile(r"^pytestmark\s*=.*pytest\.mark\.(pipeline|serving|monitoring)\b", re.MULTILINE)


def _environment_of_this_process() -> str:
    prefix = Path(sys.prefix)
    return prefix.parent.name if prefix.parent.parent.name == "environments" else "root"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if collection_path.is_dir() or collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    mark = _MARK.search(collection_path.read_text())
    return True if (mark[1] if mark else "root") != _environment_of_this_process() else None


def pytest_report_header() -> str:
    return f"crispline environment: {_environment_of_this_process()}"
