"""What continuous integration holds against every change below `manifests/environments/`: `crispline check-releases`.

A release file must name a bundle that is whole, that passed its gates by a stored record, and that fits what the file says of it; it must
follow on the release that was in force. A canary may only begin at its beginning and move by its plan, and the canary controller may touch
nothing else. What cannot be checked, because a store does not answer, is refused, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from components.contracts.artifacts import Release, ReleaseManifest
from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.records import RecordStore
from components.deployment.canary.plan import NO_CANARY, parse
from components.deployment.canary.policy import ForbiddenChange, approved, by_controller, check_change, check_review, place_of
from components.deployment.gitops import Commit, GitRepository
from components.deployment.promotion import Stores, judged_manifest
from components.deployment.releases import ENVIRONMENTS_FOLDER, NOTHING_RELEASED, RELEASE_FILE, release_path, released

CONTROLLER_ADDRESS = "crispline-canary@localhost"
_PLACE = re.compile(rf"^{ENVIRONMENTS_FOLDER}/(?P<environment>[^/]+)/(?P<usecase>[^/]+)/{re.escape(RELEASE_FILE)}$")


@dataclass(frozen=True)
class Fault:
    """A change that is refused: which file, in which commit, why. `commit` is empty for the state as a whole."""

    path: str
    commit: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}{f' in {self.commit[:12]}' if self.commit else ''}: {self.reason}"


@dataclass(frozen=True)
class Checked:
    """`releases` and `canaries`: how many were looked at, so that a check of nothing shows."""

    releases: int
    canaries: int
    faults: tuple[Fault, ...]


class ReleaseCheck:
    """Policy for the environments that `stores` reaches. `stores` gives an environment's stores, or raises CrisplineError."""

    def __init__(self, repository: GitRepository, stores: Callable[[str], Stores], environments: frozenset[str], controller: str = CONTROLLER_ADDRESS) -> None:
        self._repository, self._stores, self._environments, self._controller = repository, stores, environments, controller
        self._judged: dict[tuple[str, str, str], ReleaseManifest | str] = {}

    def changes(self, base: str, head: str) -> Checked:
        """Every commit after `base` up to `head`, along first parents."""
        releases = canaries = 0
        faults: list[Fault] = []
        for commit in self._repository.commits(base, head, ENVIRONMENTS_FOLDER):
            for path in sorted(commit.after):
                if (place := _release_place(path)) and place[0] in self._environments:
                    releases += 1
                    faults.extend(Fault(path, commit.id, reason) for reason in self._release_change(commit, path, *place))
                elif (place := place_of(path)) and place[0] in self._environments:
                    canaries += 1
                    faults.extend(Fault(path, commit.id, reason) for reason in self._canary_change(commit, path, *place))
            if self._is_controllers(commit):
                faults.extend(Fault(commit.id[:12], "", reason) for reason in self._controllers_change(commit))
        return Checked(releases, canaries, tuple(faults))

    def state(self, head: str) -> Checked:
        """Everything that is released, or a challenger, at one commit."""
        releases = canaries = 0
        faults: list[Fault] = []
        for path in self._repository.list_files(ENVIRONMENTS_FOLDER, head):
            content = self._repository.read_file(path, head)
            if content is None:
                continue
            if (place := _release_place(path)) and place[0] in self._environments:
                releases += content.strip() != NOTHING_RELEASED.strip()
                faults.extend(Fault(path, "", reason) for reason in self._release(content, path, *place))
            elif (place := place_of(path)) and place[0] in self._environments:
                canaries += content.strip() != NO_CANARY.strip()
                faults.extend(Fault(path, "", reason) for reason in self._challenger(content, path, *place))
        return Checked(releases, canaries, tuple(faults))

    # --- release files -------------------------------------------------------------------------------------------------------------------

    def _release_change(self, commit: Commit, path: str, environment: str, usecase: str) -> Iterator[str]:
        yield from self._release(commit.after[path], path, environment, usecase)
        try:
            new, old = released(commit.after[path], path), released(commit.before[path], path)
        except CrisplineError:
            return  # the fault in the new one is told already; an old one is mended by this change
        if new is None:
            if old is not None:
                yield (
                    "the release file is removed or emptied; what was in force must stay known\n"
                    "    remedy: restore it; to end serving, take the use case's values.yaml out of the environment"
                )
            return
        if old is not None and new.release != old.release and new.previous != old.release:
            yield (
                f"it was decided about release {new.previous[:12] or 'none'}, but {old.release[:12]} was in force\n"
                "    remedy: promote again, so that it is decided about the present state"
            )
        if new.source:
            yield from self._origin(commit, new)

    def _origin(self, commit: Commit, release: Release) -> Iterator[str]:
        path = release_path(release.usecase, release.source)
        versions = self._repository.history(path, revision=commit.id)
        if not any(found.release == release.release for version in versions if (found := released(version.content, path))):
            yield f"it says that it comes from {release.source}, where release {release.release[:12]} was never in force"

    def _release(self, content: bytes | None, path: str, environment: str, usecase: str) -> Iterator[str]:
        try:
            release = released(content, path)
        except CrisplineError as error:
            yield str(error)
            return
        if release is None:
            return
        if (release.environment, release.usecase) != (environment, usecase):
            yield f"it is about {release.usecase} in {release.environment}, not about {usecase} in {environment}"
            return
        manifest = self._judge(environment, usecase, release.release)
        if isinstance(manifest, str):
            yield manifest
            return
        for name in ("model_version", "data_version", "gates_record"):
            said, is_ = getattr(release, name), getattr(manifest, name)
            if said != is_:
                yield f"{name} is {said!r}, but the bundle says {is_!r}"
        gates = RecordStore(self._stores(environment).records).get("gates", manifest.gates_record)
        if release.evaluation != str(gates.details.get("evaluation", "")):
            yield f"evaluation is {release.evaluation!r}, but the gates judged {gates.details.get('evaluation')!r}"

    def _judge(self, environment: str, usecase: str, release: str) -> ReleaseManifest | str:
        key = (environment, usecase, release)
        if key not in self._judged:
            try:
                if environment not in load_usecase(usecase).config.deployment.environments:
                    raise CrisplineError(f"{environment} is no environment of {usecase}; usecase.yaml has deployment.environments")
                self._judged[key] = judged_manifest(self._stores(environment), usecase, release)
            except CrisplineError as error:
                self._judged[key] = str(error)
            except Exception as error:  # an object store's own errors: whatever it is, nothing was checked
                self._judged[key] = f"release {release[:12]} cannot be checked: {type(error).__name__}: {error}"
        return self._judged[key]

    # --- canaries ------------------------------------------------------------------------------------------------------------------------

    def _is_controllers(self, commit: Commit) -> bool:
        return by_controller(commit.trailers) or commit.author_address == self._controller

    def _controllers_change(self, commit: Commit) -> Iterator[str]:
        places = [path for path in commit.after if place_of(path)]
        allowed = approved(self._repository.history(places[0], revision=commit.parent), places[0]) if len(places) == 1 else None
        try:
            check_change(commit.before, commit.after, allowed.plan if allowed else ())
        except CrisplineError as error:
            yield str(error)

    def _canary_change(self, commit: Commit, path: str, environment: str, usecase: str) -> Iterator[str]:
        after = commit.after[path]
        if not self._is_controllers(commit):
            released = self._released(commit.id, environment, usecase)
            try:
                check_review(commit.before[path], after, released, path)
            except ForbiddenChange as error:
                yield str(error)
        if after is not None:
            yield from self._challenger(after, path, environment, usecase)

    def _challenger(self, content: bytes, path: str, environment: str, usecase: str) -> Iterator[str]:
        try:
            canary = parse(content, path)
        except CrisplineError as error:
            yield str(error)
            return
        judged = self._judge(environment, usecase, canary.release) if canary else None
        if isinstance(judged, str):
            yield judged

    def _released(self, revision: str, environment: str, usecase: str) -> str:
        path = release_path(usecase, environment)
        try:
            found = released(self._repository.read_file(path, revision), path)
        except CrisplineError:
            return ""
        return found.release if found else ""


def _release_place(path: str) -> tuple[str, str] | None:
    match = _PLACE.match(path)
    return (match["environment"], match["usecase"]) if match else None
