"""Cache of steps by their inputs: kfp.local's own cache, keyed by content instead of by place.

kfp.local 2.17 keys an input artifact by its URI, which names the run that wrote it, and knows of the code only the component's few lines.
Here the key holds the content of the input artifacts and the version of the code that the step's image would contain.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.local.cache import LocalCache

from components.contracts.platform import usecases_root
from components.environments.names import environment_of_image
from pipelines.runners.environments import ROOT, environment_folder


def content_hash(path: Path) -> str:
    """SHA-256 (hex) of a file, or of a folder's relative names and contents in order; of a path that does not exist, the empty string."""
    if path.is_dir():
        return _hash_of_files((str(file.relative_to(path)), file) for file in sorted(path.rglob("*")) if file.is_file())
    if not path.exists():
        return ""
    state = path.stat()
    return _file_hash(path, state.st_mtime_ns, state.st_size, state.st_ino)


def code_version(environment: str, usecase: str) -> str:
    """SHA-256 (hex) over what the image of a step would hold: components, pipelines, the environment's lock and the use case."""
    sources = [file for folder in ("components", "pipelines") for file in _sources(ROOT / folder)]
    sources.append(environment_folder(environment) / "uv.lock")
    if usecase:
        sources.extend(file for file in sorted((usecases_root() / usecase).rglob("*")) if file.is_file() and "__pycache__" not in file.parts)
    return _hash_of_files((str(file), file) for file in sources)


def tree_version() -> str:
    """SHA-256 (hex) over components and pipelines alone: whether a running step server still holds the code on disk."""
    return _hash_of_files((str(file), file) for folder in ("components", "pipelines") for file in _sources(ROOT / folder))


class ContentCache(LocalCache):  # type: ignore[misc]  # kfp has no types
    """kfp.local's cache with keys of content. Knows whether this thread's last step was found, so that the progress can say so."""

    def __init__(self, cache_root: str) -> None:
        super().__init__(cache_root)
        self._hit = threading.local()
        self._code_version = functools.cache(code_version)

    def compute_key(
        self,
        component_name: str,
        image: str,
        full_command: list[str],
        arguments: dict[str, Any],
        env_vars: dict[str, str] | None = None,
        custom_cache_key: str | None = None,  # noqa: ARG002  part of kfp's interface; a key of one's own would hide a change of the inputs
    ) -> str:
        usecase = arguments.get("usecase", "")
        parts = {
            "command": full_command,
            "environment": env_vars or {},
            "image": environment_of_image(image),
            "code": self._code_version(environment_of_image(image), usecase if isinstance(usecase, str) else ""),
            "arguments": _by_content(arguments),
        }
        return hashlib.sha256(json.dumps([component_name, parts], sort_keys=True).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = super().get(key)
        self._hit.last = found is not None
        return found

    def forget_hits(self) -> None:
        """Before a step that may not ask at all."""
        self._hit.last = False

    def was_hit(self) -> bool:
        return bool(self._hit.last)


def _by_content(value: Any) -> Any:
    if isinstance(value, dsl.Artifact):
        return {"type": value.schema_title, "content": content_hash(Path(value.path)), "metadata": value.metadata}
    if isinstance(value, list):
        return [_by_content(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _by_content(each) for name, each in value.items()}
    return value


def _sources(folder: Path) -> list[Path]:
    """Python files of a package without its tests and without the environments' site-packages."""
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            each for each in folders if each not in {"tests", "__pycache__"} and not each.startswith(".") and not (Path(parent) / each / "pyvenv.cfg").exists()
        )
        found.extend(Path(parent) / file for file in sorted(files) if file.endswith(".py"))
    return found


def _hash_of_files(files: Iterable[tuple[str, Path]]) -> str:
    total = hashlib.sha256()
    for name, file in files:
        total.update(f"{name}\0{content_hash(file)}\n".encode())
    return total.hexdigest()


@functools.lru_cache(maxsize=4096)
def _file_hash(path: Path, _modified: int, _size: int, _inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
