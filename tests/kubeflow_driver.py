"""What Kubeflow Pipelines 2.17 makes of a compiled step: the pod's main container, as its driver and its Argo compiler write it.

No driver runs here. This follows their sources (backend/src/v2: driver/driver.go initPodSpecPatch, driver/k8s.go extendPodSpecPatch,
compiler/argocompiler/container.go and security_context.go) for the settings that crispline uses, so that a test can hold the pod against
Kubernetes' own rules; a setting that it does not know is an error. tests/cluster/test_cluster_kubeflow.py asks a real one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LAUNCHER = "/kfp-launcher/launch"
SCRATCH = {"kfp-launcher": "/kfp-launcher", "gcs-scratch": "/gcs", "s3-scratch": "/s3", "minio-scratch": "/minio"}
SCRATCH |= {"dot-local-scratch": "/.local", "dot-cache-scratch": "/.cache", "dot-config-scratch": "/.config"}
_KNOWN = {
    "activeDeadlineSeconds",
    "configMapAsVolume",
    "emptyDirMounts",
    "imagePullPolicy",
    "imagePullSecret",
    "nodeSelector",
    "podMetadata",
    "pvcMount",
    "secretAsEnv",
    "securityContext",
    "tolerations",
}
_AMOUNTS = {
    ("requests", "cpu"): "resourceCpuRequest",
    ("requests", "memory"): "resourceMemoryRequest",
    ("limits", "cpu"): "resourceCpuLimit",
    ("limits", "memory"): "resourceMemoryLimit",
}


def pods(pipeline: Mapping[str, Any], platform: Mapping[str, Any], service_account: str = "pipeline-runner") -> Iterator[tuple[str, dict[str, Any]]]:
    """(executor, pod) of every step."""
    configs = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for label, executor in pipeline["deploymentSpec"]["executors"].items():
        yield label, pod(label, executor["container"], configs.get(label, {}), service_account)


def pod(name: str, container: Mapping[str, Any], config: Mapping[str, Any], service_account: str) -> dict[str, Any]:
    """A pod whose main container does nothing: what the API server, and the pod's namespace, accept or refuse."""
    unknown = set(config) - _KNOWN
    assert not unknown, f"{name}: the driver's treatment of {unknown} is not followed here"
    mounts = [{"name": volume, "mountPath": path} for volume, path in SCRATCH.items()]
    volumes: list[dict[str, Any]] = [{"name": volume, "emptyDir": {}} for volume in SCRATCH]
    for each in config.get("pvcMount", []):
        mounts.append({"name": each["constant"], "mountPath": each["mountPath"]})
        volumes.append({"name": each["constant"], "persistentVolumeClaim": {"claimName": each["constant"]}})
    for each in config.get("configMapAsVolume", []):
        mounts.append({"name": each["configMapName"], "mountPath": each["mountPath"]})
        volumes.append({"name": each["configMapName"], "configMap": {"name": each["configMapName"], "optional": each.get("optional", False)}})
    for each in config.get("emptyDirMounts", []):
        mounts.append({"name": each["volumeName"], "mountPath": each["mountPath"]})
        volumes.append({"name": each["volumeName"], "emptyDir": {"sizeLimit": each["sizeLimit"]} if each.get("sizeLimit") else {}})
    environment: list[dict[str, Any]] = [dict(each) for each in container.get("env", [])]
    for secret in config.get("secretAsEnv", []):
        environment += [
            {
                "name": key["envVar"],
                "valueFrom": {"secretKeyRef": {"name": secret["secretName"], "key": key["secretKey"], "optional": secret.get("optional", False)}},
            }
            for key in secret["keyToEnv"]
        ]
    resources: dict[str, dict[str, str]] = {}
    for (kind, resource), key in _AMOUNTS.items():
        if key in container.get("resources", {}):
            resources.setdefault(kind, {})[resource] = container["resources"][key]
    main = {
        "name": "main",
        "image": container["image"],
        "imagePullPolicy": config.get("imagePullPolicy", "IfNotPresent"),
        "command": [LAUNCHER],
        "env": environment,
        "resources": resources,
        "volumeMounts": mounts,
        "securityContext": _security(config.get("securityContext", {})),
    }
    spec: dict[str, Any] = {
        "serviceAccountName": service_account,
        "restartPolicy": "Never",
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [_system_container("kfp-launcher")],
        "containers": [main],
        "volumes": volumes,
        "imagePullSecrets": [{"name": each["secretName"]} for each in config.get("imagePullSecret", [])],
        "nodeSelector": config.get("nodeSelector", {}).get("labels", {}),
        "tolerations": [{key: value for key, value in each.items() if value} for each in config.get("tolerations", [])],
        "activeDeadlineSeconds": int(config["activeDeadlineSeconds"]) if "activeDeadlineSeconds" in config else None,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": config.get("podMetadata", {}).get("labels", {})},
        "spec": {key: value for key, value in spec.items() if value not in (None, [], {})},
    }


def _security(given: Mapping[str, Any]) -> dict[str, Any]:
    """The compiler hardens the step's container and leaves its user to the image; the driver lays the step's own settings over it."""
    numbers = {key: int(given[key]) for key in ("runAsUser", "runAsGroup") if key in given}
    said = {"runAsNonRoot": given["runAsNonRoot"]} if "runAsNonRoot" in given else {}
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}, **numbers, **said}


def _system_container(name: str) -> dict[str, Any]:
    security = {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
    return {"name": name, "image": "ghcr.io/kubeflow/kfp-launcher:2.17.0", "securityContext": security}
