"""Promotion: one atomic change of an environment's release file, as a Git commit that Argo CD, Flux or `helm upgrade` then acts on.

What is promoted was judged: the bundle is read whole and compared with its hashes, its gates' record must exist, have passed and be about
this very model. The same cause promotes once: promoting the same release again finds the first commit, another release is refused. When the
repository moved while this was decided, it is decided again about the newer state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeVar

from upath import UPath

from components.contracts.artifacts import ImagePin, Release, ReleaseManifest
from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.deployment.bundle import read_file, verify_bundle
from components.deployment.canary.lifecycle import ended_by_promotion
from components.deployment.canary.trail import Place
from components.deployment.forge import PullRequest, open_pull_request
from components.deployment.gitops import GitRepository, NotFastForward, is_remote
from components.deployment.releases import (
    KIND_TRAILER,
    Deployed,
    current_release,
    history_in,
    release_content,
    release_history,
    release_in,
    release_path,
    repository_of,
)

__all__ = ["Stores", "current_release", "promote", "promote_release", "release_history", "verify_release"]

_ATTEMPTS = 5
Decided = TypeVar("Decided")
ImageName = Literal["serving", "monitoring"]


@dataclass(frozen=True)
class Stores:
    """An environment's bundles and records; a UPath carries the credentials that this process has for them."""

    bundles: str | UPath
    records: str | UPath

    @classmethod
    def of(cls, platform: Platform) -> Stores:
        return cls(platform.bundles_uri, platform.records_uri)


@dataclass(frozen=True)
class Origin:
    """Where a release that was not built in this environment comes from.

    `check` gets the repository within its lock and raises CrisplineError when the release may not be taken from there (any more).
    """

    environment: str
    check: Callable[[GitRepository], None]


def promote(platform: Platform, usecase: str, environment: str, release: str, cause: str, as_of: datetime) -> str:
    """`promote_release` of a release that was built in this environment; returns the commit."""
    return promote_release(platform, usecase, environment, release, cause, as_of).commit


def promote_release(
    platform: Platform,
    usecase: str,
    environment: str,
    release: str,
    cause: str,
    as_of: datetime,
    *,
    stores: Stores | None = None,
    origin: Origin | None = None,
    images: Mapping[ImageName, ImagePin] | None = None,
) -> Deployed:
    """Put a release into force in an environment, or propose it where usecase.yaml declares `pull_request`.

    `images`: digests by name; without them those of the release in force stay. `stores`: default those of the platform.

    A canary of this release that has passed its plan ends in the same commit. Raises IntegrityError when the bundle is not what was judged, and
    CrisplineError for an unknown environment, when this cause has promoted another release already, or while a canary is under way. In each
    case nothing is committed.
    """
    deployment = load_usecase(usecase).config.deployment
    if environment not in deployment.environments:
        raise CrisplineError(f"environment {environment!r} is not declared; usecase.yaml has deployment.environments: {', '.join(deployment.environments)}")
    stores = stores or Stores.of(platform)
    manifest = verify_release(stores, usecase, release, as_of)
    gates = RecordStore(stores.records).get("gates", manifest.gates_record)
    proposed = deployment.promotion.get(environment, "pull_request") == "pull_request"
    wanted = Release(
        usecase=manifest.usecase,
        environment=environment,
        release=release,
        model_version=manifest.model_version,
        data_version=manifest.data_version,
        gates_record=manifest.gates_record,
        evaluation=str(gates.details.get("evaluation", "")),
        images=dict(images or {}),
        source=origin.environment if origin else "",
        cause=cause,
        promoted=as_of,
    )
    repository = repository_of(platform)
    deployed = decided_again_when_moved(lambda: _commit(repository, stores, wanted, gates.reason, origin, keep_images=images is None, proposed=proposed))
    if deployed.proposal:
        title, body = split_message(_message(deployed.release, gates.reason))
        deployed = replace(deployed, pull_request=propose(platform, deployed.proposal, title, body))
    record_promotion(stores, deployed)
    return deployed


def decided_again_when_moved(decide: Callable[[], Decided]) -> Decided:
    """Decide, and decide again while somebody else was faster. Raises CrisplineError when that happens over and over."""
    for _ in range(_ATTEMPTS):
        try:
            return decide()
        except NotFastForward as error:
            last = error
    raise CrisplineError(f"{_ATTEMPTS} times in a row another commit came first ({last}); try again when the repository is quiet")


def _commit(repository: GitRepository, stores: Stores, wanted: Release, judged: str, origin: Origin | None, keep_images: bool, proposed: bool) -> Deployed:
    """Decide about one state of the repository and commit, or find what this cause has committed already. Raises NotFastForward."""
    usecase, environment = wanted.usecase, wanted.environment
    branch = f"promote/{environment}/{usecase}/{wanted.release[:12]}" if proposed else ""
    with repository.locked():
        if origin is not None:
            origin.check(repository)
        current = release_in(repository, usecase, environment)
        done = _promoted_by(repository, wanted, branch)
        if done is not None and done.release.release != wanted.release:
            raise CrisplineError(
                f"cause {wanted.cause!r} has promoted release {done.release.release[:12]} to {environment} already; "
                "one cause promotes one release, name another cause"
            )
        previous = current.release if current else ""
        if done is not None and not (done.proposal and done.release.previous != previous):
            return done
        ended = ended_by_promotion(repository, RecordStore(stores.records), Place(usecase, environment), wanted.release)
        change = wanted.model_copy(update={"previous": previous, "images": dict(current.images) if keep_images and current else wanted.images})
        files = {release_path(usecase, environment): release_content(change), **ended}
        commit = repository.commit_files(files, _message(change, judged), change.promoted, branch)
    return Deployed(commit, "promotion", change, branch)


def verify_release(stores: Stores, usecase: str, release: str, as_of: datetime) -> ReleaseManifest:
    """The manifest of a release that is what was judged; leaves a record of the check `release_integrity`. Raises IntegrityError otherwise."""
    try:
        manifest = judged_manifest(stores, usecase, release)
    except IntegrityError as error:
        _check(stores, usecase, release, as_of, "failed", str(error))
        raise
    _check(stores, usecase, release, as_of, "passed", f"All {len(manifest.files)} files match their hashes; gates record {manifest.gates_record} passed.")
    return manifest


def judged_manifest(stores: Stores, usecase: str, release: str) -> ReleaseManifest:
    """The manifest of a release whose files match their hashes and whose gates passed, by stored record. Reads only; raises IntegrityError."""
    manifest = verify_bundle(stores.bundles, release)
    short = release[:12]
    if manifest.usecase != usecase:
        raise IntegrityError(f"release {short} belongs to use case {manifest.usecase!r}, not {usecase!r}")
    if not manifest.gates_passed:
        raise IntegrityError(f"release {short} did not pass its gates ({manifest.gates_record}); only what passed may be promoted")
    record = RecordStore(stores.records).find("gates", manifest.gates_record)
    if record is None:
        raise IntegrityError(f"the gates record {manifest.gates_record} of release {short} is not among the records; it was judged elsewhere or not at all")
    if record.outcome != "passed":
        raise IntegrityError(f"the gates record {manifest.gates_record} of release {short} says {record.outcome!r}: {record.reason}")
    if record.lineage.model_version and record.lineage.model_version != manifest.model_version:
        raise IntegrityError(f"the gates record of release {short} is about model {record.lineage.model_version}, not {manifest.model_version}")
    if Record.model_validate_json(read_file(stores.bundles, release, "gates.json")) != record:
        raise IntegrityError(f"release {short} carries another gates record than the one stored as {manifest.gates_record}")
    return manifest


def _promoted_by(repository: GitRepository, wanted: Release, branch: str) -> Deployed | None:
    """The promotion of this cause, if the repository has one: Git is the truth, a record may be missing after a crash."""
    found = history_in(repository, wanted.usecase, wanted.environment)
    if branch:
        merged = {each.commit for each in found}
        found += [each for each in history_in(repository, wanted.usecase, wanted.environment, branch) if each.commit not in merged]
    return next((each for each in found if each.kind == "promotion" and each.release.cause == wanted.cause), None)


def propose(platform: Platform, branch: str, title: str, body: str) -> str:
    """The page of the pull request for a pushed branch; empty where no forge is known, so that a person opens it."""
    if not platform.forge_url or not is_remote(platform.gitops_repository):
        return ""
    return open_pull_request(platform.forge_url, PullRequest(platform.gitops_repository, branch, platform.gitops_branch, title, body))


def split_message(message: str) -> tuple[str, str]:
    """A commit's message as title and text."""
    title, _, body = message.partition("\n")
    return title, body.strip()


def _message(release: Release, judged: str) -> str:
    return "\n".join(
        [
            f"Promote {release.usecase} to {release.environment}: model {release.model_version}",
            "",
            f"Release {release.release}, judged by the gates record {release.gates_record}, decided as of {format_moment(release.promoted)}. {judged}".rstrip(),
            "",
            f"{KIND_TRAILER}: promotion",
            f"Cause: {release.cause}",
            f"Model: {release.model_version}",
            f"Gates: {release.gates_record}",
            f"Data: {release.data_version}",
            *([f"From: {release.source}"] if release.source else []),
            f"Previous: {release.previous or 'none'}",
            "",
        ]
    )


def record_promotion(stores: Stores, deployed: Deployed) -> None:
    """The record of a promotion, proposed or in force; writing it again is no change."""
    change, proposed = deployed.release, bool(deployed.proposal)
    replaced = f"replaces {change.previous[:12]}" if change.previous else "the first release there"
    RecordStore(stores.records).append(
        Record(
            kind="promotion",
            id=record_id(
                "promotion", change.usecase, change.environment, change.release, change.cause, change.previous, "proposed" if proposed else "promoted"
            ),
            usecase=change.usecase,
            event_time=change.promoted,
            outcome="proposed" if proposed else "promoted",
            reason=f"Model {change.model_version} {'is proposed for' if proposed else 'to'} {change.environment} because of {change.cause}; {replaced}.",
            inputs={"environment": change.environment, "gates_record": change.gates_record, "source": change.source},
            details={"commit": deployed.commit, "previous": change.previous, "images": {name: pin.digest for name, pin in change.images.items()}},
            lineage=lineage(change),
        )
    )


def lineage(change: Release) -> Lineage:
    return Lineage(data_version=change.data_version, model_version=change.model_version, champion=change.previous, release=change.release, cause=change.cause)


def _check(stores: Stores, usecase: str, release: str, as_of: datetime, outcome: str, reason: str) -> None:
    RecordStore(stores.records).append(
        Record(
            kind="check",
            id=record_id("release_integrity", usecase, release, as_of, outcome, reason),
            usecase=usecase,
            event_time=as_of,
            outcome=outcome,
            reason=reason,
            details={"check": "release_integrity"},
            lineage=Lineage(release=release),
        )
    )
