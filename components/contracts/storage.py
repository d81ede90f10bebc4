"""Where bytes go: atomic files and a content-addressed store, on a local path or an object store (any fsspec URI: s3://, gs://).

An object store has no rename, no append and no folders, and a PUT is atomic. What two processes must not both do rests on its conditional
PUT (`If-None-Match`): S3, MinIO, Google Cloud Storage and others have it. Credentials and endpoint come from the environment, under the
names that every client library reads itself: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION, AWS_ALLOW_HTTP.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from upath import UPath

from components.contracts.errors import IntegrityError

_LOCAL = ("", "file", "local")
_UNDECIDED = 5  # S3 answers 409 when two conditional writes cross: then nobody has won yet, and both ask again
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def storage_path(uri: str | UPath) -> UPath:
    """The path behind a local path or a URI. An object store is listed anew each time: other processes write to it as well."""
    path = UPath(uri)
    return path if is_local(path) else UPath(uri, use_listings_cache=False)


def is_local(path: UPath | Path) -> bool:
    return _remote(path) is None


def _remote(path: UPath | Path) -> UPath | None:
    """The path itself where an object store is behind it, None for a local file."""
    return None if isinstance(path, Path) or path.protocol in _LOCAL else path


def write_atomically(path: UPath | Path, data: bytes) -> None:
    """Write so that a reader sees the old content or the new one, never a part: write, fsync, rename. An object store's PUT is atomic already."""
    if (remote := _remote(path)) is not None:
        remote.fs.pipe_file(remote.path, data)
        return
    with _temporary(Path(str(path)), data) as temporary:
        temporary.replace(str(path))


def create_atomically(path: UPath | Path, data: bytes) -> bool:
    """Write unless something is there, in one step: of several writers exactly one gets True, and what it wrote stays."""
    if (remote := _remote(path)) is not None:
        return _create_object(remote, data)
    local = Path(str(path))
    if local.exists():
        return False
    with _temporary(local, data) as temporary:
        try:
            local.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            temporary.replace(local)  # such a file system has no atomic creation of a whole file; the check above is all there is
    return True


def _create_object(path: UPath, data: bytes) -> bool:
    for attempt in range(_UNDECIDED):
        try:
            path.fs.pipe_file(path.path, data, mode="create")
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if store_error(error) in ("PreconditionFailed", "412"):
                return False
            if store_error(error) not in ("ConditionalRequestConflict", "409") or attempt == _UNDECIDED - 1:
                raise
    raise AssertionError("unreachable")


def store_error(error: OSError) -> str:
    """S3's own error code behind what s3fs raises; empty where there is none."""
    answer = getattr(error.__cause__, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def read_whole(path: UPath | Path) -> bytes:
    """All bytes, in one request. Raises FileNotFoundError."""
    remote = _remote(path)
    return path.read_bytes() if remote is None else bytes(remote.fs.cat_file(remote.path))


def remove(path: UPath | Path) -> None:
    """Remove a file; one that is gone already is no error."""
    remote = _remote(path)
    if remote is None:
        Path(str(path)).unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        remote.fs.rm_file(remote.path)


def names_in(folder: UPath | Path) -> list[str]:
    """Names of what lies directly in a folder, sorted, without hidden files (a write under way); none when there is no such folder."""
    remote = _remote(folder)
    try:
        if remote is None:
            found = [path.name for path in folder.iterdir()]
        else:
            found = [path.rstrip("/").rsplit("/", 1)[-1] for path in remote.fs.ls(remote.path, detail=False) if path.rstrip("/") != remote.path.rstrip("/")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in found if not name.startswith("."))


def read_folder(folder: UPath | Path, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, bytes]:
    """Content by name of the files directly in a folder whose names are `wanted`, in order of name; an object store is asked for many at once.

    A file that is removed between the listing and the reading is left out.
    """
    names, remote = [name for name in names_in(folder) if wanted(name)], _remote(folder)
    if remote is None:
        found = {}
        for name in names:
            with suppress(FileNotFoundError):
                found[name] = (folder / name).read_bytes()
        return found
    by_path = {(remote / name).path: name for name in names}
    answers: dict[str, Any] = remote.fs.cat(list(by_path), on_error="return") if by_path else {}
    content = {by_path[path]: answer for path, answer in answers.items() if not isinstance(answer, FileNotFoundError)}
    for answer in content.values():
        if isinstance(answer, BaseException):
            raise answer
    return {name: bytes(content[name]) for name in names if name in content}


@contextmanager
def _temporary(local: Path, data: bytes) -> Iterator[Path]:
    """A whole, durable file beside `local`, for its rename or link; durable, too, is what was done with it when the block ends."""
    local.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=local.parent, prefix=f".{local.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        yield temporary
        directory = os.open(local.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


class BlobStore:
    """Immutable blobs under the SHA-256 of their content: `put` is idempotent, `get` verifies what it reads."""

    def __init__(self, uri: str | UPath) -> None:
        self.root = storage_path(uri)

    def put(self, data: bytes) -> str:
        """Store and return the digest (64 hex digits)."""
        digest = sha256(data)
        path = self._path(digest)
        if not path.exists():
            write_atomically(path, data)
        return digest

    def holds(self, digest: str) -> bool:
        """Whether there is a blob of that name; `get` says whether it is whole."""
        return bool(self._path(digest).exists())

    def get(self, digest: str) -> bytes:
        """Raises IntegrityError when the blob is absent or its content is not what its name says."""
        try:
            data = read_whole(self._path(digest))
        except FileNotFoundError as error:
            raise IntegrityError(f"no blob {digest} under {self.root}; was the release published to this store?") from error
        if sha256(data) != digest:
            raise IntegrityError(f"blob {digest} under {self.root} does not match its hash; restore it from another copy, it must not be served")
        return data

    def _path(self, digest: str) -> UPath:
        return self.root / digest[:2] / digest
