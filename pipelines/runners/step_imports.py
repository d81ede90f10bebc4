"""What a step imports, so that a step server can import it before the fork, once for all steps."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterable
from pathlib import Path

_NEVER = ("component", "ephemeral_component", "__main__", "__mp_main__", "usecases")


@functools.lru_cache(maxsize=256)
def modules_of_source(source: str) -> tuple[str, ...]:
    """The modules that a component's function imports in its body, in order. `from a import b` gives `a` and `a.b`."""
    found: dict[str, None] = {}
    for function in ast.parse(source).body:
        for node in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            if isinstance(node, ast.Import):
                found.update(dict.fromkeys(alias.name for alias in node.names))
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found[node.module] = None
                found.update(dict.fromkeys(f"{node.module}.{alias.name}" for alias in node.names))
    return tuple(found)


def import_all(names: Iterable[str]) -> None:
    """Import what can be imported. A failure is left to the step, whose log then shows it."""
    for name in names:
        if name in sys.modules:
            continue
        parent, _, last = name.rpartition(".")
        if parent in sys.modules and hasattr(sys.modules[parent], last):
            continue  # a name in a module, not a module
        with contextlib.suppress(Exception):
            importlib.import_module(name)


class LearnedImports:
    """What each step imported while it ran, kept in `file` across servers: {step: [module, ...]}."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list[str]] = {}
        with contextlib.suppress(OSError, ValueError):
            self._known = json.loads(file.read_text())

    def of(self, step: str) -> list[str]:
        return self._known.get(step, [])

    def learn(self, step: str, report: Path) -> None:
        """Add what a step's process reported; one that died reported nothing."""
        try:
            reported = json.loads(report.read_text())
        except (OSError, ValueError):
            return
        known = self._known.setdefault(step, [])
        new = [name for name in reported if name not in known]
        if new:
            known.extend(new)
            temporary = self._file.with_suffix(".new")
            temporary.write_text(json.dumps(self._known))
            temporary.replace(self._file)

    @staticmethod
    def report(file: Path, before: set[str]) -> None:
        """Called in the step's process: the modules that it imported beyond `before` and that can be imported by name."""
        new = [
            name
            for name, module in list(sys.modules.items())
            if name not in before and name.split(".")[0] not in _NEVER and getattr(module, "__spec__", None) is not None
        ]
        file.write_text(json.dumps(new))
