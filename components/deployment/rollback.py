"""Rollback: the release file points to an earlier release again, as a commit of its own; history is never rewritten."""

from __future__ import annotations

from datetime import datetime

from components.contracts.artifacts import Release
from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import Record, RecordStore, record_id
from components.deployment.gitops import GitRepository
from components.deployment.promotion import lineage, verify_release
from components.deployment.releases import KIND_TRAILER, Deployed, current_release, release_content, release_history, release_path

PREVIOUS = "previous"
_SHORTEST_ID = 8


def roll_back(platform: Platform, usecase: str, environment: str, to: str, reason: str, as_of: datetime) -> Deployed:
    """Go back to an earlier release: `to` is its id, the start of it (at least 8 digits), or `previous`.

    Takes effect at once, also where a promotion needs a pull request. Already there: the commit that brought it, nothing new. Raises
    CrisplineError when the release was never in force here, and IntegrityError when its bundle no longer matches its hashes.
    """
    repository = GitRepository(platform.gitops_repository)
    if current_release(platform, usecase, environment) is None:
        raise CrisplineError(f"nothing was ever promoted for {usecase} in {environment}; there is nothing to roll back to")
    with repository.locked():
        history = release_history(platform, usecase, environment)
        current = history[0].release
        target = find_release(history, to)
        if target.release == current.release:
            return history[0]
        verify_release(platform, usecase, target.release, as_of)
        change = target.model_copy(
            update={"cause": f"rollback: {reason}", "promoted": as_of, "previous": current.release, "environment": environment, "usecase": usecase}
        )
        commit = repository.commit_file(release_path(usecase, environment), release_content(change), _message(change, current), as_of)
    deployed = Deployed(commit, "rollback", change)
    _record(platform, deployed, current, reason)
    return deployed


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


def _record(platform: Platform, deployed: Deployed, current: Release, reason: str) -> None:
    change = deployed.release
    RecordStore(platform.records_uri).append(
        Record(
            kind="rollback",
            id=record_id("rollback", change.usecase, change.environment, current.release, change.release, deployed.commit),
            usecase=change.usecase,
            event_time=change.promoted,
            outcome="rolled_back",
            reason=f"From model {current.model_version} back to model {change.model_version} in {change.environment}: {reason}",
            inputs={"environment": change.environment, "from": current.release, "to": change.release},
            details={"commit": deployed.commit},
            lineage=lineage(change),
        )
    )
