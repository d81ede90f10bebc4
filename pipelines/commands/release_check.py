"""`crispline check-releases`: the policy of continuous integration for `manifests/environments/`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from components.contracts.errors import CrisplineError
from components.deployment.environment_file import environment_path, known_environments, parse_environment
from components.deployment.gitops import GitRepository
from components.deployment.promotion import Stores, record_promotion
from components.deployment.release_policy import CONTROLLER_ADDRESS, Checked, ReleaseCheck
from components.deployment.releases import ENVIRONMENTS_FOLDER, KIND_TRAILER, PLATFORM_FILE, RELEASE_FILE, Deployed, released
from pipelines.commands.reporting import end_with
from pipelines.reach import reached
from pipelines.runners.environments import ROOT


def check(request: Mapping[str, Any]) -> int:
    """`request`: base, head, environments, controller, record, repository. Says on stderr what is refused, on stdout what was checked."""
    root = Path(request["repository"]).resolve() if request["repository"] else ROOT
    repository = GitRepository(root)
    base, head = request["base"].strip("0"), request["head"]  # a forge names the commit before a new branch by zeros
    base = request["base"] if base else ""
    environments = request["environments"] or known_environments(root)
    with ExitStack() as stack:
        stores = _stores(repository, root, base or head, stack)
        policy = ReleaseCheck(repository, stores, frozenset(environments), request["controller"] or CONTROLLER_ADDRESS)
        checked = [policy.changes(base, head)] if base else []
        checked.append(policy.state(head))
        _say(checked)
        if any(each.faults for each in checked):
            return 1
        if request["record"] and base:
            for environment, deployed in _merged(repository, base, head, frozenset(environments)):
                record_promotion(stores(environment), deployed)
    return 0


def _stores(repository: GitRepository, root: Path, revision: str, stack: ExitStack) -> Callable[[str], Stores]:
    """Stores by environment, as `revision` names them: a change cannot bring a store of its own to be judged by."""
    known: dict[str, Stores] = {}

    def stores(environment: str) -> Stores:
        if environment not in known:
            content = repository.read_file(f"{ENVIRONMENTS_FOLDER}/{environment}/{PLATFORM_FILE}", revision)
            if content is None:
                raise CrisplineError(f"{ENVIRONMENTS_FOLDER}/{environment}/{PLATFORM_FILE} is not in {revision}, so nothing can be checked there")
            file = parse_environment(content.decode(), environment_path(environment, root), environment)
            known[environment] = stack.enter_context(reached(file)).stores
        return known[environment]

    return stores


def _merged(repository: GitRepository, base: str, head: str, environments: frozenset[str]) -> Iterator[tuple[str, Deployed]]:
    """Promotions that a commit brought into force, oldest first; rollbacks leave their record when they are made."""
    for commit in repository.commits(base, head, ENVIRONMENTS_FOLDER):
        for path, content in commit.after.items():
            if content is None or not path.endswith(f"/{RELEASE_FILE}") or commit.trailers.get(KIND_TRAILER) == "rollback":
                continue
            release = released(content, path)
            if release and release.environment in environments and not release.cause.startswith("rollback: "):
                yield release.environment, Deployed(commit.id, "promotion", release)


def _say(checked: list[Checked]) -> None:
    for fault in dict.fromkeys(fault for each in checked for fault in each.faults):
        print(f"refused: {fault}", file=sys.stderr)
    names = ["changed", "in force"][-len(checked) :]
    print("; ".join(f"{name}: {each.releases} releases, {each.canaries} canaries" for name, each in zip(names, checked, strict=True)))


if __name__ == "__main__":
    end_with(lambda: check(json.loads(sys.argv[1])))
