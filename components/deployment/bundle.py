"""The immutable release bundle: every file under the SHA-256 of its content, the manifest too; the manifest's digest is the release's id.

Nothing in a bundle can change under its id, and what does not match its hash is never served, whether it was changed in the store or in a
fetched folder. Needs the contracts only, so every environment can read a release.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from pydantic import ValidationError
from upath import UPath

from components.contracts.artifacts import ReleaseManifest
from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.storage import BlobStore, sha256

MANIFEST_FILE = "manifest.json"
REQUIRED_FILES = (
    "model.ubj",
    "calibrator.json",
    "model.json",
    "usecase.yaml",
    "features.json",
    "serving.json",
    "reference.parquet",
    "reference.json",
    "gates.json",
    "evaluation.json",
    "model_card.html",
)


@dataclass(frozen=True)
class BundleFields:
    """What a manifest says besides its files; see ReleaseManifest. `created` is business time, so that building again gives the same id."""

    usecase: str
    model_version: str
    data_version: str
    dataset: str
    feature_set: str
    feature_views: tuple[str, ...]
    gates_record: str
    gates_passed: bool
    cause: str
    created: datetime


def build_bundle(files: Mapping[str, bytes], fields: BundleFields, bundles_uri: str) -> str:
    """Store `files` (relative POSIX name to content) and their manifest; return the release's id (64 hex digits).

    The same files and fields give the same id. Raises CrisplineError for a name that leaves the bundle or a required file that is absent.
    """
    for name in files:
        _check_name(name)
    absent = [name for name in REQUIRED_FILES if name not in files]
    if absent:
        raise CrisplineError(f"the release lacks {', '.join(absent)}; a bundle holds all of {', '.join(REQUIRED_FILES)}")
    store = BlobStore(bundles_uri)
    digests = {name: store.put(content) for name, content in sorted(files.items())}
    manifest = ReleaseManifest(files=digests, **vars(fields))
    return store.put(canonical(manifest))


def canonical(manifest: ReleaseManifest) -> bytes:
    """The bytes that the release's id is the hash of."""
    return json.dumps(manifest.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()


def read_manifest(bundles_uri: str | UPath, release: str) -> ReleaseManifest:
    """The manifest of a release. Raises IntegrityError when it is absent, changed, or no manifest at all."""
    _check_release(release)
    return _parse(BlobStore(bundles_uri).get(release), release)


def read_file(bundles_uri: str | UPath, release: str, name: str) -> bytes:
    """One file of a release, verified. Raises IntegrityError as `read_manifest` does and CrisplineError for a name that it lacks."""
    manifest = read_manifest(bundles_uri, release)
    if name not in manifest.files:
        raise CrisplineError(f"release {release[:12]} has no file {name!r}; it has {', '.join(sorted(manifest.files))}")
    return BlobStore(bundles_uri).get(manifest.files[name])


def verify_bundle(bundles_uri: str | UPath, release: str) -> ReleaseManifest:
    """Read every file of a release and compare its hash. Raises IntegrityError naming what does not match."""
    manifest = read_manifest(bundles_uri, release)
    store = BlobStore(bundles_uri)
    for name, digest in manifest.files.items():
        try:
            store.get(digest)
        except IntegrityError as error:
            raise IntegrityError(f"release {release[:12]}: {name}: {error}") from error
    return manifest


def fetch_bundle(bundles_uri: str, release: str, destination: Path) -> ReleaseManifest:
    """Lay a release out as a folder of its files and `manifest.json`, every hash verified; whole or not at all.

    A destination that already holds this release, unchanged, is left as it is. Raises IntegrityError for anything that does not match.
    """
    destination = Path(destination)
    if destination.exists() and any(destination.iterdir()):
        present, manifest = open_bundle(destination)
        if present != release:
            raise IntegrityError(f"{destination} holds release {present[:12]}, not {release[:12]}; fetch into a folder of its own")
        return manifest
    manifest = read_manifest(bundles_uri, release)
    store = BlobStore(bundles_uri)
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}."))
    try:
        for name, digest in manifest.files.items():
            _check_name(name)
            file = part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(store.get(digest))
        (part / MANIFEST_FILE).write_bytes(canonical(manifest))
        part.chmod(0o755)
        _move(part, destination)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def open_bundle(folder: Path) -> tuple[str, ReleaseManifest]:
    """Id and manifest of a fetched release, after comparing every file with its hash.

    Raises IntegrityError naming a file that is absent, changed, or not part of the release.
    """
    folder = Path(folder)
    file = folder / MANIFEST_FILE
    if not file.is_file():
        raise IntegrityError(f"{folder} holds no {MANIFEST_FILE}; fetch the release from the bundle store")
    content = file.read_bytes()
    release = sha256(content)
    manifest = _parse(content, release)
    for name, digest in manifest.files.items():
        _check_name(name)
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"{path} is absent; fetch release {release[:12]} again")
        if sha256(path.read_bytes()) != digest:
            raise IntegrityError(f"{path} does not match its hash in the release; it must not be served, fetch release {release[:12]} again")
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    foreign = sorted(present - set(manifest.files) - {MANIFEST_FILE})
    if foreign:
        raise IntegrityError(f"{folder} holds files that are not part of release {release[:12]}: {', '.join(foreign)}; fetch it again")
    return release, manifest


def _move(part: Path, destination: Path) -> None:
    """Rename into place; of two that fetch at the same time the second finds the first one's folder."""
    try:
        part.rename(destination)
    except OSError:
        if not (destination / MANIFEST_FILE).is_file():
            raise
        open_bundle(destination)


def _parse(content: bytes, release: str) -> ReleaseManifest:
    try:
        return ReleaseManifest.model_validate_json(content)
    except ValidationError as error:
        raise IntegrityError(f"blob {release} is not the manifest of a release; name the id that `bundle` returned") from error


def _check_release(release: str) -> None:
    if len(release) != 64 or any(letter not in "0123456789abcdef" for letter in release):
        raise IntegrityError(f"{release!r} is not a release's id (64 hexadecimal digits)")


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or str(path) != name or "\\" in name or name == MANIFEST_FILE:
        raise IntegrityError(f"{name!r} is not a file name inside a release")
