"""Read a use case's folder into frozen contracts, or refuse it with file, line, key and remedy for every breach."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from components.contracts.consistency import contradictions
from components.contracts.errors import InvalidUseCase, Problem
from components.contracts.features import FeatureSet
from components.contracts.platform import usecases_root
from components.contracts.usecase import UseCase


@dataclass(frozen=True)
class LoadedUseCase:
    """A use case that passed every check. `folder` holds usecase.yaml, features.py and source.py."""

    folder: Path
    config: UseCase
    features: FeatureSet

    @property
    def name(self) -> str:
        return self.config.name


def load_usecase(name_or_folder: str | Path) -> LoadedUseCase:
    """Load `usecases/<name>` or a folder by path.

    Raises InvalidUseCase with one problem per breach.
    """
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = usecases_root() / str(name_or_folder)
    file = folder / "usecase.yaml"
    if not file.is_file():
        raise InvalidUseCase([Problem(file, 0, "usecase.yaml", "the file does not exist", "copy usecases/flights/usecase.yaml and change it")])
    document = _read_yaml(file)
    try:
        config = UseCase.model_validate(_plain(document))
    except ValidationError as error:
        raise InvalidUseCase([_problem(file, document, dict(detail)) for detail in error.errors()]) from error
    features = load_features(folder)
    problems = [
        Problem(
            file if path[0] != "features.py" else folder / "features.py",
            _line(document, path) if path[0] != "features.py" else _source_line(folder / "features.py", path[-1]),
            ".".join(str(part) for part in path),
            message,
            remedy,
        )
        for path, message, remedy in contradictions(config, features)
    ]
    if problems:
        raise InvalidUseCase(problems)
    return LoadedUseCase(folder.resolve(), config, features)


def load_features(folder: Path) -> FeatureSet:
    """Import `features.py` and return its FEATURES. It may import `components.contracts` only; anything else is refused."""
    file = folder / "features.py"
    if not file.is_file():
        raise InvalidUseCase([Problem(file, 0, "features.py", "the file does not exist", "declare FEATURES = FeatureSet(...) in it")])
    for line, module in _imports(file):
        if module.split(".")[0] not in ("__future__", "datetime") and not module.startswith("components.contracts"):
            raise InvalidUseCase(
                [
                    Problem(
                        file, line, module, "features.py is declarative and may import components.contracts only", "move code to source.py; declare values here"
                    )
                ]
            )
    try:
        module = load_module(file)
        features = module.FEATURES
    except AttributeError as error:
        raise InvalidUseCase([Problem(file, 0, "FEATURES", "the name is not defined", "add FEATURES = FeatureSet(views=..., request_fields=...)")]) from error
    except ValidationError as error:
        line = next((frame.tb_lineno for frame in _traceback(error) if frame.tb_frame.f_code.co_filename == str(file)), 0)
        raise InvalidUseCase(
            [Problem(file, line, ".".join(map(str, detail["loc"])), detail["msg"], "see docs/reference/features.md") for detail in error.errors()]
        ) from error
    if not isinstance(features, FeatureSet):
        raise InvalidUseCase(
            [Problem(file, 0, "FEATURES", f"is a {type(features).__name__}, not a FeatureSet", "add FEATURES = FeatureSet(views=..., request_fields=...)")]
        )
    return features


def load_module(file: Path) -> Any:
    """Import a use case's Python file under a name of its own, so that two use cases do not meet in sys.modules."""
    name = f"crispline_usecase_{file.parent.name}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InvalidUseCase([Problem(file, 0, file.name, "cannot be imported", "it must be a Python file")])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise InvalidUseCase([Problem(file, 0, file.name, f"import failed: {error}", "add the package to the use case's requirements")]) from error
    return module


def _imports(file: Path) -> Iterator[tuple[int, str]]:
    import ast

    try:
        tree = ast.parse(file.read_text(), filename=str(file))
    except SyntaxError as error:
        raise InvalidUseCase([Problem(file, error.lineno or 0, "syntax", str(error.msg), "correct the Python syntax")]) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "."


def _traceback(error: BaseException) -> Iterator[Any]:
    frame = error.__traceback__
    while frame is not None:
        yield frame
        frame = frame.tb_next


def _read_yaml(file: Path) -> CommentedMap:
    try:
        document = YAML(typ="rt").load(file.read_text())
    except MarkedYAMLError as error:
        mark = error.problem_mark
        raise InvalidUseCase([Problem(file, mark.line + 1 if mark else 0, "yaml", str(error.problem), "correct the YAML syntax")]) from error
    if not isinstance(document, CommentedMap):
        raise InvalidUseCase([Problem(file, 1, "usecase.yaml", "is not a mapping of sections", "start with `name:`")])
    return document


def _plain(node: Any) -> Any:
    """ruamel's round-trip nodes as plain Python, for strict validation."""
    if isinstance(node, CommentedMap):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _problem(file: Path, document: CommentedMap, detail: dict[str, Any]) -> Problem:
    path = [part for part in detail["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    key = ".".join(str(part) for part in path)
    kind = str(detail["type"])
    if kind == "extra_forbidden":
        message, remedy = "the key is unknown", _known_keys(path)
    elif kind == "missing":
        message, remedy = "the key is missing", f"add `{path[-1]}:` under `{'.'.join(map(str, path[:-1])) or 'the top level'}`"
    else:
        message = f"{detail['msg']} (found {detail['input']!r})"
        remedy = f"see `{key}` in docs/reference/usecase.md"
    return Problem(file, _line(document, path), key, message, remedy)


def _known_keys(path: list[Any]) -> str:
    """Names the keys that the section does have, nearest first."""
    import difflib

    model: Any = UseCase
    for part in path[:-1]:
        model = _model_of(model, part)
        if model is None:
            return "remove it"
    known = list(getattr(model, "model_fields", {}))
    near = difflib.get_close_matches(str(path[-1]), known, n=1)
    return f"did you mean `{near[0]}`?" if near else f"remove it; known keys: {', '.join(known)}"


def _model_of(model: Any, part: Any) -> Any:
    from typing import get_args

    from pydantic import BaseModel

    if isinstance(model, type) and issubclass(model, BaseModel):
        field = model.model_fields.get(str(part))
        return None if field is None else field.annotation
    arguments = [argument for argument in get_args(model) if isinstance(argument, type) and issubclass(argument, BaseModel)]
    return arguments[0] if arguments else None


def _line(document: Any, path: Any) -> int:
    """The line (from 1) of the deepest part of `path` that the document has."""
    node, line = document, 1
    for part in path:
        try:
            position = node.lc.key(part) if isinstance(node, CommentedMap) else node.lc.item(part)
            node = node[part]
        except (KeyError, IndexError, AttributeError, TypeError):
            break
        line = int(position[0]) + 1
    return line


def _source_line(file: Path, name: object) -> int:
    """The first line of `file` that names `name` in quotes; 0 when there is none."""
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if f'"{name}"' in line:
            return number
    return 0
