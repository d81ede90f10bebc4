"""The recording KFP server as a pod, and its control from outside by files: run in the pod by name, imported by the tests for `objects`.

A file /tmp/hold-<point> holds requests at that point until it is gone: `find` (a list of runs, answered but not sent), `before` (a POST of a run
came in) and `after` (the run exists, the answer is not sent). What happens is logged, a line of JSON each.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

CODE, HOLD = Path("/code"), Path("/tmp")
PORT = 8888


def point_of(method: str, path: str, when: str) -> str:
    if path != "/runs":
        return ""
    return {("POST", "before"): "before", ("POST", "after"): "after", ("GET", "after"): "find"}.get((method, when), "")


def serve() -> None:
    sys.path.insert(0, str(CODE))
    from kfp_recording_server import RecordingKfp

    def on_request(number: int, request: Any, when: str) -> None:
        point = point_of(request.method, request.path, when)
        if not point:
            return
        print(json.dumps({"time": time.time(), "number": number, "point": point}), flush=True)
        while (HOLD / f"hold-{point}").exists():
            time.sleep(0.02)

    with RecordingKfp(PORT, host="0.0.0.0") as kfp:
        compiled = (CODE / "pipeline.yaml").read_text()
        kfp.add_version(next(yaml.safe_load_all(compiled))["pipelineInfo"]["name"], compiled)
        kfp.on_request = on_request
        print(json.dumps({"time": time.time(), "point": "serving"}), flush=True)
        threading.Event().wait()


def objects(image: str, compiled: str, pod_security: dict[str, Any], container_security: dict[str, Any]) -> list[dict[str, Any]]:
    """ConfigMap, Pod and the Service `ml-pipeline`, as Kubeflow Pipelines names it. `compiled`: the pipeline that it knows."""
    server = Path(__file__).resolve().parents[1] / "kfp_recording_server.py"
    labels = {"app": "ml-pipeline"}
    files = {"kfp_recording_server.py": server.read_text(), "recording_kfp_pod.py": Path(__file__).read_text(), "pipeline.yaml": compiled}
    container = {
        "name": "kfp",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", str(CODE / "recording_kfp_pod.py")],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": container_security,
        "volumeMounts": [{"name": "code", "mountPath": str(CODE)}, {"name": "tmp", "mountPath": str(HOLD)}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security,
        "containers": [container],
        "volumes": [{"name": "code", "configMap": {"name": "recording-kfp"}}, {"name": "tmp", "emptyDir": {}}],
    }
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "recording-kfp"}, "data": files},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "recording-kfp", "labels": labels}, "spec": pod},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ml-pipeline"}, "spec": {"selector": labels, "ports": [{"port": PORT}]}},
    ]


if __name__ == "__main__":
    serve()
