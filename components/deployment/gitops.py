"""One file in a Git repository, changed by one commit at a time: nothing else of the repository, and no other repository, is touched.

Git's plumbing builds the commit beside the work tree and moves the branch only if nobody moved it meanwhile, so a crash at any point
leaves the old state or the new one. The caller's Git environment and configuration are shut out: GIT_DIR of a hook, a signing key or a
template of the user cannot redirect or change a promotion.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from components.contracts.errors import CrisplineError
from components.contracts.storage import write_atomically

BRANCH = "main"
AUTHOR, ADDRESS = "crispline", "crispline@localhost"


@dataclass(frozen=True)
class FileVersion:
    """A file as one commit left it. `trailers`: `Name: value` lines that end the commit's message."""

    commit: str
    content: bytes
    trailers: Mapping[str, str]


class GitRepository:
    """The repository whose `.git` lies directly in `folder`; created when absent."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).resolve()

    @property
    def exists(self) -> bool:
        """Whether it has a first commit; one that is just being made does not exist yet."""
        return (self.folder / ".git").exists() and self._has(BRANCH)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer at a time; waits for another one, and makes the repository, with an empty first commit, if there is none."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / f".{self.folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.exists:
                self._create()
            yield

    def _create(self) -> None:
        self.folder.mkdir(exist_ok=True)
        _run(["git", "init", "--quiet", f"--initial-branch={BRANCH}", "--template=", str(self.folder)], {})
        tree = self._git("mktree", stdin=b"")
        first = self._git("commit-tree", tree, "-m", "An empty repository for released models")
        self._git("update-ref", f"refs/heads/{BRANCH}", first, "0" * 40)

    def _has(self, branch: str) -> bool:
        return bool(self._git("for-each-ref", f"refs/heads/{branch}"))

    def commit_file(self, path: str, content: bytes, message: str, moment: datetime, branch: str = BRANCH) -> str:
        """Commit `content` as `path` and nothing else; return the commit. Author date is `moment` (business time), committer date the clock.

        A `branch` other than the main one starts there and leaves the work tree alone: a proposal, in force once it is merged.
        Call it within `locked`. Raises CrisplineError with Git's message.
        """
        parent = self._git("rev-parse", "--verify", f"refs/heads/{BRANCH}")
        blob = self._git("hash-object", "-w", "--stdin", stdin=content)
        with tempfile.TemporaryDirectory(prefix="crispline-index-") as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            self._git("read-tree", parent, more=index)
            self._git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", more=index)
            tree = self._git("write-tree", more=index)
        commit = self._git("commit-tree", tree, "-p", parent, "-F", "-", stdin=message.encode(), moment=moment)
        reference = f"refs/heads/{branch}"
        if branch == BRANCH:
            self._git("update-ref", reference, commit, parent)
            write_atomically(self.folder / path, content)
            self._git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
        else:
            self._git("update-ref", reference, commit)
        return commit

    def read_file(self, path: str, revision: str = f"refs/heads/{BRANCH}") -> bytes | None:
        """The committed content, whatever the work tree says; None when the repository or the file does not exist."""
        if not self.exists or not self._git("ls-tree", revision, "--", path):
            return None
        return self._raw("cat-file", "blob", f"{revision}:{path}")

    def history(self, path: str, branch: str = BRANCH) -> list[FileVersion]:
        """Every committed version of one file, newest first."""
        if not self.exists or not self._has(branch):
            return []
        separator = "\x1f"
        log = self._git("log", "--topo-order", f"--format=%H{separator}%(trailers:only,unfold){separator}%x00", f"refs/heads/{branch}", "--", path)
        versions = []
        for entry in log.split("\0"):
            parts = entry.strip("\n").split(separator)
            content = self.read_file(path, parts[0]) if len(parts) >= 2 else None
            if content is not None:
                pairs = (line.partition(":") for line in parts[1].splitlines() if ":" in line)
                versions.append(FileVersion(parts[0], content, {name.strip(): value.strip() for name, _, value in pairs}))
        return versions

    def _git(self, *arguments: str, stdin: bytes | None = None, moment: datetime | None = None, more: Mapping[str, str] | None = None) -> str:
        return self._raw(*arguments, stdin=stdin, moment=moment, more=more).decode().strip("\n")

    def _raw(self, *arguments: str, stdin: bytes | None = None, moment: datetime | None = None, more: Mapping[str, str] | None = None) -> bytes:
        """Names the repository explicitly: without it, Git would search the folders above, where a user's clone may lie."""
        command = ["git", f"--git-dir={self.folder / '.git'}", f"--work-tree={self.folder}", *arguments]
        dates = {"GIT_AUTHOR_DATE": f"@{int(moment.timestamp())} +0000"} if moment else {}
        return _run(command, {**dates, **(more or {})}, stdin)


def _run(command: list[str], more: Mapping[str, str], stdin: bytes | None = None) -> bytes:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (("NAME", AUTHOR), ("EMAIL", ADDRESS))}
    quiet = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, input=stdin or b"", capture_output=True, env={**environment, **identity, **quiet, **more}, timeout=60, check=False)
    except FileNotFoundError as error:
        raise CrisplineError("git is not installed; promotion is a Git commit, so the image or machine needs it") from error
    if done.returncode:
        raise CrisplineError(f"git {command[-1] if len(command) < 4 else command[3]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
