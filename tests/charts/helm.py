"""What a test of a chart does with it: render, lint, and hold what came out against the schemas of Kubernetes and of the CRDs."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = "1.36.4"
SCHEMAS_VARIABLE = "CRISPLINE_SCHEMAS"
# What a cluster with the operators that the charts know answers; without it, what needs them is not rendered.
CUSTOM_APIS = (
    "machinelearning.seldon.io/v1",
    "monitoring.coreos.com/v1",
    "keda.sh/v1alpha1",
    "gateway.networking.k8s.io/v1",
    "pipelines.kubeflow.org/v2beta1",
)


class ChartRefused(AssertionError):
    """helm ended with an error; the message is what it said."""


@dataclass(frozen=True)
class Helm:
    """The program helm. Values are given as a dictionary, files by path; a later one wins, the dictionary last, as with `helm -f`."""

    program: str
    _rendered: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    def template(
        self,
        chart: str | Path,
        values: Mapping[str, Any] | None = None,
        *,
        files: Sequence[Path] = (),
        release: str = "example",
        namespace: str = "example",
        kubernetes: str = KUBERNETES,
        apis: Sequence[str] = CUSTOM_APIS,
        tests: bool = True,
        upgrade: bool = False,
    ) -> str:
        """The rendered manifests as one text. `apis`: API versions that the cluster is said to have; `upgrade`: as of a release that is there already.

        Raises ChartRefused with helm's message.
        """
        more = [argument for api in apis for argument in ("--api-versions", api)] + ([] if tests else ["--skip-tests"]) + (["--is-upgrade"] if upgrade else [])
        return self._run(
            "template", release, str(chart_folder(chart)), "--namespace", namespace, "--kube-version", kubernetes, *more, files=files, values=values
        )

    def objects(self, chart: str | Path, values: Mapping[str, Any] | None = None, **options: Any) -> list[Object]:
        """The rendered objects, in the order of the text; options as those of `template`. The same values are rendered once."""
        written = [Path(file).read_text() for file in options.get("files", ())]  # a test may write one file anew
        key = json.dumps([str(chart), values, {name: str(value) for name, value in options.items()}, written])
        if key not in self._rendered:
            self._rendered[key] = self.template(chart, values, **options)
        return parse(self._rendered[key])

    def lint(self, chart: str | Path, values: Mapping[str, Any] | None = None, *, files: Sequence[Path] = ()) -> str:
        """`helm lint --strict`: a warning counts as a fault. Raises ChartRefused."""
        return self._run("lint", "--strict", str(chart_folder(chart)), "--kube-version", KUBERNETES, files=files, values=values)

    def notes(self, chart: str | Path, values: Mapping[str, Any] | None = None, **options: Any) -> str:
        """NOTES.txt as an installation would show it, made without a cluster; options as those of `template`."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / chart_folder(chart).name
            shutil.copytree(chart_folder(chart), copy)
            (copy / "templates" / "NOTES.txt").rename(copy / "notes")
            (copy / "templates" / "notes.yaml").write_text('kind: Notes\nmetadata: {name: notes}\ntext: {{ tpl (.Files.Get "notes") . | toJson }}\n')
            text: str = one(self.objects(copy, values, **options), "Notes")["text"]
        return text

    def _run(self, *arguments: str, files: Sequence[Path], values: Mapping[str, Any] | None) -> str:
        given = [argument for file in files for argument in ("-f", str(file))] + ["-f", "-"]
        ended = subprocess.run([self.program, *arguments, *given], input=json.dumps(values or {}), capture_output=True, text=True, timeout=300)
        if ended.returncode:
            raise ChartRefused(ended.stderr + ended.stdout)
        return ended.stdout


@dataclass(frozen=True)
class Kubeconform:
    """The program kubeconform with the schema locations of CRISPLINE_SCHEMAS."""

    program: str
    locations: tuple[str, ...]

    def check(self, manifests: str, *more: str) -> None:
        """Strict: an unknown key is a fault, and so is a kind without a schema. Raises AssertionError with what is wrong."""
        places = [argument for location in self.locations for argument in ("-schema-location", location)]
        ended = subprocess.run(
            [self.program, "-strict", "-summary", "-kubernetes-version", KUBERNETES, *places, *more, "-"],
            input=manifests,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


def found_helm() -> Helm:
    """Skips visibly where helm is absent."""
    program = shutil.which("helm")
    if program is None:
        pytest.skip("helm is not on PATH; install helm 3.16 or newer (https://helm.sh/docs/intro/install) to run the tests of the charts")
    return Helm(program)


def found_kubeconform() -> Kubeconform:
    """Skips visibly where kubeconform or its schemas are absent."""
    program, locations = shutil.which("kubeconform"), os.environ.get(SCHEMAS_VARIABLE, "").split()
    if program is None:
        pytest.skip("kubeconform is not on PATH; go install github.com/yannh/kubeconform/cmd/kubeconform@latest")
    if not locations:
        pytest.skip(f"{SCHEMAS_VARIABLE} is not set; name the schema location(s) of kubeconform, Kubernetes' own and the CRDs', separated by spaces")
    return Kubeconform(program, tuple(locations))


def chart_folder(chart: str | Path) -> Path:
    return chart if isinstance(chart, Path) else ROOT / "charts" / chart


def parse(manifests: str) -> list[Object]:
    return [document for document in YAML(typ="safe").load_all(io.StringIO(manifests)) if document]


def one(objects: Sequence[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind (and name). Raises AssertionError saying which there are."""
    found = [each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name}; there are {[(each['kind'], each['metadata']['name']) for each in objects]}"
    return found[0]


def of_kind(objects: Sequence[Object], kind: str) -> dict[str, Object]:
    """The objects of a kind by name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pod_specs(objects: Sequence[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod's specification with the name of what makes it, whatever makes it: Deployment, Job, CronJob, Pod, SeldonDeployment, ..."""
    for each in objects:
        name = f"{each['kind']}/{each['metadata']['name']}"
        spec = each.get("spec") or {}
        if each["kind"] == "Pod":
            yield name, spec
        elif each["kind"] == "CronJob":
            yield name, spec["jobTemplate"]["spec"]["template"]["spec"]
        elif each["kind"] == "SeldonDeployment":
            for predictor in spec["predictors"]:
                for component in predictor["componentSpecs"]:
                    yield f"{name}/{predictor['name']}", component["spec"]
        elif "template" in spec and "spec" in (spec["template"] or {}):
            yield name, spec["template"]["spec"]


def faults_under_restricted(spec: Object) -> list[str]:
    """What Pod Security's level `restricted` would refuse in a pod, and what crispline asks beyond it: read-only root, numeric user, resources, no token."""
    pod = spec.get("securityContext") or {}
    faults = [] if spec.get("automountServiceAccountToken") is False else ["a service account's token is mounted"]
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        faults += [name] if spec.get(name) else []
    faults += [f"volume {volume['name']} is a hostPath" for volume in spec.get("volumes") or [] if "hostPath" in volume]
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        own = container.get("securityContext") or {}
        seen = {**{key: pod.get(key) for key in ("runAsNonRoot", "runAsUser", "seccompProfile")}, **own}
        wanted = {
            "runAsNonRoot": seen.get("runAsNonRoot") is True,
            "a numeric runAsUser other than 0": isinstance(seen.get("runAsUser"), int) and seen["runAsUser"] != 0,
            "seccompProfile RuntimeDefault": (seen.get("seccompProfile") or {}).get("type") == "RuntimeDefault",
            "allowPrivilegeEscalation: false": own.get("allowPrivilegeEscalation") is False,
            "capabilities drop ALL": (own.get("capabilities") or {}).get("drop") == ["ALL"],
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
            "requests and a memory limit": bool((container.get("resources") or {}).get("requests"))
            and "memory" in (container["resources"].get("limits") or {}),
        }
        faults += [f"container {container['name']} lacks {what}" for what, there in wanted.items() if not there]
    return faults
