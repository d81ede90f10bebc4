"""Whether everything that the controller needs can be reached, from where the controller runs: what `helm test` does. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import httpx

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from components.contracts.records import RecordStore
from components.deployment.canary.calls import CallSource
from components.deployment.canary.options import ControllerOptions
from components.deployment.canary.trail import Place, read_state
from components.deployment.gitops import GitRepository


def check(options: ControllerOptions, platform: Platform, sources: Mapping[str, CallSource], url: str = "") -> list[str]:
    """One line for each thing that cannot be reached; none is good. `url`: the running controller, asked for its state and for a wrong path."""
    faults = []
    for name, attempt in _attempts(options, platform, sources, url):
        try:
            said = attempt()
        except (CrisplineError, OSError, httpx.HTTPError, ValueError) as error:
            faults.append(f"{name}: {error}")
            print(f"{name}: FAILED: {error}")
        else:
            print(f"{name}: {said}")
    return faults


def _attempts(options: ControllerOptions, platform: Platform, sources: Mapping[str, CallSource], url: str) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "GitOps repository", lambda: GitRepository(platform.gitops_repository, platform.gitops_branch).head
    yield "records", lambda: f"{len(list(RecordStore(platform.records_uri).list('canary')))} of kind canary"
    for watched in options.usecases:
        place = Place(watched.usecase, options.environment)
        yield f"canary of {place}", lambda place=place: _state(platform, place)  # type: ignore[misc]
        yield f"prediction log of {place}", lambda name=watched.usecase: _days(platform, name)  # type: ignore[misc]
        yield f"calls of {place}", lambda name=watched.usecase: str(sources[name].mark())  # type: ignore[misc]
    if url:
        yield "controller", lambda: _answers(f"{url}/livez", 200)
        yield "a wrong path of the controller", lambda: _answers(f"{url}/canary", 404)


def _state(platform: Platform, place: Place) -> str:
    repository = GitRepository(platform.gitops_repository, platform.gitops_branch)
    with repository.locked():
        state = read_state(repository, place)
    return state.canary.stage if state.canary else "none"


def _days(platform: Platform, usecase: str) -> str:
    from components.monitoring.prediction_log import PredictionLog

    return f"{len(PredictionLog(platform.prediction_log_uri).days(usecase))} dates"


def _answers(url: str, status: int) -> str:
    answer = httpx.get(url, timeout=10)
    if answer.status_code != status:
        raise CrisplineError(f"{url} answers {answer.status_code} instead of {status}: {answer.text[:200]}")
    return f"{answer.status_code} {answer.text[:200]}"
