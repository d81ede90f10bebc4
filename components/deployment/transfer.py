"""A release bundle goes from one environment's store to another's: blob by blob, every hash verified on the way in and on arrival."""

from __future__ import annotations

from dataclasses import dataclass

from components.contracts.records import Record, RecordStore
from components.contracts.storage import BlobStore
from components.deployment.bundle import read_file, read_manifest, verify_bundle
from components.deployment.promotion import Stores


@dataclass(frozen=True)
class Transferred:
    """What moved. `blobs`: how many the target did not have yet; `bytes`: their size."""

    blobs: int
    bytes: int


def transfer(source: Stores, target: Stores, release: str) -> Transferred:
    """Copy a release, the record of its gates and that of the evaluation, so that the target judges it from its own stores alone.

    The manifest goes last: a target that shows the release has all of its files. What is there already is not sent again, so a transfer that
    was interrupted goes on. Raises IntegrityError when a blob does not match its hash, here or there, or the target holds another record
    under the same id.
    """
    manifest = read_manifest(source.bundles, release)
    ours, theirs = BlobStore(source.bundles), BlobStore(target.bundles)
    blobs = size = 0
    for digest in [*dict.fromkeys(manifest.files.values()), release]:
        if theirs.holds(digest):
            continue
        content = ours.get(digest)
        theirs.put(content)
        blobs, size = blobs + 1, size + len(content)
    verify_bundle(target.bundles, release)
    gates = RecordStore(target.records).append(Record.model_validate_json(read_file(target.bundles, release, "gates.json")))
    evaluation = gates.details.get("evaluation")
    found = RecordStore(source.records).find("evaluation", evaluation) if isinstance(evaluation, str) else None
    if found is not None:
        RecordStore(target.records).append(found)
    return Transferred(blobs, size)
