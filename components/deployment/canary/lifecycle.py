"""How a canary begins and ends by a reviewed change: what else than release.json such a change has to commit."""

from __future__ import annotations

from collections.abc import Sequence

from components.contracts.errors import CrisplineError
from components.contracts.records import RecordStore
from components.deployment.canary.plan import NO_CANARY, content_of, first_stage
from components.deployment.canary.policy import check_review
from components.deployment.canary.trail import Place, read_state
from components.deployment.gitops import GitRepository


def beginning(repository: GitRepository, place: Place, release: str, plan: Sequence[int], shadow: bool = False) -> dict[str, bytes]:
    """The change that begins a canary, content by path. The review of it approves the whole plan.

    Call it within `repository.locked()`. Raises InvalidCanary for a plan that cannot be, and ForbiddenChange where a canary is under way, where
    nothing is released, or where `release` is the champion.
    """
    state = read_state(repository, place)
    content = content_of(first_stage(release, plan, shadow))
    check_review(repository.read_file(place.path), content, state.champion.release if state.champion else "", place.path)
    return {place.path: content}


def ended_by_promotion(repository: GitRepository, records: RecordStore, place: Place, release: str) -> dict[str, bytes]:
    """What a promotion of `release` has to commit beside release.json: the end of its own canary, in the same commit; nothing without a canary.

    Call it within `repository.locked()`. Raises CrisplineError while the canary of another release is under way, and when this release's own
    canary has not passed its whole plan.
    """
    state = read_state(repository, place)
    if state.canary is None:
        return {}
    ending = f"    remedy: wait for its end, or end it by a reviewed change of {place.path}: `canary: {{}}`"
    if state.canary.release != release:
        raise CrisplineError(f"the canary of {state.canary.release[:12]} in {place} is at {state.canary.stage}; nothing else is promoted meanwhile\n{ending}")
    if state.champion is None or state.champion.release == release:
        return {place.path: NO_CANARY}
    if not state.canary.is_last or records.find("canary", state.stage.record_id("complete")) is None:
        raise CrisplineError(f"the canary of {release[:12]} in {place} is at {state.canary.stage} and has not passed its whole plan\n{ending}")
    return {place.path: NO_CANARY}
