"""Where bytes go: atomic files and a content-addressed store, on a local path or any fsspec URI (s3://, gs://)."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from upath import UPath

from components.contracts.errors import IntegrityError


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: UPath | Path, data: bytes) -> None:
    """Write so that a reader sees the old content or the new one, never a part: write, fsync, rename. An object store's PUT is atomic already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(path, Path) and path.protocol not in ("", "file", "local"):
        path.write_bytes(data)
        return
    local = Path(str(path))
    descriptor, temporary = tempfile.mkstemp(dir=local.parent, prefix=f".{local.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(local)
        directory = os.open(local.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class BlobStore:
    """Immutable blobs under the SHA-256 of their content: `put` is idempotent, `get` verifies what it reads."""

    def __init__(self, uri: str) -> None:
        self.root = UPath(uri)

    def put(self, data: bytes) -> str:
        """Store and return the digest (64 hex digits)."""
        digest = sha256(data)
        path = self._path(digest)
        if not path.exists():
            write_atomically(path, data)
        return digest

    def get(self, digest: str) -> bytes:
        """Raises IntegrityError when the blob is absent or its content is not what its name says."""
        path = self._path(digest)
        if not path.exists():
            raise IntegrityError(f"no blob {digest} under {self.root}; was the release published to this store?")
        data = bytes(path.read_bytes())
        if sha256(data) != digest:
            raise IntegrityError(f"blob {digest} under {self.root} does not match its hash; restore it from another copy, it must not be served")
        return data

    def _path(self, digest: str) -> UPath:
        return self.root / digest[:2] / digest
