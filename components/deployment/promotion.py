"""Promotion: one atomic change of an environment's release file, as a Git commit that Argo CD, Flux or `helm upgrade` then acts on.

What is promoted was judged: the bundle is read whole and compared with its hashes, its gates' record must exist, have passed and be about
this very model. The same cause promotes once: promoting the same release again finds the first commit, another release is refused.
"""

from __future__ import annotations

from datetime import datetime

from components.contracts.artifacts import Release, ReleaseManifest
from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError, IntegrityError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.deployment.bundle import read_file, verify_bundle
from components.deployment.gitops import BRANCH, GitRepository
from components.deployment.releases import KIND_TRAILER, Deployed, current_release, release_content, release_history, release_path

__all__ = ["current_release", "promote", "release_history", "verify_release"]


def promote(platform: Platform, usecase: str, environment: str, release: str, cause: str, as_of: datetime) -> str:
    """Put a release into force in an environment, or propose it where usecase.yaml declares `pull_request`. Returns the commit.

    Raises IntegrityError when the bundle is not what was judged, and CrisplineError for an unknown environment or when this cause has
    promoted another release already. Either way nothing is committed.
    """
    deployment = load_usecase(usecase).config.deployment
    if environment not in deployment.environments:
        raise CrisplineError(f"environment {environment!r} is not declared; usecase.yaml has deployment.environments: {', '.join(deployment.environments)}")
    manifest = verify_release(platform, usecase, release, as_of)
    proposed = deployment.promotion.get(environment, "pull_request") == "pull_request"
    branch = f"promote/{environment}/{usecase}/{release[:12]}" if proposed else BRANCH
    repository = GitRepository(platform.gitops_repository)
    with repository.locked():
        done = _promoted_by(platform, usecase, environment, cause, branch)
        if done is not None and done.release.release != release:
            raise CrisplineError(
                f"cause {cause!r} has promoted release {done.release.release[:12]} to {environment} already; one cause promotes one release, name another cause"
            )
        if done is None:
            current = current_release(platform, usecase, environment)
            change = _release(manifest, environment, release, cause, as_of, current)
            commit = repository.commit_file(release_path(usecase, environment), release_content(change), _message(change), as_of, branch)
            done = Deployed(commit, "promotion", change)
    _record(platform, done, proposed)
    return done.commit


def verify_release(platform: Platform, usecase: str, release: str, as_of: datetime) -> ReleaseManifest:
    """The manifest of a release that is what was judged; leaves a record of the check `release_integrity`. Raises IntegrityError otherwise."""
    try:
        manifest = _verified(platform, usecase, release)
    except IntegrityError as error:
        _check(platform, usecase, release, as_of, "failed", str(error))
        raise
    _check(platform, usecase, release, as_of, "passed", f"All {len(manifest.files)} files match their hashes; gates record {manifest.gates_record} passed.")
    return manifest


def _verified(platform: Platform, usecase: str, release: str) -> ReleaseManifest:
    manifest = verify_bundle(platform.bundles_uri, release)
    short = release[:12]
    if manifest.usecase != usecase:
        raise IntegrityError(f"release {short} belongs to use case {manifest.usecase!r}, not {usecase!r}")
    if not manifest.gates_passed:
        raise IntegrityError(f"release {short} did not pass its gates ({manifest.gates_record}); only what passed may be promoted")
    record = RecordStore(platform.records_uri).find("gates", manifest.gates_record)
    if record is None:
        raise IntegrityError(f"the gates record {manifest.gates_record} of release {short} is not among the records; it was judged elsewhere or not at all")
    if record.outcome != "passed":
        raise IntegrityError(f"the gates record {manifest.gates_record} of release {short} says {record.outcome!r}: {record.reason}")
    if record.lineage.model_version and record.lineage.model_version != manifest.model_version:
        raise IntegrityError(f"the gates record of release {short} is about model {record.lineage.model_version}, not {manifest.model_version}")
    if Record.model_validate_json(read_file(platform.bundles_uri, release, "gates.json")) != record:
        raise IntegrityError(f"release {short} carries another gates record than the one stored as {manifest.gates_record}")
    return manifest


def _promoted_by(platform: Platform, usecase: str, environment: str, cause: str, branch: str) -> Deployed | None:
    """The promotion of this cause, if the repository has one: Git is the truth, a record may be missing after a crash."""
    found = release_history(platform, usecase, environment) + (release_history(platform, usecase, environment, branch) if branch != BRANCH else [])
    return next((each for each in found if each.kind == "promotion" and each.release.cause == cause), None)


def _release(manifest: ReleaseManifest, environment: str, release: str, cause: str, as_of: datetime, current: Release | None) -> Release:
    return Release(
        usecase=manifest.usecase,
        environment=environment,
        release=release,
        model_version=manifest.model_version,
        data_version=manifest.data_version,
        gates_record=manifest.gates_record,
        cause=cause,
        promoted=as_of,
        previous=current.release if current else "",
    )


def _message(release: Release) -> str:
    return "\n".join(
        [
            f"Promote {release.usecase} to {release.environment}: model {release.model_version}",
            "",
            f"Release {release.release}, judged by the gates record {release.gates_record}, on data as of {format_moment(release.promoted)}.",
            "",
            f"{KIND_TRAILER}: promotion",
            f"Cause: {release.cause}",
            f"Model: {release.model_version}",
            f"Gates: {release.gates_record}",
            f"Data: {release.data_version}",
            f"Previous: {release.previous or 'none'}",
            "",
        ]
    )


def _record(platform: Platform, deployed: Deployed, proposed: bool) -> None:
    change = deployed.release
    replaced = f"replaces {change.previous[:12]}" if change.previous else "the first release there"
    RecordStore(platform.records_uri).append(
        Record(
            kind="promotion",
            id=record_id("promotion", change.usecase, change.environment, change.release, change.cause),
            usecase=change.usecase,
            event_time=change.promoted,
            outcome="proposed" if proposed else "promoted",
            reason=f"Model {change.model_version} {'is proposed for' if proposed else 'to'} {change.environment} because of {change.cause}; {replaced}.",
            inputs={"environment": change.environment, "gates_record": change.gates_record},
            details={"commit": deployed.commit, "previous": change.previous},
            lineage=lineage(change),
        )
    )


def lineage(change: Release) -> Lineage:
    return Lineage(data_version=change.data_version, model_version=change.model_version, champion=change.previous, release=change.release, cause=change.cause)


def _check(platform: Platform, usecase: str, release: str, as_of: datetime, outcome: str, reason: str) -> None:
    RecordStore(platform.records_uri).append(
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
