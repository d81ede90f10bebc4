"""A small HTTP server in the place of Kubeflow Pipelines' API server, for tests where none is installed. It runs no pipeline.

It keeps experiments, pipelines, versions, runs and recurring runs in memory, and holds every request against kfp_server_api's generated
client: the path, the method and the query must be those of one of its operations, the body must fit the operation's OpenAPI model (names,
types, enumerations). Beyond that it refuses what the API server of 2.17 refuses (backend/src/apiserver): parameters that the version does
not declare or of another type, a run without an experiment in multi-user mode, a malformed cron. What breaks the client's models stands in
`violations`; a test ends with `assert not kfp.violations`.

    with RecordingKfp() as kfp:
        kfp.add_version("flights-dev-retraining", compiled_yaml)
        kfp.fail("POST", "/runs", "after")                  # the next POST takes effect, its answer is lost
        ...
        kfp.end_run(run_id, "SUCCEEDED")

`python -m tests.kfp_recording_server --port 8888 [--host 0.0.0.0]` serves until it is killed.
"""

from __future__ import annotations

import argparse
import base64
import inspect
import json
import re
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import kfp_server_api
import yaml

When = Literal["before", "after", "late"]
FINISHED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
CRON_FIELDS = (5, 6)  # with seconds; the day of the week may be left out (robfig/cron 1.2)
LONGEST_NAME = 128


@dataclass(frozen=True)
class Operation:
    """One operation of the generated client. `body`: the model of its body; `query`: the names that it may ask with."""

    method: str
    pattern: re.Pattern[str]
    query: frozenset[str]
    body: str


@dataclass(frozen=True)
class Request:
    """A request as it came. `path` without the prefix /apis/v2beta1."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


@dataclass
class Failure:
    """What befalls the next `times` requests that match. `before`: the connection ends before anything happens; `after`: it takes effect and the
    connection ends; `late`: it takes effect and the answer comes after `seconds`. With `status` the answer is that error (nothing happens)."""

    method: str
    path: re.Pattern[str]
    when: When
    times: int = 1
    status: int = 0
    seconds: float = 5.0


class Refused(Exception):
    """What the API server answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


@dataclass
class Store:
    """What the server keeps; every list in order of creation."""

    experiments: list[dict[str, Any]] = field(default_factory=list)
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    recurring_runs: list[dict[str, Any]] = field(default_factory=list)


class RecordingKfp:
    """The server, on 127.0.0.1 and a free port unless told otherwise; a context manager. `token`: what a request must bear, if anything.

    `multi_user`: experiments, and by them runs, need a namespace.
    """

    def __init__(self, port: int = 0, *, host: str = "127.0.0.1", token: str = "", multi_user: bool = False) -> None:
        self.store = Store()
        self.requests: list[Request] = []
        self.violations: list[str] = []
        self.ended_by_deletion: list[str] = []  # runs that deleting their recurring run ended
        self.most_enabled = 0  # the largest number of recurring runs that were enabled at once
        self.on_request: Callable[[int, Request, Literal["before", "after"]], None] | None = None  # for tests that kill at a point
        self.token, self.multi_user = token, multi_user
        self.lock = threading.RLock()
        self._failures: list[Failure] = []
        self._clock = time.time()
        self._operations = operations()
        kfp = self

        class Handler(_Handler):
            server_of = kfp

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> RecordingKfp:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # What a test does and sees

    def fail(self, method: str, path: str, when: When = "before", *, times: int = 1, status: int = 0, seconds: float = 5.0) -> None:
        """Let the next `times` requests whose path matches the regular expression end badly; see Failure."""
        with self.lock:
            self._failures.append(Failure(method, re.compile(path), when, times, status, seconds))

    def add_version(self, pipeline: str, compiled: str, name: str = "") -> dict[str, Any]:
        """A version of a pipeline as if it had been uploaded; the pipeline is made when it is not there."""
        with self.lock:
            known = next((each for each in self.store.pipelines if each["name"] == pipeline), None)
            owner = known or self._new_pipeline(pipeline, pipeline, "", "")
            return self._new_version(owner["pipeline_id"], name or f"{pipeline}-{len(self.store.versions) + 1}", "", "", compiled)

    def run(self, name: str) -> dict[str, Any]:
        """The run of a display name; fails when there are none or several."""
        found = [each for each in self.store.runs if each["display_name"] == name]
        assert len(found) == 1, f"{len(found)} runs are named {name!r}"
        return found[0]

    def start_run(self, id: str) -> None:
        self._set_state(id, "RUNNING")

    def end_run(self, id: str, state: str = "SUCCEEDED", tasks: dict[str, str] | None = None, error: str = "") -> None:
        """End a run; `tasks`: the state of its tasks by display name."""
        with self.lock:
            run = self._set_state(id, state)
            run["finished_at"] = self._now()
            if error:
                run["error"] = {"code": 2, "message": error}
            if tasks is not None:
                self.set_tasks(id, tasks)

    def set_tasks(self, id: str, tasks: dict[str, str], cached: frozenset[str] = frozenset()) -> None:
        """The states of a run's tasks by display name, as the persistence agent reports them from Argo's nodes: each with the node of its
        container, which is skipped for what came from the cache. A name may come several times: `score-batch`, `score-batch#2`."""
        with self.lock:
            run = self._one("runs", "run_id", id)
            details = []
            for name, state in tasks.items():
                node, child = (str(uuid.uuid5(uuid.UUID(id), f"{name}{part}").int % 10**10) for part in ("", "/executor"))
                times = {"start_time": self._now(), **({"end_time": self._now()} if state in FINISHED else {})}
                about = {"run_id": id, "display_name": name.partition("#")[0], "pod_name": f"workflow-template-{node}", "state": state}
                details.append({"task_id": node, **about, **times, "child_tasks": [{"pod_name": f"workflow-{child}"}]})
                executor = {"display_name": "executor", "pod_name": f"workflow-impl-{child}", "state": "SKIPPED" if name in cached else state}
                details.append({"run_id": id, "task_id": child, **executor, **times})
            run["run_details"] = {"task_details": details}

    def tick(self) -> list[str]:
        """The moment of every schedule has come: a run of each recurring run that is enabled and has room. Returns the runs' ids."""
        with self.lock:
            started = []
            for each in self.store.recurring_runs:
                unfinished = [run for run in self.store.runs if run.get("recurring_run_id") == each["recurring_run_id"] and run["state"] not in FINISHED]
                if each["status"] != "ENABLED" or len(unfinished) >= int(each.get("max_concurrency", "1") or 1):
                    continue
                run = self._new_run(
                    {
                        "display_name": f"{each['display_name']}-{len(self.store.runs) + 1}",
                        "experiment_id": each["experiment_id"],
                        "recurring_run_id": each["recurring_run_id"],
                        **{key: each[key] for key in ("pipeline_version_reference", "runtime_config") if key in each},
                    }
                )
                started.append(run["run_id"])
            return started

    def enabled(self) -> list[dict[str, Any]]:
        return [each for each in self.store.recurring_runs if each["status"] == "ENABLED"]

    def posted(self, path: str) -> list[Request]:
        """The POSTs to a path that matches the regular expression, whether they took effect or not."""
        return [each for each in self.requests if each.method == "POST" and re.search(path, each.path)]

    # What a request does

    def answer(self, request: Request, headers: Any) -> tuple[int, Any]:
        """(status, body) of a request that reaches the server. Raises Refused."""
        with self.lock:
            self._authorise(headers)
            operation = self._operation(request)
            if operation.body and request.body is not None:
                self._fits(request.body, operation.body, f"{request.method} {request.path}")
            elif operation.body:
                self._violated(f"{request.method} {request.path}: {operation.body} is missing")
            for method, pattern, act in _ROUTES:
                match = re.fullmatch(pattern, request.path)
                if method == request.method and match:
                    answer = act(self, request, **{name: urllib.parse.unquote(value) for name, value in match.groupdict().items()})
                    self.most_enabled = max(self.most_enabled, len(self.enabled()))
                    return 200, answer
            raise Refused(501, f"this recording server does not know {request.method} {request.path}")

    def failure(self, request: Request) -> Failure | None:
        """The failure that befalls this request, counted down."""
        with self.lock:
            for each in self._failures:
                if each.times > 0 and each.method == request.method and each.path.search(request.path):
                    each.times -= 1
                    return each
            return None

    def _authorise(self, headers: Any) -> None:
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, "Request header error: there is no user identity header")

    def _operation(self, request: Request) -> Operation:
        path = "/apis/v2beta1" + request.path
        found = [each for each in self._operations if each.method == request.method and each.pattern.fullmatch(path)]
        if not found:
            self._violated(f"{request.method} {path} is no operation of kfp_server_api")
        # /pipelines/upload also matches /pipelines/{pipeline_id}: the operation with the most literal path is meant
        operation = min(found, key=lambda each: each.pattern.groups)
        unknown = set(request.query) - operation.query
        if unknown:
            self._violated(f"{request.method} {path} takes no {', '.join(sorted(unknown))}")
        return operation

    def _fits(self, value: Any, model: str, where: str) -> None:
        for problem in mismatches(value, model, where):
            self._violated(problem)

    def _violated(self, problem: str) -> None:
        self.violations.append(problem)
        raise Refused(400, problem)

    def _now(self) -> str:
        """Strictly later with every call: the API server's order of creation is by the second, which a test cannot wait for."""
        self._clock = max(self._clock + 1, time.time())
        return datetime.fromtimestamp(self._clock, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _one(self, kind: str, key: str, id: str) -> dict[str, Any]:
        found = next((each for each in getattr(self.store, kind) if each[key] == id), None)
        if found is None:
            raise Refused(404, f"{kind} {id} not found")
        result: dict[str, Any] = found
        return result

    def _set_state(self, id: str, state: str) -> dict[str, Any]:
        with self.lock:
            run = self._one("runs", "run_id", id)
            run["state"] = state
            return run

    # Experiments

    def create_experiment(self, request: Request) -> Any:
        body = request.body
        if not body.get("display_name") or len(body["display_name"]) > LONGEST_NAME:
            raise Refused(400, "Experiment name is empty or too long")
        self._namespace_required(body.get("namespace", ""))
        if any(each["display_name"] == body["display_name"] and each["namespace"] == body.get("namespace", "") for each in self.store.experiments):
            raise Refused(409, f"The name {body['display_name']} already exists. Please specify a new name")
        made = {"experiment_id": str(uuid.uuid4()), "namespace": "", "storage_state": "AVAILABLE", **body, "created_at": self._now()}
        self.store.experiments.append(made)
        return made

    def list_experiments(self, request: Request) -> Any:
        self._namespace_required(request.query.get("namespace", ""))
        return self._page(request, "experiments", [each for each in self.store.experiments if each["namespace"] == request.query.get("namespace", "")])

    def get_experiment(self, _: Request, id: str) -> Any:
        return self._one("experiments", "experiment_id", id)

    # Pipelines and versions

    def upload_pipeline(self, request: Request) -> Any:
        query = request.query
        self._namespace_required(query.get("namespace", ""))
        name = query.get("name") or query.get("display_name") or ""
        if not name or len(name) > LONGEST_NAME:
            raise Refused(400, "the pipeline's name is empty or too long")
        if any(each["name"] == name and each["namespace"] == query.get("namespace", "") for each in self.store.pipelines):
            raise Refused(409, "Failed to create a pipeline and a pipeline version")
        made = self._new_pipeline(name, query.get("display_name") or name, query.get("description", ""), query.get("namespace", ""))
        self._new_version(made["pipeline_id"], name, made["display_name"], made["description"], request.body)
        return made

    def upload_version(self, request: Request) -> Any:
        query = request.query
        id = query.get("pipelineid", "")
        if not id:
            raise Refused(400, "Failed to create a pipeline version")
        self._one("pipelines", "pipeline_id", id)
        name = query.get("name") or query.get("display_name") or ""
        if any(each["name"] == name and each["pipeline_id"] == id for each in self.store.versions):
            raise Refused(409, "Failed to create a pipeline version")
        return self._new_version(id, name, query.get("display_name", ""), query.get("description", ""), request.body)

    def create_pipeline(self, request: Request) -> Any:
        body = request.body
        name = body.get("name") or body.get("display_name") or ""
        self._namespace_required(body.get("namespace", ""))
        if any(each["name"] == name and each["namespace"] == body.get("namespace", "") for each in self.store.pipelines):
            raise Refused(409, "Failed to create a pipeline")
        return self._new_pipeline(name, body.get("display_name") or name, body.get("description", ""), body.get("namespace", ""))

    def list_pipelines(self, request: Request) -> Any:
        return self._page(request, "pipelines", [each for each in self.store.pipelines if each["namespace"] == request.query.get("namespace", "")])

    def get_pipeline(self, _: Request, id: str) -> Any:
        return self._one("pipelines", "pipeline_id", id)

    def list_versions(self, request: Request, id: str) -> Any:
        self._one("pipelines", "pipeline_id", id)
        return self._page(request, "pipeline_versions", [each for each in self.store.versions if each["pipeline_id"] == id])

    def get_version(self, _: Request, id: str, version: str) -> Any:
        found = self._one("versions", "pipeline_version_id", version)
        if found["pipeline_id"] != id:
            raise Refused(404, f"pipeline {id} has no version {version}")
        return found

    def _new_pipeline(self, name: str, display_name: str, description: str, namespace: str) -> dict[str, Any]:
        made = {
            "pipeline_id": str(uuid.uuid4()),
            "name": name,
            "display_name": display_name,
            "description": description,
            "namespace": namespace,
            "created_at": self._now(),
        }
        self.store.pipelines.append(made)
        return made

    def _new_version(self, id: str, name: str, display_name: str, description: str, compiled: str) -> dict[str, Any]:
        made = {
            "pipeline_id": id,
            "pipeline_version_id": str(uuid.uuid4()),
            "name": name,
            "display_name": display_name or name,
            "description": description,
            "created_at": self._now(),
            "pipeline_spec": _spec(compiled),
        }
        self.store.versions.append(made)
        return made

    # Runs

    def create_run(self, request: Request) -> Any:
        body = request.body
        if not body.get("display_name"):
            raise Refused(400, "The run name is empty. Please specify a valid name")
        self._experiment_required(body)
        self._check_source(body)
        return self._new_run(body)

    def list_runs(self, request: Request) -> Any:
        return self._page(request, "runs", self._of_namespace(request, self.store.runs))

    def get_run(self, _: Request, id: str) -> Any:
        return self._one("runs", "run_id", id)

    def delete_run(self, _: Request, id: str) -> Any:
        self.store.runs.remove(self._one("runs", "run_id", id))
        return {}

    def terminate_run(self, _: Request, id: str) -> Any:
        run = self._one("runs", "run_id", id)
        if run["state"] in FINISHED:
            raise Refused(400, f"Failed to terminate run {id}: it is finished")
        run["state"] = "CANCELED"
        return {}

    def _new_run(self, body: dict[str, Any]) -> dict[str, Any]:
        """The API server ignores what a client may not set: it gives the id, the state and the times."""
        kept = ("display_name", "description", "experiment_id", "pipeline_version_reference", "pipeline_spec", "runtime_config", "recurring_run_id")
        made = {
            **{key: body[key] for key in (*kept, "service_account") if key in body},
            "run_id": str(uuid.uuid4()),
            "state": "PENDING",
            "storage_state": "AVAILABLE",
            "created_at": self._now(),
        }
        self.store.runs.append(made)
        return made

    def _check_source(self, body: dict[str, Any]) -> None:
        """The version exists and takes these parameters (template/v2_template.go, validatePipelineJobInputs)."""
        reference = body.get("pipeline_version_reference")
        if reference is None:
            if not body.get("pipeline_spec"):
                raise Refused(400, "neither a pipeline version nor a pipeline spec is given")
            spec = body["pipeline_spec"]
        else:
            versions = [each for each in self.store.versions if each["pipeline_id"] == reference.get("pipeline_id")]
            wanted = reference.get("pipeline_version_id")
            versions = [each for each in versions if each["pipeline_version_id"] == wanted] if wanted else versions[-1:]
            if not versions:
                raise Refused(404, f"pipeline version {wanted} not found")
            spec = versions[0]["pipeline_spec"]
        spec = spec.get("pipeline_spec", spec)
        declared = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
        given = (body.get("runtime_config") or {}).get("parameters") or {}
        for name, each in declared.items():
            if name not in given:
                if not each.get("isOptional") and "defaultValue" not in each:
                    raise Refused(400, f"parameter {name} is not optional, yet has neither default value nor user provided value")
            elif not isinstance(given[name], _PARAMETER_TYPES[each["parameterType"]]) or (
                each["parameterType"].startswith("NUMBER") and isinstance(given[name], bool)
            ):
                raise Refused(400, f"input parameter {name} requires type {each['parameterType']}")
        unknown = sorted(set(given) - set(declared))
        if unknown:
            raise Refused(400, f"parameter(s) provided are not required by pipeline: {', '.join(unknown)}")

    # Recurring runs

    def create_recurring_run(self, request: Request) -> Any:
        body = request.body
        if not body.get("display_name"):
            raise Refused(400, "Recurring run name is empty. Please specify a valid name")
        self._experiment_required(body)
        self._check_source(body)
        cron = (body.get("trigger") or {}).get("cron_schedule", {}).get("cron", "")
        if cron and not cron.startswith("@") and len(cron.split()) not in CRON_FIELDS:
            raise Refused(400, f"Schedule cron is not a supported format: Expected 5 to 6 fields, found {len(cron.split())}: {cron}")
        if body.get("mode") not in ("ENABLE", "DISABLE"):
            raise Refused(400, "mode must be ENABLE or DISABLE")
        made = {
            **body,
            "recurring_run_id": str(uuid.uuid4()),
            "status": "ENABLED" if body["mode"] == "ENABLE" else "DISABLED",
            "created_at": self._now(),
        }
        self.store.recurring_runs.append(made)
        return made

    def list_recurring_runs(self, request: Request) -> Any:
        return self._page(request, "recurringRuns", self._of_namespace(request, self.store.recurring_runs))

    def get_recurring_run(self, _: Request, id: str) -> Any:
        return self._one("recurring_runs", "recurring_run_id", id)

    def enable(self, _: Request, id: str) -> Any:
        self._one("recurring_runs", "recurring_run_id", id).update(status="ENABLED", mode="ENABLE")
        return {}

    def disable(self, _: Request, id: str) -> Any:
        self._one("recurring_runs", "recurring_run_id", id).update(status="DISABLED", mode="DISABLE")
        return {}

    def delete_recurring_run(self, _: Request, id: str) -> Any:
        """The ScheduledWorkflow owns the workflows of its runs: Kubernetes' garbage collector ends those in progress."""
        self.store.recurring_runs.remove(self._one("recurring_runs", "recurring_run_id", id))
        for run in self.store.runs:
            if run.get("recurring_run_id") == id and run["state"] not in FINISHED:
                run["state"] = "FAILED"
                self.ended_by_deletion.append(run["run_id"])
        return {}

    # What several have in common

    def healthz(self, _: Request) -> Any:
        return {"multi_user": self.multi_user}

    def _namespace_required(self, namespace: str) -> None:
        if self.multi_user and not namespace:
            raise Refused(400, "Invalid input error: a namespace is required in multi-user mode")

    def _experiment_required(self, body: dict[str, Any]) -> None:
        if body.get("experiment_id"):
            self._one("experiments", "experiment_id", body["experiment_id"])
        elif self.multi_user:
            raise Refused(400, "Experiment id can not be empty in multi-user mode")

    def _of_namespace(self, request: Request, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        experiment, namespace = request.query.get("experiment_id", ""), request.query.get("namespace", "")
        if experiment:
            self._one("experiments", "experiment_id", experiment)
            return [each for each in items if each.get("experiment_id") == experiment]
        self._namespace_required(namespace)
        homes = {each["experiment_id"] for each in self.store.experiments if each["namespace"] == namespace}
        return [each for each in items if not self.multi_user or each.get("experiment_id") in homes]

    def _page(self, request: Request, key: str, items: list[dict[str, Any]]) -> Any:
        """Filtered, sorted and cut as list options say (server/list_request_util.go): the filter is unescaped once more than HTTP does."""
        query = request.query
        if query.get("filter"):
            criteria = json.loads(urllib.parse.unquote_plus(query["filter"])).get("predicates", [])
            items = [each for each in items if all(_meets(each, criterion) for criterion in criteria)]
        name, _, direction = query.get("sort_by", "created_at").partition(" ")
        if direction not in ("", "asc", "desc"):
            raise Refused(400, f"Received invalid sort by format {query['sort_by']!r}")
        items = sorted(items, key=lambda each: str(each.get(name, "")), reverse=direction == "desc")
        start = int(base64.b64decode(query["page_token"])) if query.get("page_token") else 0
        size = int(query.get("page_size", "0") or 0) or 20
        page: dict[str, Any] = {key: items[start : start + size], "total_size": len(items)}
        if start + size < len(items):
            page["next_page_token"] = base64.b64encode(str(start + size).encode()).decode()
        return page


_PARAMETER_TYPES: dict[str, tuple[type, ...]] = {
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}

_ROUTES: tuple[tuple[str, str, Callable[..., Any]], ...] = (
    ("GET", r"/healthz", RecordingKfp.healthz),
    ("POST", r"/experiments", RecordingKfp.create_experiment),
    ("GET", r"/experiments", RecordingKfp.list_experiments),
    ("GET", r"/experiments/(?P<id>[^/]+)", RecordingKfp.get_experiment),
    ("POST", r"/pipelines/upload", RecordingKfp.upload_pipeline),
    ("POST", r"/pipelines/upload_version", RecordingKfp.upload_version),
    ("POST", r"/pipelines", RecordingKfp.create_pipeline),
    ("GET", r"/pipelines", RecordingKfp.list_pipelines),
    ("GET", r"/pipelines/(?P<id>[^/]+)", RecordingKfp.get_pipeline),
    ("GET", r"/pipelines/(?P<id>[^/]+)/versions", RecordingKfp.list_versions),
    ("GET", r"/pipelines/(?P<id>[^/]+)/versions/(?P<version>[^/]+)", RecordingKfp.get_version),
    ("POST", r"/runs", RecordingKfp.create_run),
    ("GET", r"/runs", RecordingKfp.list_runs),
    ("POST", r"/runs/(?P<id>[^/:]+):terminate", RecordingKfp.terminate_run),
    ("GET", r"/runs/(?P<id>[^/]+)", RecordingKfp.get_run),
    ("DELETE", r"/runs/(?P<id>[^/]+)", RecordingKfp.delete_run),
    ("POST", r"/recurringruns", RecordingKfp.create_recurring_run),
    ("GET", r"/recurringruns", RecordingKfp.list_recurring_runs),
    ("POST", r"/recurringruns/(?P<id>[^/:]+):enable", RecordingKfp.enable),
    ("POST", r"/recurringruns/(?P<id>[^/:]+):disable", RecordingKfp.disable),
    ("GET", r"/recurringruns/(?P<id>[^/]+)", RecordingKfp.get_recurring_run),
    ("DELETE", r"/recurringruns/(?P<id>[^/]+)", RecordingKfp.delete_recurring_run),
)


class _Handler(BaseHTTPRequestHandler):
    server_of: RecordingKfp
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: written in parts, each would wait 40 ms for the client's acknowledgement
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        kfp = self.server_of
        request = self._request()
        with kfp.lock:
            kfp.requests.append(request)
            number = len(kfp.requests)
        if kfp.on_request is not None:
            kfp.on_request(number, request, "before")
        failure = kfp.failure(request)
        if failure is not None and failure.status:
            self._answer(failure.status, {"error": "made to fail by the test"})
            return
        if failure is not None and failure.when == "before":
            self._end_connection()
            return
        try:
            status, body = kfp.answer(request, self.headers)
        except Refused as error:
            status, body = error.status, {"error": error.message, "message": error.message, "code": error.status}
        if kfp.on_request is not None:
            kfp.on_request(number, request, "after")
        if failure is not None and failure.when == "after":
            self._end_connection()
            return
        if failure is not None:
            time.sleep(failure.seconds)
        self._answer(status, body)

    def _request(self) -> Request:
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        body: Any = None
        if raw and "multipart/form-data" in self.headers.get("content-type", ""):
            body = _file_of(self.headers["content-type"], raw)
        elif raw:
            body = json.loads(raw)
        return Request(self.command, parts.path.removeprefix("/apis/v2beta1"), query, body)

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the client did not wait

    def _end_connection(self) -> None:
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def operations() -> list[Operation]:
    """Every operation of the generated client, read from its own source: path, method, query and the model of the body."""
    found = []
    for name, api in vars(kfp_server_api.api).items():
        if not inspect.ismodule(api):
            continue
        for kind in vars(api).values():
            if not inspect.isclass(kind) or kind.__module__ != api.__name__:
                continue
            for method in vars(kind).values():
                if inspect.isfunction(method) and method.__name__.endswith("_with_http_info"):
                    found.append(_operation(method))
        assert found, name
    return found


def _operation(method: Any) -> Operation:
    source = inspect.getsource(method)
    called = re.search(r"call_api\(\s*'([^']+)', '([A-Z]+)'", source)
    assert called is not None, method.__name__
    path, verb = called.groups()
    query = frozenset(re.findall(r"query_params\.append\(\('([^']+)'", source))
    body = re.search(r"body_params = local_var_params\['(\w+)'\]", source)
    model = re.search(rf":type {body[1]}: (\w+)", source) if body else None
    pattern = "([^/:]+)".join(re.escape(part) for part in re.split(r"\{[^}]+\}", path))
    return Operation(verb, re.compile(pattern), query, model[1] if model else "")


def mismatches(value: Any, model: str, where: str) -> list[str]:
    """How a JSON value differs from a type of the OpenAPI models (`V2beta1Run`, `dict(str, object)`, `list[...]`, `datetime`, ...)."""
    if value is None or model == "object":
        return []
    if nested := re.fullmatch(r"list\[(.+)\]", model):
        return [f"{where} is no list"] if not isinstance(value, list) else [each for item in value for each in mismatches(item, nested[1], f"{where}[]")]
    if nested := re.fullmatch(r"dict\(str, (.+)\)", model):
        return [f"{where} is no object"] if not isinstance(value, dict) else [e for k, v in value.items() for e in mismatches(v, nested[1], f"{where}.{k}")]
    plain = {"str": str, "int": int, "float": (int, float), "bool": bool, "datetime": str}.get(model)
    if plain is not None:
        fits = isinstance(value, plain) and (model == "bool" or not isinstance(value, bool))
        return [] if fits else [f"{where}: {value!r} is no {model}"]
    declared = getattr(kfp_server_api.models, model)
    if hasattr(declared, "allowable_values"):
        return [] if value in declared.allowable_values else [f"{where}: {value!r} is none of {', '.join(declared.allowable_values)}"]
    if not isinstance(value, dict):
        return [f"{where} is no {model}"]
    by_key = {declared.attribute_map[name]: kind for name, kind in declared.openapi_types.items()}
    problems = [f"{where}.{key} is no field of {model}" for key in value if key not in by_key]
    return problems + [problem for key, each in value.items() if key in by_key for problem in mismatches(each, by_key[key], f"{where}.{key}")]


def _meets(item: dict[str, Any], criterion: dict[str, Any]) -> bool:
    key, value = criterion["key"], criterion.get("string_value", "")
    key = "display_name" if key == "name" and "name" not in item else key
    held = str(item.get(key, ""))
    match criterion["operation"]:
        case "EQUALS":
            return held == value
        case "IS_SUBSTRING":
            return value in held
    raise Refused(400, f"this recording server knows no operation {criterion['operation']}")


def _file_of(content_type: str, raw: bytes) -> str:
    message = BytesParser(policy=HTTP).parsebytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + raw)
    for part in message.iter_parts():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            return content.decode()
    raise Refused(400, "Failed to read pipeline from file")


def _spec(compiled: str) -> dict[str, Any]:
    """As the API returns a version's spec: alone, or beside its platform spec (server/api_converter.go)."""
    try:
        documents = [each for each in yaml.load_all(compiled, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if each]
    except yaml.YAMLError as error:
        raise Refused(400, f"invalid pipeline spec: {error}") from error
    pipelines = [each for each in documents if "pipelineInfo" in each]
    if len(pipelines) != 1 or not pipelines[0]["pipelineInfo"].get("name"):
        raise Refused(400, "invalid pipeline spec: no pipeline spec is provided")
    platforms = [each for each in documents if "platforms" in each]
    return {"pipeline_spec": pipelines[0], "platform_spec": platforms[0]} if platforms else pipelines[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--multi-user", action="store_true")
    options = parser.parse_args()
    with RecordingKfp(options.port, host=options.host, multi_user=options.multi_user) as kfp:
        print(f"recording KFP server on {options.host}:{kfp.port}; it runs no pipeline", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
