"""What may change in canary.yaml, and by whom. Continuous integration holds every commit against it (`crispline check-releases`).

The controller may take the next step of the plan that a review approved, or end the canary; nothing else, and in no other file. A review
may start a canary where none is, at its beginning, or end one; it cannot put a second one over the first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from components.contracts.errors import CrisplineError
from components.deployment.canary.plan import Canary, InvalidCanary, canary_path, first_stage, next_stage, parse
from components.deployment.gitops import FileVersion
from components.deployment.releases import KIND_TRAILER

STEP, ROLLBACK, FINISH = "canary-step", "canary-rollback", "canary-finish"
CONTROLLER_KINDS = (STEP, ROLLBACK, FINISH)
_PATH = re.compile(r"^manifests/environments/(?P<environment>[a-z][a-z0-9_-]*)/(?P<usecase>[a-z][a-z0-9_]*)/canary\.yaml$")


class ForbiddenChange(CrisplineError):
    """A commit changes what its author may not change."""


def by_controller(trailers: Mapping[str, str]) -> bool:
    """Whether a commit says of itself that the canary controller made it."""
    return trailers.get(KIND_TRAILER, "") in CONTROLLER_KINDS


def approved(history: Sequence[FileVersion], path: str) -> Canary | None:
    """The canary as a review approved it: the newest version in `history` (newest first) that the controller did not write."""
    found = next((version for version in history if not by_controller(version.trailers)), None)
    return None if found is None else parse(found.content, path)


def check_change(before: Mapping[str, bytes | None], after: Mapping[str, bytes | None], plan: Sequence[int]) -> None:
    """Raise ForbiddenChange unless one commit of the controller is allowed.

    `before` and `after`: content by path of every file that the commit changes, adds (None before) or removes (None after).
    `plan`: the percentages that the review approved (see `approved`); a shadow stage before them is not part of it.
    """
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    others = [path for path in changed if not _PATH.match(path)]
    if others or len(changed) != 1:
        raise ForbiddenChange(
            f"the canary controller changed {', '.join(changed) or 'nothing'}; it may change only one manifests/environments/<environment>/<usecase>/canary.yaml"
        )
    path = changed[0]
    old, new = _parsed(before.get(path), path), _parsed(after.get(path), path)
    if old is None:
        raise ForbiddenChange(f"{path}: the canary controller started a canary; only a reviewed change may")
    if new is None:
        return
    if list(new.plan) != list(plan) or list(old.plan) != list(plan):
        raise ForbiddenChange(f"{path}: the plan is {list(new.plan)}, approved was {list(plan)}")
    if old.is_last or new != next_stage(old):
        raise ForbiddenChange(f"{path}: from {_said(old)} to {_said(new)} is not the next step of the plan {list(plan)}")


def check_review(before: bytes | None, after: bytes | None, released: str, path: str = "canary.yaml") -> None:
    """Raise ForbiddenChange unless a reviewed change of canary.yaml is allowed: starting one where none is, at its beginning, or ending one.

    `released`: the bundle id of the environment's release.json; empty when nothing is released there.
    """
    old, new = _parsed(before, path), _parsed(after, path)
    if new is None or new == old:
        return
    if old is not None:
        raise ForbiddenChange(
            f"{path}: a canary of {old.release[:12]} is at {old.stage}; there are never two at once\n    remedy: end it first: `canary: {{}}`"
        )
    if not released:
        raise ForbiddenChange(f"{path}: nothing is released here, so there is no champion to compare with\n    remedy: promote the release itself")
    if new.release == released:
        raise ForbiddenChange(f"{path}: {released[:12]} is the champion already; it cannot be its own challenger")
    try:
        beginning = first_stage(new.release, new.plan, new.shadow)
    except InvalidCanary as error:
        raise ForbiddenChange(f"{path}: {error}") from error
    if new != beginning:
        raise ForbiddenChange(f"{path}: a canary begins with {_said(beginning)}, not with {_said(new)}")


def place_of(path: str) -> tuple[str, str] | None:
    """Environment and use case that a path of canary.yaml belongs to; None for any other path."""
    match = _PATH.match(path)
    if match is None:
        return None
    environment, usecase = match["environment"], match["usecase"]
    return (environment, usecase) if canary_path(usecase, environment) == path else None


def _parsed(content: bytes | None, path: str) -> Canary | None:
    try:
        return parse(content, path)
    except InvalidCanary as error:
        raise ForbiddenChange(str(error)) from error


def _said(canary: Canary) -> str:
    return f"{canary.stage} of {canary.release[:12]}"
