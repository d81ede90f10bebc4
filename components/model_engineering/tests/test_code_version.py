"""A change of code changes the version; a cache or an environment does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.model_engineering.code_version import code_version

pytestmark = pytest.mark.pipeline


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CRISPLINE_COMMIT", raising=False)
    for name in ("components/a/code.py", "pipelines/p.py", "usecases/u/usecase.yaml", "components/environments/pipeline/uv.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def git(tree: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(tree), *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_code_use_case_and_lock_each_count(tree: Path) -> None:
    usecase = tree / "usecases/u"
    first = code_version(usecase, tree)
    seen = {first.tree_hash}
    for name in ("components/a/code.py", "pipelines/p.py", "usecases/u/usecase.yaml"):
        (tree / name).write_text("changed")
        seen.add(code_version(usecase, tree).tree_hash)
    assert len(seen) == 4
    assert code_version(usecase, tree).lock_hash == first.lock_hash
    (tree / "components/environments/pipeline/uv.lock").write_text("changed")
    assert code_version(usecase, tree).lock_hash != first.lock_hash


def test_caches_environments_and_other_use_cases_do_not_count(tree: Path) -> None:
    first = code_version(tree / "usecases/u", tree)
    for name in ("components/a/__pycache__/code.pyc", "components/environments/pipeline/.venv/lib/x.py", "usecases/other/source.py", "README.md"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("new")
    assert code_version(tree / "usecases/u", tree) == first


def test_commit_and_dirty_flag_come_from_git_and_leave_it_alone(tree: Path) -> None:
    usecase = tree / "usecases/u"
    assert (code_version(usecase, tree).commit, code_version(usecase, tree).dirty) == ("", False)
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "first")
    clean = code_version(usecase, tree)
    assert (clean.commit, clean.dirty) == (git(tree, "rev-parse", "HEAD"), False)
    (tree / "usecases/u/usecase.yaml").write_text("changed")
    index = (tree / ".git/index").read_bytes()
    assert code_version(usecase, tree).dirty
    assert (tree / ".git/index").read_bytes() == index


def test_an_image_says_its_commit_by_environment(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRISPLINE_COMMIT", "abc123")
    monkeypatch.setenv("CRISPLINE_DIRTY", "true")
    version = code_version(tree / "usecases/u", tree)
    assert (version.commit, version.dirty) == ("abc123", True)
