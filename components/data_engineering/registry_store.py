"""Feast's registry as one file or object that is read whole and replaced whole.

Feast's own stores write a local file in place (a reader may see half of it), need boto3 for S3, and overwrite whatever another process has
registered since they read. On S3 an object here is replaced only if it is still the one that was read (`If-Match`).
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RegistryConfig

from components.contracts.errors import CrisplineError
from components.contracts.storage import read_whole, remove, storage_path, store_error, write_atomically

_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class RegistryConflict(CrisplineError):
    """Another process has changed the registry since it was read: read it again and repeat."""


class WholeRegistryStore(RegistryStore):
    """The registry at `RegistryConfig.path`, a path or an fsspec URI; an absent one reads as empty, so that readers write nothing."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path | None = None) -> None:  # noqa: ARG002 - Feast's signature
        self.path = storage_path(str(registry_config.path))
        self._conditional = self.path.protocol in ("s3", "s3a")
        self._tag = ""  # of the object that was read; empty when there was none

    def get_registry_proto(self) -> RegistryProto:
        registry = RegistryProto(registry_schema_version="1")
        try:
            # The tag first: a change in between then makes the next update fail, never overwrite.
            tag = str(self.path.fs.info(self.path.path)["ETag"]) if self._conditional else ""
            registry.ParseFromString(read_whole(self.path))
        except FileNotFoundError:
            tag = ""
        self._tag = tag
        return registry

    def update_registry_proto(self, registry_proto: RegistryProto) -> None:
        """Raises RegistryConflict when it is not the registry that was read any more."""
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        content = registry_proto.SerializeToString()
        if not self._conditional:
            write_atomically(self.path, content)
            return
        condition = {"IfMatch": self._tag} if self._tag else {"IfNoneMatch": "*"}
        try:
            self._tag = str(self.path.fs.pipe_file(self.path.path, content, **condition)["ETag"])
        except OSError as error:
            if isinstance(error, FileExistsError) or store_error(error) in _REFUSED:
                raise RegistryConflict(f"{self.path} was changed by another process at this moment; repeat") from error
            raise

    def teardown(self) -> None:
        remove(self.path)
