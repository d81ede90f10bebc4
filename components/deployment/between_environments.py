"""From one environment to the next: what moves is the release bundle, as it was judged, and the digests of the images that serve it.

The source is only read. The bundle and the record of its gates are copied into the target's own stores and judged there again, from nothing
else: the target needs no other environment's MLflow, records or bundles, at that moment or later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from components.contracts.artifacts import ImagePin, Release
from components.contracts.durations import format_moment
from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.records import Lineage, Record, RecordStore, record_id
from components.contracts.usecase import UseCase
from components.deployment.canary.lifecycle import beginning
from components.deployment.canary.plan import Canary, canary_path, first_stage, parse
from components.deployment.canary.trail import Place
from components.deployment.gitops import GitRepository
from components.deployment.promotion import (
    ImageName,
    Origin,
    Stores,
    decided_again_when_moved,
    judged_manifest,
    promote_release,
    propose,
    split_message,
    verify_release,
)
from components.deployment.releases import KIND_TRAILER, Deployed, release_in, repository_of
from components.deployment.transfer import Transferred, transfer

CANARY_START = "canary-start"


@dataclass(frozen=True)
class Side:
    """An environment as this process reaches it."""

    platform: Platform
    stores: Stores

    @property
    def name(self) -> str:
        return self.platform.environment


@dataclass(frozen=True)
class Started:
    """The commit with which a canary starts, or is proposed on the branch `proposal`."""

    commit: str
    canary: Canary
    proposal: str = ""
    pull_request: str = ""


def release_to_promote(source: Side, target: Side, usecase: str, release: str = "") -> Release:
    """The release in force in the source, whole and judged, if it may go to the target. Reads only.

    `release`: what the caller expects it to be. Raises CrisplineError when the environments do not follow each other or nothing, or another
    release, is in force in the source, and IntegrityError when it is not what was judged.
    """
    order = load_usecase(usecase).config.deployment.environments
    unknown = [name for name in (source.name, target.name) if name not in order]
    if unknown:
        raise CrisplineError(f"environment {unknown[0]!r} is not declared; usecase.yaml has deployment.environments: {', '.join(order)}")
    if order.index(target.name) <= order.index(source.name):
        raise CrisplineError(f"{target.name} does not come after {source.name} in deployment.environments ({', '.join(order)}); promote forwards only")
    found = release_in(repository_of(source.platform), usecase, source.name)
    if found is None:
        raise CrisplineError(f"nothing is released to {source.name}, so there is nothing to promote from there")
    if release and not found.release.startswith(release):
        raise CrisplineError(f"release {found.release[:12]} is in force in {source.name}, not {release[:12]}; only what is in force there is promoted")
    judged_manifest(source.stores, usecase, found.release)
    return found


def require_no_skew(source: Side, target: Side, found: Release, unchecked: str = "") -> str:
    """The sentence of the check that compared what this release was served with in the source with the training join; copies its record to the target.

    The newest record counts. `unchecked`: why it may go without one. Raises CrisplineError when the check failed, or was not made.
    """
    store = RecordStore(source.stores.records)
    records = [each for each in store.list("check") if each.details.get("check") == "serving_skew" and each.details.get("release") == found.release]
    if records and records[-1].outcome != "passed":
        raise CrisplineError(
            f"release {found.release[:12]} is served with other features than it learned from in {source.name}: {records[-1].reason}\n"
            "    remedy: find the view in the check's record (`differing`), correct its publication, serve again and run the data pipeline"
        )
    if not records:
        if unchecked:
            return f"not checked for training/serving skew: {unchecked}"
        raise CrisplineError(
            f"nobody has compared what release {found.release[:12]} is served with in {source.name} with what it learned from\n"
            f"    remedy: send it requests by entity key (crispline replay --env {source.name}, of the day published last), then crispline submit data --env {source.name}; "
            "or say why it may go without: --unchecked '<reason>'"
        )
    RecordStore(target.stores.records).append(records[-1])
    return records[-1].reason


def promote_between(
    source: Side, target: Side, usecase: str, found: Release, cause: str, as_of: datetime, images: Mapping[ImageName, ImagePin]
) -> tuple[Transferred, Deployed]:
    """Copy the release into the target's stores and put it into force there, or propose it. `found`: from `release_to_promote`.

    When the repository moves meanwhile, it is decided again; also whether the release is still in force in the source. Raises CrisplineError
    and IntegrityError; then nothing is committed, and the copied blobs, which nothing refers to, do no harm.
    """
    moved = transfer(source.stores, target.stores, found.release)
    deployed = promote_release(
        target.platform, usecase, target.name, found.release, cause, as_of, stores=target.stores, origin=_origin(source, target, found), images=images
    )
    if not deployed.proposal:
        current = release_in(repository_of(target.platform), usecase, target.name)
        if current is None or current.release != found.release:
            raise CrisplineError(
                f"cause {cause!r} has promoted release {found.release[:12]} to {target.name} before, and another one took its place since; "
                "one cause promotes once, so name another: --cause <why it goes there again>"
            )
    return moved, deployed


def start_canary(source: Side, target: Side, usecase: str, found: Release, as_of: datetime, shadow: bool) -> tuple[Transferred, Started]:
    """Copy the release into the target's stores and begin its canary there, by the plan `deployment.canary_steps`, or propose that.

    The reviewed change approves the whole plan; the canary controller takes its steps. A canary of this release that is under way already is
    found. Raises ForbiddenChange when there is no champion or another canary is under way, else as `promote_between`.
    """
    config = load_usecase(usecase).config
    moved = transfer(source.stores, target.stores, found.release)
    verify_release(target.stores, usecase, found.release, as_of)
    canary = first_stage(found.release, config.deployment.canary_steps, shadow)
    repository, origin = repository_of(target.platform), _origin(source, target, found)
    started = decided_again_when_moved(lambda: _start(repository, config, target.name, canary, origin, as_of))
    if started.proposal:
        title, body = split_message(_message(usecase, target.name, canary, source.name, as_of))
        started = replace(started, pull_request=propose(target.platform, started.proposal, title, body))
    _record(target.stores, usecase, target.name, found, started, as_of)
    return moved, started


def _origin(source: Side, target: Side, found: Release) -> Origin:
    def check(repository: GitRepository) -> None:
        same = (source.platform.gitops_repository, source.platform.gitops_branch) == (target.platform.gitops_repository, target.platform.gitops_branch)
        now = release_in(repository if same else repository_of(source.platform), found.usecase, source.name)
        if now is None or now.release != found.release:
            raise CrisplineError(f"release {found.release[:12]} is no longer in force in {source.name}; it is not promoted from there")

    return Origin(source.name, check)


def _start(repository: GitRepository, config: UseCase, environment: str, canary: Canary, origin: Origin, as_of: datetime) -> Started:
    usecase, path = config.name, canary_path(config.name, environment)
    place = Place(usecase, environment)
    proposed = config.deployment.promotion.get(environment, "pull_request") == "pull_request"
    branch = f"promote/{environment}/{usecase}/canary-{canary.release[:12]}" if proposed else ""
    with repository.locked():
        origin.check(repository)
        running = parse(repository.read_file(path), path)
        if running is not None and running.release == canary.release:
            return Started(repository.history(path)[0].commit, running)
        files = beginning(repository, place, canary.release, canary.plan, canary.shadow)
        if branch:
            proposal = next(iter(repository.history(path, branch)), None)
            if proposal is not None and proposal.content == files[path] and proposal.trailers.get(KIND_TRAILER) == CANARY_START:
                return Started(proposal.commit, canary, branch)
        commit = repository.commit_files(files, _message(usecase, environment, canary, origin.environment, as_of), as_of, branch)
    return Started(commit, canary, branch)


def _message(usecase: str, environment: str, canary: Canary, source: str, as_of: datetime) -> str:
    plan = ", ".join(f"{share} %" for share in canary.plan)
    return "\n".join(
        [
            f"Start the canary of {usecase} in {environment}: release {canary.release[:12]}",
            "",
            f"Release {canary.release} from {source}, decided as of {format_moment(as_of)}. {'A shadow first, then' if canary.shadow else 'Plan:'} {plan}.",
            "This change approves the whole plan. The canary controller takes its steps, each judged on live evidence, and ends it when it is harmful.",
            "",
            f"{KIND_TRAILER}: {CANARY_START}",
            f"From: {source}",
            "",
        ]
    )


def _record(stores: Stores, usecase: str, environment: str, found: Release, started: Started, as_of: datetime) -> None:
    canary, records = started.canary, RecordStore(stores.records)
    id = record_id("promotion", usecase, environment, canary.release, started.commit)
    if records.find("promotion", id) is not None:
        return
    records.append(
        Record(
            kind="promotion",
            id=id,
            usecase=usecase,
            event_time=as_of,
            outcome="canary_proposed" if started.proposal else "canary_started",
            reason=f"Model {found.model_version} {'is proposed as' if started.proposal else 'is'} the challenger in {environment}, by {list(canary.plan)} percent.",
            inputs={"environment": environment, "gates_record": found.gates_record, "plan": list(canary.plan), "shadow": canary.shadow},
            details={"commit": started.commit},
            lineage=Lineage(data_version=found.data_version, model_version=found.model_version, release=found.release),
        )
    )
