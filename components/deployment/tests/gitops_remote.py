"""A bare repository for tests, as a team's own that holds more than manifests, and a person who commits to it."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(folder: Path | str, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout.strip()


def bare_repository(folder: Path) -> tuple[Path, Path]:
    """(bare repository acme/models.git with a first commit on main, a person's clone of it)."""
    bare, clone = folder / "acme" / "models.git", folder / "clone"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git(folder, "init", "--quiet", "--initial-branch=main", str(clone))
    git(clone, "remote", "add", "origin", str(bare))
    for name, value in (("user.name", "person"), ("user.email", "person@localhost"), ("commit.gpgsign", "false")):
        git(clone, "config", name, value)
    (clone / "README.md").write_text("ours\n")
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "-m", "Start")
    git(clone, "push", "--quiet", "origin", "main")
    return bare, clone


def person(clone: Path, path: str, content: str | None, *trailers: str, author: str = "person <person@localhost>") -> str:
    """Somebody commits a file (None removes it) and pushes it; returns the commit."""
    git(clone, "pull", "--quiet", "--rebase", "origin", "main")
    if content is None:
        git(clone, "rm", "--quiet", path)
    else:
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_text(content)
        git(clone, "add", path)
    git(clone, "commit", "--quiet", f"--author={author}", "-m", "\n".join([f"Change {path}", "", *trailers]))
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    return git(clone, "rev-parse", "HEAD")


def merge(clone: Path, branch: str) -> str:
    """A reviewer merges a proposal, by a merge commit, as a forge does; returns the merge."""
    git(clone, "pull", "--quiet", "--rebase", "origin", "main")
    git(clone, "fetch", "--quiet", "origin", branch)
    git(clone, "merge", "--quiet", "--no-ff", "-m", f"Merge {branch}", "FETCH_HEAD")
    git(clone, "push", "--quiet", "origin", "HEAD:main")
    return git(clone, "rev-parse", "HEAD")
