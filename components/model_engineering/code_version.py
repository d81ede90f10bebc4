"""Which code made a model: commit, whether it was changed since, and hashes of the code and of the locks themselves."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from components.contracts.artifacts import CodeVersion

COMMIT_VARIABLE, DIRTY_VARIABLE = "CRISPLINE_COMMIT", "CRISPLINE_DIRTY"
_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("components", "pipelines")
_NO_CODE = {"__pycache__", "node_modules"}


def code_version(usecase_folder: Path, root: Path = _ROOT) -> CodeVersion:
    """The version of components/, pipelines/ and the use case under `root`.

    Commit and dirty flag come from CRISPLINE_COMMIT and CRISPLINE_DIRTY (`true`, `false`) when set, as in an image, which has no work tree;
    otherwise from Git, without touching its index; otherwise they are empty and false, and the hashes alone say what ran.
    """
    usecase_folder = usecase_folder.resolve()
    digest = hashlib.sha256()
    for part in _CODE:
        for file in code_files(root / part):
            _add(digest, str(file.relative_to(root)), file)
    for file in code_files(usecase_folder):
        _add(digest, f"usecase/{file.relative_to(usecase_folder)}", file)
    locks = hashlib.sha256()
    for lock in sorted([*root.glob("components/environments/*/uv.lock"), *usecase_folder.glob("**/uv.lock")]):
        _add(locks, lock.parent.name, lock)
    commit, dirty = _commit(usecase_folder, root)
    return CodeVersion(commit=commit, dirty=dirty, tree_hash=digest.hexdigest(), lock_hash=locks.hexdigest())


def code_files(folder: Path) -> Iterator[Path]:
    """Files under `folder` that a person wrote: no hidden folders (environments, caches), no bytecode; in a fixed order."""
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name in _NO_CODE:
            continue
        if entry.is_dir():
            yield from code_files(entry)
        elif entry.suffix != ".pyc":
            yield entry


def _add(digest: hashlib._Hash, name: str, file: Path) -> None:
    digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())


def _commit(usecase_folder: Path, root: Path) -> tuple[str, bool]:
    configured = os.environ.get(COMMIT_VARIABLE, "")
    if configured:
        return configured, os.environ.get(DIRTY_VARIABLE, "false").lower() == "true"
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return "", False
    inside = usecase_folder.is_relative_to(root)
    return commit, bool(_git(root, "status", "--porcelain", "--", *_CODE, *([str(usecase_folder)] if inside else [])))


def _git(root: Path, *arguments: str) -> str:
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", "--no-optional-locks", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
