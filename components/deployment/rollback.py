"""Rollback: the release file points to an earlier release again, as a commit of its own; history is never rewritten."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from components.contracts.artifacts import Release
from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import Record, RecordStore, record_id
from components.deployment.canary.plan import NO_CANARY, canary_path
from components.deployment.gitops import GitRepository
from components.deployment.promotion import Stores, decided_again_when_moved, lineage, propose, split_message, verify_release
from components.deployment.releases import KIND_TRAILER, Deployed, history_in, release_content, release_path, repository_of

PREVIOUS = "previous"
_SHORTEST_ID = 8


def roll_back(
    platform: Platform, usecase: str, environment: str, to: str, reason: str, as_of: datetime, *, stores: Stores | None = None, proposed: bool = False
) -> Deployed:
    """Go back to an earlier release: `to` is its id, the start of it (at least 8 digits), or `previous`. Its images come back with it.

    Takes effect at once, also where a promotion needs a pull request; with `proposed` it becomes a branch, and a pull request where a forge is
    known. Already there: the commit that brought it, nothing new. When the repository moved meanwhile, it is decided again.

    Raises CrisplineError when the release was never in force here, and IntegrityError when its bundle no longer matches its hashes.
    """
    stores = stores or Stores.of(platform)
    repository = repository_of(platform)
    if not repository.exists or not history_in(repository, usecase, environment):
        raise CrisplineError(f"nothing was ever promoted for {usecase} in {environment}; there is nothing to roll back to")
    deployed, given_up = decided_again_when_moved(lambda: _commit(repository, stores, usecase, environment, to, reason, as_of, proposed))
    if given_up is None:
        return deployed
    if deployed.proposal:
        deployed = replace(deployed, pull_request=propose(platform, deployed.proposal, *split_message(_message(deployed.release, given_up))))
    _record(stores, deployed, given_up, reason)
    return deployed


def _commit(
    repository: GitRepository, stores: Stores, usecase: str, environment: str, to: str, reason: str, as_of: datetime, proposed: bool
) -> tuple[Deployed, Release | None]:
    """Decide about one state of the repository and commit; with the release that is given up, None when the target is in force already."""
    with repository.locked():
        history = history_in(repository, usecase, environment)
        current = history[0].release
        target = find_release(history, to)
        if target.release == current.release:
            return history[0], None
        verify_release(stores, usecase, target.release, as_of)
        change = target.model_copy(
            update={"cause": f"rollback: {reason}", "promoted": as_of, "previous": current.release, "environment": environment, "usecase": usecase}
        )
        branch = f"rollback/{environment}/{usecase}/{target.release[:12]}" if proposed else ""
        files: dict[str, bytes | None] = {release_path(usecase, environment): release_content(change)}
        canary = canary_path(usecase, environment)
        if repository.read_file(canary) not in (None, NO_CANARY):
            files[canary] = NO_CANARY  # its champion goes, so it has nothing left to compare with
        commit = repository.commit_files(files, _message(change, current), as_of, branch)
    return Deployed(commit, "rollback", change, branch), current


def find_release(history: list[Deployed], to: str) -> Release:
    """The release that `to` means among those that were in force, newest first. Raises CrisplineError for none or several."""
    wanted = history[0].release.previous if to == PREVIOUS else to
    if not wanted:
        raise CrisplineError("the current release is the first one; there is no earlier release to roll back to")
    if len(wanted) < _SHORTEST_ID:
        raise CrisplineError(f"{wanted!r} is too short for a release's id; give at least {_SHORTEST_ID} digits, or `{PREVIOUS}`")
    found = {each.release.release: each.release for each in reversed(history) if each.release.release.startswith(wanted)}
    if len(found) != 1:
        known = ", ".join(dict.fromkeys(each.release.release[:12] for each in history))
        raise CrisplineError(f"{wanted[:12]} names {len(found) or 'no'} release that was in force here; these were: {known}")
    return next(iter(found.values()))


def _message(change: Release, current: Release) -> str:
    return "\n".join(
        [
            f"Roll {change.usecase} back in {change.environment}: model {change.model_version}",
            "",
            f"From release {current.release} (model {current.model_version}) to release {change.release}. {change.cause}",
            "",
            f"{KIND_TRAILER}: rollback",
            f"Model: {change.model_version}",
            f"Gates: {change.gates_record}",
            f"Data: {change.data_version}",
            f"Previous: {current.release}",
            "",
        ]
    )


def _record(stores: Stores, deployed: Deployed, current: Release, reason: str) -> None:
    change = deployed.release
    RecordStore(stores.records).append(
        Record(
            kind="rollback",
            id=record_id("rollback", change.usecase, change.environment, current.release, change.release, deployed.commit, deployed.proposal),
            usecase=change.usecase,
            event_time=change.promoted,
            outcome="proposed" if deployed.proposal else "rolled_back",
            reason=f"{'Proposed: f' if deployed.proposal else 'F'}rom model {current.model_version} back to model {change.model_version} in {change.environment}: {reason}",
            inputs={"environment": change.environment, "from": current.release, "to": change.release},
            details={"commit": deployed.commit},
            lineage=lineage(change),
        )
    )
