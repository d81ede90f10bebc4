"""Files in a Git repository, changed by one commit at a time: nothing else of the repository, and no other repository, is touched.

Git's plumbing builds the commit beside the work tree. In a local repository the branch then moves only if nobody moved it meanwhile; to a
remote the commit is pushed without force, so that the remote decides. A crash at any point leaves the old state or the new one. Whoever
decides about a change does so within `locked`, which pins the state that the decision is about: a push that is not a fast-forward raises
NotFastForward, and the decision is made again about the newer state.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from components.contracts.errors import CrisplineError
from components.contracts.storage import write_atomically
from components.deployment.git_process import CRISPLINE, Author, run_local, run_network

__all__ = ["Author", "Commit", "FileVersion", "GitRepository", "NotFastForward", "PushDeclined", "is_remote"]

BRANCH = "main"
PROPOSALS = ("promote", "rollback")  # first part of the names of the branches that propose a change
_ADDRESS = re.compile(r"^(?:[a-z][a-z0-9+.-]*://|[^/\s:]+@[^/\s:]+:)")
# How a remote says that its branch is not where we saw it: Git's words for the client's check and for a race on the server.
_MOVED = ("fetch first", "non-fast-forward", "stale info", "cannot lock ref", "failed to update ref", "incorrect old value", "reference already exists")


class NotFastForward(CrisplineError):
    """The branch moved since it was read; whatever was decided about it must be decided again."""


class PushDeclined(CrisplineError):
    """The remote does not take this commit on this branch, for a rule of its own: a protected branch, a hook."""


@dataclass(frozen=True)
class FileVersion:
    """A file as one commit left it. `trailers`: `Name: value` lines that end the commit's message."""

    commit: str
    content: bytes
    trailers: Mapping[str, str]


@dataclass(frozen=True)
class Commit:
    """One commit against its first parent. `before` and `after`: content by path of what it changes; None where a file is not there."""

    id: str
    parent: str
    author_address: str
    trailers: Mapping[str, str]
    before: Mapping[str, bytes | None]
    after: Mapping[str, bytes | None]


def is_remote(location: Path | str) -> bool:
    """Whether a location is an address for Git (`https://`, `ssh://`, `file://`, `git@host:`) rather than a folder."""
    return bool(_ADDRESS.match(str(location)))


class GitRepository:
    """The repository whose `.git` lies directly in a folder, created when absent; or a remote one by its address, through a cached copy.

    Raises CrisplineError for an address that holds a password.
    """

    def __init__(self, location: Path | str, branch: str = BRANCH, author: Author = CRISPLINE) -> None:
        self.remote = str(location) if is_remote(location) else ""
        if self.remote and "://" in self.remote and urlsplit(self.remote).password:
            raise CrisplineError("the address of the GitOps repository holds a password; leave it to a credential helper of Git (docs/how-to/gitops.md)")
        self.folder = _cache_folder(self.remote, branch) if self.remote else Path(location).resolve()
        self.branch, self.author = branch, author
        self._database = self.folder if self.remote else self.folder / ".git"
        self._pinned = ""
        self._current = not self.remote  # whether this object has asked the remote

    # --- reading -------------------------------------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether it has a first commit; one that is just being made does not exist yet."""
        if self.remote:
            self._ask_once()
            return True
        return self._database.exists() and self._has(self.branch)

    @property
    def head(self) -> str:
        """The commit that reads are about: within `locked` the pinned one, else that of the branch. Raises CrisplineError when there is none."""
        if not self.exists:
            raise CrisplineError(f"{self.folder} is no Git repository with a branch {self.branch}")
        return self._pinned or self._git("rev-parse", "--verify", f"refs/heads/{self.branch}")

    def read_file(self, path: str, revision: str = "") -> bytes | None:
        """The committed content, whatever the work tree says; None when the repository or the file does not exist."""
        if not revision and not self.exists:
            return None
        at = revision or self.head
        if not self._git("ls-tree", at, "--", path):
            return None
        return self._raw("cat-file", "blob", f"{at}:{path}")

    def list_files(self, folder: str, revision: str = "") -> list[str]:
        """Paths of the committed files below a folder, in order; none when the repository does not exist."""
        if not revision and not self.exists:
            return []
        listed = self._raw("ls-tree", "-r", "-z", "--name-only", revision or self.head, "--", f"{folder.rstrip('/')}/")
        return [name for name in listed.decode().split("\0") if name]

    def history(self, path: str, branch: str = "", revision: str = "") -> list[FileVersion]:
        """Every committed version of one file, newest first; on the main branch as seen within `locked`, on another one, or up to a revision."""
        if not revision and (not self.exists or (branch and not self._has(branch))):
            return []
        separator = "\x1f"
        start = revision or (f"refs/heads/{branch}" if branch and branch != self.branch else self.head)
        log = self._git("log", "--topo-order", f"--format=%H{separator}%(trailers:only,unfold){separator}%x00", start, "--", path)
        versions = []
        for entry in log.split("\0"):
            parts = entry.strip("\n").split(separator)
            content = self.read_file(path, parts[0]) if len(parts) >= 2 else None
            if content is not None:
                versions.append(FileVersion(parts[0], content, _trailers(parts[1])))
        return versions

    def commits(self, base: str, head: str, folder: str) -> list[Commit]:
        """The commits after `base` up to `head` along first parents, oldest first, that change something below `folder`: a merge is one change.

        Raises CrisplineError when a revision is not known here.
        """
        ids = self._git("rev-list", "--first-parent", "--reverse", head, f"^{base}").split()
        found = (self._commit(id) for id in ids)
        return [each for each in found if any(path.startswith(f"{folder.rstrip('/')}/") for path in each.after)]

    def _commit(self, id: str) -> Commit:
        separator = "\x1f"
        address, trailers = self._git("log", "-1", f"--format=%ae{separator}%(trailers:only,unfold)", id).split(separator, 1)
        parents = self._git("rev-list", "--parents", "-n", "1", id).split()[1:]
        parent = parents[0] if parents else self._git("hash-object", "-t", "tree", "--stdin")  # a first commit stands against the empty tree
        listed = self._raw("diff", "--name-only", "--no-renames", "-z", parent, id).decode().split("\0")
        paths = [path for path in listed if path]
        return Commit(
            id,
            parent,
            address,
            _trailers(trailers),
            {path: self.read_file(path, parent) for path in paths},
            {path: self.read_file(path, id) for path in paths},
        )

    # --- writing -------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One writer of this machine at a time; what is read inside is the state at the start, and what is committed follows on it.

        Waits for another writer. Makes a local repository, with an empty first commit, if there is none. Raises CrisplineError when a remote
        cannot be reached or lacks the branch.
        """
        with self._alone():
            if self.remote:
                self._fetch()
            elif not self.exists:
                self._create()
            self._pinned = self._git("rev-parse", "--verify", f"refs/heads/{self.branch}")
            try:
                yield
            finally:
                self._pinned = ""

    def commit_file(self, path: str, content: bytes, message: str, moment: datetime, branch: str = "") -> str:
        """`commit_files` for one file."""
        return self.commit_files({path: content}, message, moment, branch)

    def commit_files(self, changes: Mapping[str, bytes | None], message: str, moment: datetime, branch: str = "") -> str:
        """Commit contents by path (None removes a file) and nothing else; push it to a remote; return the commit.

        Author date is `moment` (business time), committer date the clock. A `branch` other than the main one starts there and leaves the
        work tree alone: a proposal, in force once it is merged; an older proposal of that name is replaced. Call it within `locked`.

        Raises NotFastForward when the branch moved since `locked` began, PushDeclined when the remote has a rule against it, and
        CrisplineError with Git's message. In each case nothing has changed.
        """
        if not self._pinned:
            raise CrisplineError("commit_files was called outside of `locked`, so that nobody knows which state the change was decided about")
        target = branch or self.branch
        blobs = {path: self._git("hash-object", "-w", "--stdin", stdin=content) for path, content in changes.items() if content is not None}
        with tempfile.TemporaryDirectory(prefix="crispline-index-") as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            self._git("read-tree", self._pinned, more=index)
            self._stage(changes, blobs, index)
            tree = self._git("write-tree", more=index)
        commit = self._git("commit-tree", tree, "-p", self._pinned, "-F", "-", stdin=message.encode(), moment=moment)
        if self.remote:
            self._push(commit, target)
        if target == self.branch:
            self._move(commit)
            self._write(changes, blobs)
            self._pinned = commit
        else:
            self._git("update-ref", f"refs/heads/{target}", commit)
        return commit

    def _stage(self, changes: Mapping[str, bytes | None], blobs: Mapping[str, str], index: Mapping[str, str]) -> None:
        entries = [f"100644 {blobs[path]}\t{path}" if path in blobs else f"0 {'0' * 40}\t{path}" for path in changes]
        self._git("update-index", "-z", "--index-info", stdin="\0".join([*entries, ""]).encode(), more=index)

    def _move(self, commit: str) -> None:
        """Move the branch, only from where it was seen. A remote has taken the commit already: there the copy merely follows."""
        expected = () if self.remote else (self._pinned,)
        try:
            self._git("update-ref", f"refs/heads/{self.branch}", commit, *expected)
        except CrisplineError as error:
            if "cannot lock ref" not in str(error):
                raise
            raise NotFastForward(f"{self.branch} moved while the change was being decided: {error}") from error

    def _write(self, changes: Mapping[str, bytes | None], blobs: Mapping[str, str]) -> None:
        """The work tree of a local repository follows, file by file, so that what a person edits beside them stays as it is."""
        if self.remote:
            return
        for path, content in changes.items():
            if content is None:
                (self.folder / path).unlink(missing_ok=True)
            else:
                write_atomically(self.folder / path, content)
        self._stage(changes, blobs, {})

    # --- the remote ----------------------------------------------------------------------------------------------------------------------

    def _push(self, commit: str, branch: str) -> None:
        """Push one commit. The main branch only ever goes forward; a proposal replaces the one that was seen, and no other."""
        known = "" if branch == self.branch else self._git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
        lease = [] if branch == self.branch else [f"--force-with-lease=refs/heads/{branch}:{known}"]
        done = self._network("push", "--porcelain", "--no-verify", *lease, self.remote, f"{commit}:refs/heads/{branch}")
        if done.returncode == 0:
            return
        said = (done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")).strip()
        refused = [line for line in said.splitlines() if line.startswith("!")]
        if any(word in line for word in _MOVED for line in refused):
            raise NotFastForward(f"{branch} of {self.remote} moved while the change was being decided; it must be decided again")
        if refused:
            raise PushDeclined(
                f"{self.remote} does not take a commit on {branch}: {said}\n"
                "    remedy: propose the change by a pull request (deployment.promotion: pull_request in usecase.yaml), or let this account push there"
            )
        raise CrisplineError(f"git push to {self.remote} failed: {said}\n    remedy: check the address and the credentials that Git has for it")

    def try_push(self) -> None:
        """Raise CrisplineError unless this account may push to the remote: everything of a push is done but the change itself.

        Rules for single branches are the remote's own and show only at a real push.
        """
        done = self._network("push", "--dry-run", "--porcelain", "--no-verify", self.remote, f"{self.head}:refs/heads/{PROPOSALS[0]}/doctor")
        if done.returncode:
            said = (done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")).strip()
            raise CrisplineError(f"git push to {self.remote} would fail: {said}\n    remedy: give this account, or the credentials that Git has, write access")

    def _ask_once(self) -> None:
        if not self._current:
            with self._alone():
                self._fetch()

    def _fetch(self) -> None:
        """Bring the copy to the remote's state: the branch, and the proposals."""
        if not (self.folder / "HEAD").exists():
            run_local(["init", "--quiet", "--bare", f"--initial-branch={self.branch}", "--template=", str(self.folder)], self.author)
        wanted = [f"+refs/heads/{name}:refs/heads/{name}" for name in (self.branch, *(f"{each}/*" for each in PROPOSALS))]
        done = self._network("fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", self.remote, *wanted)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            if "couldn't find remote ref" in said:
                raise CrisplineError(f"{self.remote} has no branch {self.branch}; name its branch in `gitops_branch` of the platform, or push a first commit")
            raise CrisplineError(f"git fetch from {self.remote} failed: {said}\n    remedy: check the address and the credentials that Git has for it")
        self._current = True

    def _network(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return run_network([f"--git-dir={self._database}", *arguments])

    # --- the repository on this machine --------------------------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / f".{self.folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _create(self) -> None:
        self.folder.mkdir(exist_ok=True)
        run_local(["init", "--quiet", f"--initial-branch={self.branch}", "--template=", str(self.folder)], self.author)
        tree = self._git("mktree", stdin=b"")
        first = self._git("commit-tree", tree, "-m", "An empty repository for released models")
        self._git("update-ref", f"refs/heads/{self.branch}", first, "0" * 40)

    def _has(self, branch: str) -> bool:
        return bool(self._git("for-each-ref", f"refs/heads/{branch}"))

    def _git(self, *arguments: str, stdin: bytes = b"", moment: datetime | None = None, more: Mapping[str, str] | None = None) -> str:
        return self._raw(*arguments, stdin=stdin, moment=moment, more=more).decode().strip("\n")

    def _raw(self, *arguments: str, stdin: bytes = b"", moment: datetime | None = None, more: Mapping[str, str] | None = None) -> bytes:
        """Names the repository explicitly: without it, Git would search the folders above, where a user's clone may lie."""
        place = [f"--git-dir={self._database}"] if self.remote else [f"--git-dir={self._database}", f"--work-tree={self.folder}"]
        dates = {"GIT_AUTHOR_DATE": f"@{int(moment.timestamp())} +0000"} if moment else {}
        return run_local([*place, *arguments], self.author, {**dates, **(more or {})}, stdin)


def _trailers(text: str) -> dict[str, str]:
    """`Name: value` lines by name; of several under one name the last."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _cache_folder(remote: str, branch: str) -> Path:
    """One folder an address and branch, in the user's cache; below the temporary folder where a user has no home (a pod under an arbitrary uid)."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        home = Path(tempfile.gettempdir())
    name = re.sub(r"[^a-zA-Z0-9._-]+", "-", remote.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")) or "repository"
    return home / "crispline" / "git" / f"{name}-{hashlib.sha256(f'{remote} {branch}'.encode()).hexdigest()[:12]}.git"
