"""Kubeflow Pipelines' HTTP API through its generated client: addresses, credentials, time-outs, pages, errors.

`kfp.Client` is not used: it imports the compiler (4 s), reads and writes `~/.config/kfp`, and looks for a cluster when it has no host.
Every call goes through `KubeflowApi.call`, so that a refusal and a silence each have one meaning here.
"""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import kfp_server_api as server
import urllib3

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform

TOKEN_FILE_VARIABLE: Final = "CRISPLINE_KFP_TOKEN_FILE"  # noqa: S105  the name of a file, not a token
# Creating a run compiles a workflow and asks the Kubernetes API: seconds on a busy cluster. Longer than this is taken for a failure whose
# effect is unknown; whoever posts looks for the effect before posting again.
TIMEOUT_SECONDS: Final = 30
NOT_FOUND: Final = 404
CONFLICT: Final = 409
_PAGE: Final = 100


class PipelinesRefused(CrisplineError):
    """Kubeflow Pipelines answered with an error. `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


class PipelinesSilent(CrisplineError):
    """Kubeflow Pipelines gave no answer; whether the request took effect is not known."""


@dataclass(frozen=True)
class Criterion:
    """One predicate of a list's filter; several hold together. `key` is a field of the listed resource, `display_name` for instance."""

    key: str
    value: str
    operation: Literal["EQUALS", "IS_SUBSTRING"] = "EQUALS"


class KubeflowApi:
    """One installation of Kubeflow Pipelines. `namespace` is empty in a single-user installation."""

    def __init__(self, platform: Platform, timeout_seconds: int = TIMEOUT_SECONDS) -> None:
        """Raises CrisplineError when the platform names no API, or the token's file is absent."""
        if not platform.pipelines_url:
            raise CrisplineError("the platform names no Kubeflow Pipelines: set pipelines_url in its platform file, e.g. http://ml-pipeline.kubeflow:8888")
        self.url = platform.pipelines_url.rstrip("/")
        self.namespace = platform.pipelines_namespace
        self.environment = platform.environment
        self._timeout = timeout_seconds
        client = server.ApiClient(_configuration(self.url))
        self.runs = server.RunServiceApi(client)
        self.recurring_runs = server.RecurringRunServiceApi(client)
        self.pipelines = server.PipelineServiceApi(client)
        self.uploads = server.PipelineUploadServiceApi(client)
        self.experiments = server.ExperimentServiceApi(client)
        self.health = server.HealthzServiceApi(client)

    def call(self, operation: Callable[..., Any], *arguments: Any, **given: Any) -> Any:
        """One request. Raises PipelinesRefused for an answer that is an error, PipelinesSilent for none within the time-out."""
        try:
            return operation(*arguments, **given, _request_timeout=self._timeout)
        except server.ApiException as error:
            raise PipelinesRefused(f"Kubeflow Pipelines at {self.url} refused: {_said(error)}{_remedy(error.status)}", int(error.status or 0)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise PipelinesSilent(
                f"Kubeflow Pipelines at {self.url} gave no answer ({type(error).__name__}: {error}); "
                "check pipelines_url of the platform file and that its Service is reachable from here"
            ) from error

    def pages(self, operation: Callable[..., Any], items: str, *arguments: Any, sort_by: str = "", where: tuple[Criterion, ...] = ()) -> Iterator[Any]:
        """Everything that a list operation lists, page by page. `items`: the attribute of its answer that holds them."""
        given: dict[str, Any] = {"page_size": _PAGE}
        if sort_by:
            given["sort_by"] = sort_by
        if where:
            given["filter"] = filter_of(*where)
        while True:
            page = self.call(operation, *arguments, **given)
            yield from getattr(page, items) or ()
            if not page.next_page_token:
                return
            given["page_token"] = page.next_page_token

    @property
    def namespaced(self) -> Mapping[str, str]:
        """The argument `namespace` of the list operations, where there is one."""
        return {"namespace": self.namespace} if self.namespace else {}

    def experiment_id(self) -> str:
        """The experiment of this environment (`crispline-<environment>`), made when it is not there: runs of an environment stand together."""
        found = self.known_experiment_id()
        if found is not None:
            return found
        wanted = server.V2beta1Experiment(
            display_name=self._experiment_name, description=f"Runs of crispline in {self.environment}.", namespace=self.namespace or None
        )
        try:
            return str(self.call(self.experiments.experiment_service_create_experiment, wanted).experiment_id)
        except PipelinesRefused as error:
            found = self.known_experiment_id() if error.status == CONFLICT else None  # somebody made it meanwhile
            if found is None:
                raise
            return found

    def known_experiment_id(self) -> str | None:
        """The same, None when it is not there."""
        page = self.call(
            self.experiments.experiment_service_list_experiments,
            page_size=1,
            filter=filter_of(Criterion("display_name", self._experiment_name)),
            **self.namespaced,
        )
        return str(page.experiments[0].experiment_id) if page.experiments else None

    @property
    def _experiment_name(self) -> str:
        return f"crispline-{self.environment}"


def _configuration(url: str) -> Any:
    configuration = server.Configuration()
    configuration.host = url
    configuration.retries = False  # a POST must not be sent twice behind our back, and whoever calls us tries again by rules of its own
    name = os.environ.get(TOKEN_FILE_VARIABLE, "")
    if name:
        file = Path(name)
        if not file.exists():
            raise CrisplineError(
                f"{TOKEN_FILE_VARIABLE} names {file}, which does not exist; mount a projected token of audience pipelines.kubeflow.org there, or unset it"
            )

        def refresh(current: Any) -> None:
            """Before every request: the kubelet renews a projected token well before it expires."""
            current.api_key["authorization"] = file.read_text().strip()

        configuration.api_key_prefix["authorization"] = "Bearer"
        configuration.refresh_api_key_hook = refresh
        refresh(configuration)
    return configuration


def filter_of(*criteria: Criterion) -> str:
    """KFP's filter. It is unescaped once more than HTTP demands (apiserver/server/list_request_util.go), hence escaped once more here."""
    predicates = [{"key": each.key, "operation": each.operation, "string_value": each.value} for each in criteria]
    return urllib.parse.quote(json.dumps({"predicates": predicates}))


def _said(error: Any) -> str:
    try:
        body = json.loads(error.body)
    except (TypeError, ValueError):
        return f"{error.status} {error.body or error.reason}"
    if not isinstance(body, dict):
        return f"{error.status} {body}"
    return f"{error.status} {body.get('error') or body.get('message') or body.get('error_message') or body}"


def _remedy(status: int | None) -> str:
    match status:
        case 401:
            return f"; a multi-user installation wants a token of audience pipelines.kubeflow.org, in the file that {TOKEN_FILE_VARIABLE} names"
        case 403:
            return "; the token's service account lacks a role for pipelines.kubeflow.org in this namespace (see docs/how-to/run-on-kubeflow.md)"
    return ""
