"""Each test file runs in the environment that it names: `pytestmark = pytest.mark.<environment>`; without a mark, in the root environment.

Tests that need the example are left out where it was removed (`crispline init --remove-example`). Tests marked `cluster`, `cluster_long` or `cluster_alone` need a Kubernetes; they run only when the option -m speaks of them (`make test-cluster`).
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import pytest

from pipelines.scorecard import kept_results

with contextlib.suppress(ModuleNotFoundError):  # before feast, whose import makes what imports it later keep all registries' values in shared files
    import prometheus_client  # noqa: F401

with contextlib.suppress(ModuleNotFoundError):
    import hypothesis

    hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
    hypothesis.settings.load_profile("untimed")

_MARK = re.compile(r"^pytestmark\s*=.*pytest\.mark\.(pipeline|serving|monitoring)\b", re.MULTILINE)
_outcomes: dict[str, kept_results.Outcome] = {}
_CLUSTER = ("cluster", "cluster_long", "cluster_alone")
_EXAMPLE = Path(__file__).resolve().parent / "usecases" / "flights"


def _environment_of_this_process() -> str:
    prefix = Path(sys.prefix)
    return prefix.parent.name if prefix.parent.parent.name == "environments" else "root"


def _environment_of(test_file: Path) -> str:
    mark = _MARK.search(test_file.read_text())
    return mark[1] if mark else "root"


def _lacks_the_example(test_file: Path) -> bool:
    """Whether a test, or what its folder shares, speaks of the example's use case, and that is gone."""
    if _EXAMPLE.exists():
        return False
    shared = [file for file in test_file.parent.glob("*.py") if not file.name.startswith("test_")]
    return any(_EXAMPLE.name in file.read_text() for file in (test_file, *shared))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out files of other environments, and folders that hold nothing else: their conftest.py may import what is not installed here."""
    here = _environment_of_this_process()
    if collection_path.is_dir():
        if ".venv" in collection_path.parts:
            return True
        files = [file for file in collection_path.rglob("test_*.py") if ".venv" not in file.parts]
        return True if files and all(_environment_of(file) != here or _lacks_the_example(file) for file in files) else None
    if collection_path.suffix == ".py" and collection_path.name.startswith("test_"):
        return True if _environment_of(collection_path) != here or _lacks_the_example(collection_path) else None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """An ordinary run starts nothing on a cluster, also where KUBECONFIG is set."""
    if "cluster" in config.option.markexpr:
        return
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in _CLUSTER)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_itemcollected(item: pytest.Item) -> None:
    """The ids of the ML Test Score travel with a test's report, from xdist's workers too."""
    for marker in item.iter_markers(kept_results.MARKER):
        item.user_properties.extend((kept_results.MARKER, id) for id in marker.args)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if any(name == kept_results.MARKER for name, _ in report.user_properties) and (report.when == "call" or report.outcome != "passed"):
        worse = _outcomes.get(report.nodeid) in ("failed", "skipped")
        _outcomes[report.nodeid] = _outcomes[report.nodeid] if worse else report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep them for `crispline scorecard`; workers leave it to the process that started them."""
    if _outcomes and not hasattr(session.config, "workerinput"):
        kept_results.keep(Path(__file__).resolve().parent, _environment_of_this_process(), _outcomes)


def pytest_report_header() -> str:
    without = "" if _EXAMPLE.exists() else f"; usecases/{_EXAMPLE.name} was removed, so the tests that need it are left out"
    return f"crispline environment: {_environment_of_this_process()}{without}"
