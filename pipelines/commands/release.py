"""`crispline promote` and `crispline rollback`: what the pipeline's steps do, asked for by a person; within an environment or from one to the next.

stdout gets the commit, stderr what a person wants to know about it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from components.contracts.durations import parse_moment
from components.contracts.platform import Platform
from components.deployment.between_environments import Side, promote_between, release_to_promote, require_no_skew, start_canary
from components.deployment.environment_file import load_environment
from components.deployment.promotion import promote_release
from components.deployment.releases import Deployed, repository_of
from components.deployment.rollback import roll_back
from components.deployment.steps import run_promote, run_rollback
from pipelines.commands.reporting import end_with
from pipelines.reach import Reach, reached
from pipelines.served_images import served_images


def change_release(request: Mapping[str, Any]) -> int:
    """`request`: command, usecase, as_of and what the command takes. Prints the commit."""
    commands = {
        "promote": _promote_embedded,
        "rollback": _rollback_embedded,
        "promote_between": _promote_between,
        "promote_in": _promote_in,
        "rollback_in": _rollback_in,
    }
    print(commands[request["command"]](request))
    return 0


# --- one state folder on this machine ------------------------------------------------------------------------------------------------------


def _promote_embedded(request: Mapping[str, Any]) -> str:
    return run_promote(request["usecase"], environment=request["environment"], release=request["release"], cause=request["cause"], as_of=request["as_of"])


def _rollback_embedded(request: Mapping[str, Any]) -> str:
    to = request["release"] or "previous"
    return run_rollback(request["usecase"], environment=request["environment"], to=to, reason=request["reason"], as_of=request["as_of"])


# --- environments of manifests/environments --------------------------------------------------------------------------------------------------


def _promote_between(request: Mapping[str, Any]) -> str:
    usecase, as_of = request["usecase"], parse_moment(request["as_of"])
    with reached(load_environment(request["source"])) as from_there, reached(load_environment(request["target"])) as to_there:
        source, target = _side(from_there), _side(to_there)
        found = release_to_promote(source, target, usecase, request["release"])
        _say(require_no_skew(source, target, found, request["unchecked"]))
        if request["canary"] or request["shadow"]:
            moved, started = start_canary(source, target, usecase, found, as_of, request["shadow"])
            _say(f"{moved.blobs} blobs ({moved.bytes} bytes) copied to {target.name}, every hash verified")
            _say(f"canary of release {found.release[:12]}: {started.canary.stage}, plan {list(started.canary.plan)}")
            _say_where(started.proposal, started.pull_request, target.name)
            return started.commit
        images = served_images(repository_of(source.platform), found, request["images"])
        cause = request["cause"] or f"from-{source.name}-{found.release[:12]}"
        moved, deployed = promote_between(source, target, usecase, found, cause, as_of, images)
        _say(f"{moved.blobs} blobs ({moved.bytes} bytes) copied to {target.name}, every hash verified")
        return _told(deployed, to_there)


def _promote_in(request: Mapping[str, Any]) -> str:
    with reached(load_environment(request["target"])) as there:
        side = _side(there)
        release, cause = request["release"], request["cause"] or f"promote-{request['release'][:12]}"
        deployed = promote_release(
            side.platform, request["usecase"], side.name, release, cause, parse_moment(request["as_of"]), stores=side.stores, images=None
        )
        return _told(deployed, there)


def _rollback_in(request: Mapping[str, Any]) -> str:
    as_of: datetime = parse_moment(request["as_of"])
    with reached(load_environment(request["target"])) as there:
        side = _side(there)
        deployed = roll_back(
            side.platform,
            request["usecase"],
            side.name,
            request["release"] or "previous",
            request["reason"],
            as_of,
            stores=side.stores,
            proposed=request["propose"],
        )
        return _told(deployed, there)


def _side(there: Reach) -> Side:
    return Side(there.environment.platform, there.stores)


def _told(deployed: Deployed, there: Reach) -> str:
    change = deployed.release
    _say(f"release {change.release[:12]}, model {change.model_version}, in {change.environment}")
    for name, pin in change.images.items():
        _say(f"image {name} {pin.digest}")
    _say_where(deployed.proposal, deployed.pull_request, change.environment)
    if not deployed.proposal:
        _crown(there, change.usecase, change.model_version)
    return deployed.commit


def _say_where(proposal: str, pull_request: str, environment: str) -> None:
    if pull_request:
        _say(f"proposed: {pull_request}")
    elif proposal:
        _say(f"proposed on the branch {proposal}; it is in force in {environment} once it is merged")
    else:
        _say(f"committed; in force in {environment} as soon as Argo CD or Flux has seen it, or after `helm upgrade`")


def _crown(there: Reach, usecase: str, model_version: str) -> None:
    """Move the alias `champion` in the environment's own MLflow, where the model was trained there. Git is what counts, so a failure is only told."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # by default a server that is away is asked for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from components.deployment.registry import crown, find_version, tracking_client

    platform = there.environment.platform
    if not platform.tracking_uri:
        return
    try:
        here: Platform = platform.model_copy(update={"tracking_uri": there.url(platform.tracking_uri)})
        if find_version(tracking_client(here), usecase, model_version) is None:
            _say(f"model {model_version} was not trained in {platform.environment}, so its MLflow does not know it; nothing is changed there")
            return
        crown(here, usecase, model_version)
    except Exception as error:  # MLflow's own errors, too
        _say(f"MLflow of {platform.environment} could not be told that {model_version} is the champion: {str(error).splitlines()[0]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    end_with(lambda: change_release(json.loads(sys.argv[1])))
