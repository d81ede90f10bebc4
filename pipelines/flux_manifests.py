"""`python -m pipelines.flux_manifests`: manifests/flux/, what manifests/argocd/ says, for Flux.

Flux has no ApplicationSet, so the objects are written out: one folder an environment, one file a chart. A test holds the committed files
against this module and against the Applications that Argo CD's sets make. `--check` writes nothing and ends with 1 when something is out of date.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from components.deployment.environment_file import EnvironmentFile, known_environments, load_environment
from components.deployment.releases import CANARY_FILE, ENVIRONMENTS_FOLDER, PLATFORM_FILE, RELEASE_FILE

ROOT = Path(__file__).resolve().parents[1]
FOLDER, PIPELINES = "manifests/flux", "manifests/pipelines"
NAMESPACE, SOURCE = "flux-system", "crispline"
_HEAD = "# Written by `python -m pipelines.flux_manifests` from manifests/environments/; do not edit.\n"
Object = dict[str, Any]


def flux_files(root: Path = ROOT) -> dict[str, str]:
    """Content by path of every file of manifests/flux, for the environments and use cases that manifests/environments holds."""
    found: dict[str, str] = {}
    for environment in known_environments(root):
        file = load_environment(environment, root)
        for name, objects in _environment(file, root):
            found[f"{FOLDER}/{environment}/{name}.yaml"] = _HEAD + "---\n".join(_dump(each) for each in objects)
    return found


def _environment(file: EnvironmentFile, root: Path) -> Iterator[tuple[str, list[Object]]]:
    folder = f"{ENVIRONMENTS_FOLDER}/{file.name}"
    yield "source", [_source(file)]
    yield "namespace", [_folder(file, "namespace", f"manifests/namespaces/{file.name}")]
    if (root / folder / "secrets").is_dir():
        yield "secrets", [_folder(file, "secrets", f"{folder}/secrets")]
    yield "platform", [_release(file, "crispline-platform", "platform", [f"{folder}/{PLATFORM_FILE}", f"{folder}/platform-values.yaml"], optional=True)]
    if (root / folder / "canary-controller.yaml").is_file():
        yield (
            "canary-controller",
            [_release(file, "crispline-canary-controller", "canary-controller", [f"{folder}/canary-controller.yaml"], after="crispline-platform")],
        )
    for usecase in sorted(path.parent for path in (root / folder).glob("*/values.yaml")):
        place, name = f"{folder}/{usecase.name}", usecase.name.replace("_", "-")
        objects = [
            _release(
                file,
                name,
                "model-server",
                [f"{place}/values.yaml", f"{place}/{RELEASE_FILE}", f"{place}/{CANARY_FILE}"],
                usecase.name,
                optional=True,
                after="crispline-platform",
            )
        ]
        if (usecase / "retrain-trigger.yaml").is_file():
            objects.append(
                _release(file, f"crispline-trigger-{name}", "retrain-trigger", [f"{place}/retrain-trigger.yaml"], usecase.name, after="crispline-platform")
            )
        yield usecase.name, objects
    for usecase in sorted(path for path in (root / PIPELINES / file.name).glob("*") if path.is_dir()):
        name = f"pipelines-{usecase.name.replace('_', '-')}"
        yield f"pipelines/{usecase.name}", [_folder(file, name, f"{PIPELINES}/{file.name}/{usecase.name}", file.platform.pipelines_namespace or "kubeflow")]


def _source(file: EnvironmentFile) -> Object:
    return {
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "GitRepository",
        "metadata": {"name": SOURCE, "namespace": NAMESPACE, "labels": _labels(file)},
        "spec": {"interval": "1m", "url": file.platform.gitops_repository, "ref": {"branch": file.platform.gitops_branch}},
    }


def _folder(file: EnvironmentFile, name: str, path: str, namespace: str = "") -> Object:
    """Manifests of the repository as they are; `namespace` for all of them."""
    return {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": {"name": f"crispline-{name}-{file.name}", "namespace": NAMESPACE, "labels": _labels(file)},
        "spec": {
            "interval": "10m",
            "path": f"./{path}",
            "sourceRef": {"kind": "GitRepository", "name": SOURCE},
            **({"targetNamespace": namespace} if namespace else {}),
            "prune": True,
            "wait": True,
            "timeout": "2m",
        },
    }


def _release(file: EnvironmentFile, name: str, chart: str, values: list[str], usecase: str = "", *, optional: bool = False, after: str = "") -> Object:
    """A chart of the repository with values files of the repository; every commit counts, and changes by hand are undone."""
    source: Object = {
        "chart": f"./charts/{chart}",
        "reconcileStrategy": "Revision",
        "sourceRef": {"kind": "GitRepository", "name": SOURCE, "namespace": NAMESPACE},
        "valuesFiles": [f"./charts/{chart}/values.yaml", *(f"./{path}" for path in values)],
    }
    if optional:
        source["ignoreMissingValuesFiles"] = True
    place = file.access.namespace
    spec: Object = {
        "interval": "10m",
        "releaseName": name,
        "targetNamespace": place,
        "storageNamespace": place,
        "chart": {"spec": source},
        "driftDetection": {"mode": "enabled"},
        "install": {"crds": "CreateReplace", "remediation": {"retries": 10}},
        "upgrade": {"crds": "CreateReplace", "remediation": {"retries": 3}},
    }
    if after:
        spec["dependsOn"] = [{"name": f"{after}-{file.name}"}]
    return {
        "apiVersion": "helm.toolkit.fluxcd.io/v2",
        "kind": "HelmRelease",
        "metadata": {"name": f"{name}-{file.name}", "namespace": NAMESPACE, "labels": _labels(file, usecase)},
        "spec": spec,
    }


def _labels(file: EnvironmentFile, usecase: str = "") -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "crispline", "crispline.io/environment": file.name, **({"crispline.io/usecase": usecase} if usecase else {})}


def _dump(document: Object) -> str:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 200
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def out_of_date(root: Path = ROOT) -> dict[str, str | None]:
    """By path the content that a file of manifests/flux should have and has not; None for one that should not be there."""
    wanted = flux_files(root)
    present = {str(path.relative_to(root)): path.read_text() for path in sorted((root / FOLDER).rglob("*.yaml"))}
    changes: dict[str, str | None] = {path: content for path, content in wanted.items() if present.get(path) != content}
    return changes | {path: None for path in present if path not in wanted}


def main(arguments: list[str]) -> int:
    changes = out_of_date()
    for path, content in changes.items():
        if "--check" in arguments:
            print(f"{path}: out of date")
        elif content is None:
            (ROOT / path).unlink()
        else:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(content)
    return 1 if changes and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
