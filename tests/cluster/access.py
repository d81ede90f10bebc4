"""What a test of the cluster does with it: apply objects, wait, run a Job, read logs, run a command in a pod, reach a port."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kubernetes import client, config, dynamic
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

Found = TypeVar("Found")
Object = dict[str, Any]

FIELD_MANAGER = "crispline-tests"
# What a namespace that enforces `restricted` asks of a pod; an arbitrary user, as OpenShift assigns one.
ARBITRARY_USER = 1234567
POD_SECURITY: Object = {"runAsNonRoot": True, "runAsUser": ARBITRARY_USER, "runAsGroup": 0, "fsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}}
# How long a state is waited for that comes sooner on an idle machine: only a test that fails waits so long.
PATIENCE = 420.0
CONTAINER_SECURITY: Object = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


_AT_THE_START = dict(os.environ)


@contextlib.contextmanager
def building() -> Iterator[None]:
    """While an image is built: one at a time on this machine, and in the environment that the tests began with, since a builder keeps its caches where
    XDG_CACHE_HOME says."""
    now = dict(os.environ)
    with (Path(tempfile.gettempdir()) / "crispline-cluster-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.environ.clear()
        os.environ.update(_AT_THE_START)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(now)


@dataclass(frozen=True)
class Ended:
    """How a Job's pod ended. `seconds`: from the pod's creation to its container's end; `started`: from its creation to the container's start."""

    succeeded: bool
    log: str
    seconds: float
    started: float


class Cluster:
    """The Kubernetes that KUBECONFIG names. `core`, `apps`, `batch`, ... are the typed clients; `apply` and `get` take any kind, CRDs included."""

    def __init__(self) -> None:
        config.load_kube_config()
        self.core = client.CoreV1Api()
        self.apps = client.AppsV1Api()
        self.batch = client.BatchV1Api()
        self.networking = client.NetworkingV1Api()
        self.custom = client.CustomObjectsApi()
        self._exec = client.CoreV1Api(client.ApiClient())  # `stream` changes its client while it connects
        self._one_exec = threading.Lock()

    @cached_property
    def _dynamic(self) -> dynamic.DynamicClient:
        return dynamic.DynamicClient(client.ApiClient())

    def apply(self, *objects: Object, namespace: str = "") -> None:
        """Server-side apply of plain dictionaries, in order."""
        for each in objects:
            resource = self._dynamic.resources.get(api_version=each["apiVersion"], kind=each["kind"])
            place = {"namespace": each["metadata"].get("namespace", namespace)} if resource.namespaced else {}
            resource.server_side_apply(body=each, name=each["metadata"]["name"], field_manager=FIELD_MANAGER, force_conflicts=True, **place)

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Object | None:
        """The object as a dictionary; None when there is none of that name."""
        resource = self._dynamic.resources.get(api_version=api_version, kind=kind)
        try:
            found: Object = resource.get(name=name, **({"namespace": namespace} if namespace else {})).to_dict()
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    def delete(self, api_version: str, kind: str, name: str, namespace: str = "") -> None:
        """Delete with everything that belongs to it; an object that is gone is no error."""
        resource = self._dynamic.resources.get(api_version=api_version, kind=kind)
        with contextlib.suppress(ApiException):
            resource.delete(name=name, body={"propagationPolicy": "Foreground"}, **({"namespace": namespace} if namespace else {}))

    def wait_for(self, what: str, look: Callable[[], Found | None], seconds: float = PATIENCE) -> Found:
        """Poll until `look` gives something true; AssertionError with `what` after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            began = time.monotonic()
            found = look()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds:.0f} s")
            time.sleep(max(0.5, time.monotonic() - began))  # a look that starts a program in a pod takes the processor from what it waits for

    def pods(self, namespace: str, selector: str = "") -> list[client.V1Pod]:
        found: list[client.V1Pod] = self.core.list_namespaced_pod(namespace, label_selector=selector).items
        return found

    def ready(self, namespace: str, selector: str, count: int = 1, seconds: float = PATIENCE) -> list[client.V1Pod]:
        """Wait until `count` pods of a selector are ready and none of it is ending; return them."""

        def look() -> list[client.V1Pod] | None:
            pods = [pod for pod in self.pods(namespace, selector) if pod.metadata.deletion_timestamp is None]
            up = [pod for pod in pods if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])]
            return up if len(up) == len(pods) == count else None

        return self.wait_for(f"{count} ready pods of {selector} in {namespace}", look, seconds)

    def log(self, namespace: str, pod: str, container: str = "", previous: bool = False) -> str:
        """What a container said so far; empty where it has not started."""
        try:
            # As it came: the client would make an object of a log that is one line of JSON, and text of that object.
            answer = self.core.read_namespaced_pod_log(
                pod, namespace, previous=previous, _preload_content=False, **({"container": container} if container else {})
            )
        except ApiException:
            return ""
        return bytes(answer.data).decode(errors="replace")

    def run_in(self, namespace: str, pod: str, command: Sequence[str], container: str = "") -> str:
        """Output of a command run in a container (exec). Raises AssertionError when it fails."""
        with self._one_exec:
            answer = stream(
                self._exec.connect_get_namespaced_pod_exec,
                pod,
                namespace,
                command=list(command),
                stdout=True,
                stderr=True,
                stdin=False,
                tty=False,
                _preload_content=False,
                **({"container": container} if container else {}),
            )
        answer.run_forever(timeout=PATIENCE)
        code = answer.returncode  # before the output: reading that throws away the channel which this comes from
        said: str = answer.read_all()
        assert code == 0, f"{' '.join(command)} in {pod} gave {code}:\n{said}"
        return said

    def run_job(
        self,
        namespace: str,
        name: str,
        image: str,
        args: Sequence[str],
        *,
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        volumes: Mapping[str, Object] | None = None,
        user: int = ARBITRARY_USER,
        memory: str = "2Gi",
        seconds: float = PATIENCE,
        labels: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a restricted pod with a read-only root, labelled `job: <name>`, to its end, once. `volumes`: a volume's source by the path where it is
        mounted; /tmp is one."""
        pod = {**pod_spec(image, args, command, env, volumes, user, memory), "restartPolicy": "Never"}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": int(seconds),
                "template": {"metadata": {"labels": {"job": name, **(labels or {})}}, "spec": pod},
            },
        }
        self.apply(job, namespace=namespace)

        def ended() -> client.V1Job | None:
            state = self.batch.read_namespaced_job_status(name, namespace)
            return state if any(c.type in ("Complete", "Failed") and c.status == "True" for c in state.status.conditions or []) else None

        state = self.wait_for(f"Job {name}", ended, seconds + 60)
        pods = self.pods(namespace, f"job={name}")
        succeeded = bool(state.status.succeeded)
        if not pods:
            return Ended(succeeded, f"no pod of Job {name} is left: {state.status.conditions}", 0.0, 0.0)
        status = pods[0].status.container_statuses[0].state.terminated if pods[0].status.container_statuses else None
        if status is None:
            return Ended(succeeded, self.events(namespace), 0.0, 0.0)
        created = pods[0].metadata.creation_timestamp
        return Ended(
            succeeded,
            self.log(namespace, pods[0].metadata.name),
            (status.finished_at - created).total_seconds(),
            (status.started_at - created).total_seconds() if status.started_at else 0.0,
        )

    def run_pod(
        self,
        namespace: str,
        name: str,
        image: str,
        args: Sequence[str],
        *,
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        volumes: Mapping[str, Object] | None = None,
        user: int = ARBITRARY_USER,
        memory: str = "1Gi",
        seconds: float = PATIENCE,
    ) -> None:
        """Start a restricted pod with a read-only root, labelled `app: <name>`, and wait until it is ready."""
        pod = {**pod_spec(image, args, command, env, volumes, user, memory), "restartPolicy": "Always"}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": pod}, namespace=namespace)
        self.ready(namespace, f"app={name}", seconds=seconds)

    def events(self, namespace: str, last: int = 20) -> str:
        """The newest events of a namespace, one a line."""
        found = self.core.list_namespaced_event(namespace).items
        found.sort(key=lambda event: str(event.last_timestamp or event.event_time or event.metadata.creation_timestamp))
        return "\n".join(f"{event.involved_object.kind}/{event.involved_object.name}: {event.reason}: {event.message}" for event in found[-last:])

    def state(self, namespace: str) -> str:
        """For the reader of a failed test: each pod, its containers' states and last lines, and the newest events."""
        lines: list[str] = []
        for pod in self.pods(namespace):
            lines.append(f"pod {pod.metadata.name}: {pod.status.phase}")
            for each in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
                now = next((name for name in ("running", "waiting", "terminated") if getattr(each.state, name)), "unknown")
                reason = getattr(getattr(each.state, now, None), "reason", "") or ""
                lines.append(f"  {each.name}: {now} {reason}, restarted {each.restart_count} times")
                lines.extend(f"    {line}" for line in self.log(namespace, pod.metadata.name, each.name).splitlines()[-8:])
        return "\n".join([*lines, "events:", self.events(namespace)])

    @contextlib.contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """`http://127.0.0.1:<free port>` that leads to a port of `service/<name>` or `pod/<name>` (of a Service: one pod, picked once). Needs kubectl."""
        command = [needed_program("kubectl"), "port-forward", "--address", "127.0.0.1", "-n", namespace, target, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                assert process.stdout is not None
                said = process.stdout.readline()
                found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", said)
                assert found, f"{' '.join(command)}: {said}{process.stdout.read() if process.poll() is not None else ''}"
                # kubectl says a line for every connection; a full pipe would stop it.
                threading.Thread(target=process.stdout.read, daemon=True).start()
                yield f"http://127.0.0.1:{found[1]}"
            finally:
                process.terminate()


def pod_spec(
    image: str,
    args: Sequence[str],
    command: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    volumes: Mapping[str, Object] | None = None,
    user: int = ARBITRARY_USER,
    memory: str = "1Gi",
) -> Object:
    """A pod of one container as `restricted` asks for it: an arbitrary user, a read-only root, /tmp, no token."""
    mounted = {"/tmp": {"emptyDir": {}}, **(volumes or {})}
    names = {path: "v" + re.sub(r"[^a-z0-9]+", "-", path.lower()).rstrip("-") for path in mounted}
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": list(args),
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": memory}},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": names[path], "mountPath": path} for path in mounted],
        **({"command": list(command)} if command else {}),
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {**POD_SECURITY, "runAsUser": user},
        "containers": [container],
        "volumes": [{"name": names[path], **source} for path, source in mounted.items()],
    }


def needed_program(name: str) -> str:
    """The path of a program; skips the test visibly when it is not on PATH."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on PATH; install it to run this test")
    return found
