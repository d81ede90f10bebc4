"""What became of the tests that carry an id of the ML Test Score: found in the sources, and kept by pytest runs.

`.crispline/test_results/<environment>.json` holds the outcome of each such test by node id, for one state of the code; results of another state
are thrown away, because they say nothing about this one.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from components.contracts.storage import write_atomically

MARKER: Final = "ml_test"
RESULTS: Final = Path(".crispline") / "test_results"
Outcome = Literal["passed", "failed", "skipped", "not run"]
_CODE: Final = ("components", "pipelines", "usecases", "tests", "charts", "manifests")
_TESTED: Final = ("components", "pipelines", "usecases", "tests")
_LEFT_OUT: Final = (".venv", "__pycache__")


@dataclass(frozen=True)
class MarkedTest:
    """A test function in the sources. `file` is relative to the root."""

    file: str
    name: str
    ids: tuple[str, ...]


def tree_hash(root: Path) -> str:
    """SHA-256 (hex) over names and contents of everything that tests and tested code consist of."""
    digest = hashlib.sha256()
    for file in _files(root, _CODE):
        digest.update(f"{file.relative_to(root)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files(root: Path, folders: Sequence[str]) -> list[Path]:
    """All files in order; environments, which hold tens of thousands, are not even entered."""
    found = []
    for folder in folders:
        for here, below, names in os.walk(root / folder):
            below[:] = sorted(name for name in below if name not in _LEFT_OUT)
            found += [Path(here, name) for name in sorted(names)]
    return found


def marked_tests(root: Path) -> list[MarkedTest]:
    """Every test function under `root` that carries `@pytest.mark.ml_test("<id>", ...)`."""
    files = [file for file in _files(root, _TESTED) if file.name.startswith("test_") and file.suffix == ".py" and MARKER in file.read_text()]
    return [MarkedTest(str(file.relative_to(root)), function.name, ids) for file in files for function, ids in _marked_functions(ast.parse(file.read_text()))]


def _marked_functions(module: ast.Module) -> Iterator[tuple[ast.FunctionDef, tuple[str, ...]]]:
    for function in ast.walk(module):
        if isinstance(function, ast.FunctionDef):
            for decorator in function.decorator_list:
                if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute) and decorator.func.attr == MARKER:
                    yield (
                        function,
                        tuple(argument.value for argument in decorator.args if isinstance(argument, ast.Constant) and isinstance(argument.value, str)),
                    )


def keep(root: Path, environment: str, outcomes: Mapping[str, Outcome]) -> None:
    """Add a run's outcomes, by node id, to those that the environment has of this state of the code."""
    file, tree = root / RESULTS / f"{environment}.json", tree_hash(root)
    known = _read(file)
    before = known["outcomes"] if known.get("tree") == tree else {}
    write_atomically(file, json.dumps({"tree": tree, "outcomes": {**before, **outcomes}}, indent=1, sort_keys=True).encode())


def outcome_of(root: Path) -> Mapping[MarkedTest, Outcome]:
    """What became of each marked test in its last run on this state of the code; one bad case of a parametrised test counts for all."""
    tree = tree_hash(root)
    kept: dict[str, Outcome] = {}
    for file in sorted((root / RESULTS).glob("*.json")):
        known = _read(file)
        if known.get("tree") == tree:
            kept.update(known["outcomes"])
    found: dict[MarkedTest, Outcome] = {}
    for test in marked_tests(root):
        cases = [outcome for id, outcome in kept.items() if id.split("[")[0] == f"{test.file}::{test.name}"]
        found[test] = next((bad for bad in ("failed", "skipped") if bad in cases), "passed" if cases else "not run")  # type: ignore[arg-type]
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return read
