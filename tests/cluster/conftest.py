"""What all tests of the cluster share. Four variables say what there is; without one of them a test skips and says what would make it run.

KUBECONFIG                          names a Kubernetes where the tests may create and delete namespaces and cluster-wide objects
CRISPLINE_IMAGE_LOAD                command that builds an image and makes it known to that cluster, with {context} {dockerfile} {arguments} {image}
CRISPLINE_SCHEMAS                   schema locations of kubeconform, separated by spaces
CRISPLINE_RESTART_NODE_COMPONENT    command that kills {component} (kubelet, kube-apiserver) of the node, which then starts again
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from components.environments.names import image_variable
from pipelines.images import IMAGE_LOAD_VARIABLE, build, image_reference_of
from tests.cluster.access import Cluster, building, needed_program

USECASE = "flights"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
# Two processes take one file after the other; they end at about the same time when the longest come first.
LONGEST_FIRST = ("steps", "canary", "serving", "platform", "retrain_trigger", "gitops")
_made: list[str] = []  # namespaces of the running tests, for the report of a failure


@pytest.fixture(scope="session")
def kube() -> Cluster:
    """The cluster; skips without KUBECONFIG, fails when it does not answer."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set; name a Kubernetes with it (kind create cluster --kubeconfig <file>)")
    cluster = Cluster()
    cluster.core.list_namespace(limit=1)
    return cluster


class Images:
    """`images["pipeline"]` is the reference of that image, built and made known to the cluster when first asked for.

    An image that CRISPLINE_IMAGE_<NAME> names is taken as it is, so that one can try something without building anew after every edit.
    """

    def __init__(self, template: str) -> None:
        self._template = template
        self._known: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        """`name`: pipeline, serving, monitoring or tracking."""
        if name not in self._known:
            with building():
                self._known[name] = os.environ.get(image_variable(name), "") or build(name, USECASE, template=self._template)
        return self._known[name]

    def registry(self) -> str:
        return image_reference_of("pipeline", USECASE).rsplit("/", 1)[0]

    def tag(self, name: str) -> str:
        return self[name].rsplit(":", 1)[1]


@pytest.fixture(scope="session")
def images(kube: Cluster) -> Images:
    """The images of the example's use case; skips without CRISPLINE_IMAGE_LOAD."""
    template = os.environ.get(IMAGE_LOAD_VARIABLE, "")
    if not template:
        pytest.skip(
            f"{IMAGE_LOAD_VARIABLE} is not set; for kind: docker build {{context}} -f {{dockerfile}} {{arguments}} -t {{image}} && kind load docker-image {{image}}"
        )
    return Images(template)


@pytest.fixture(scope="module")
def namespace(kube: Cluster) -> Iterator[Callable[..., str]]:
    """Make a namespace that enforces the pod security level `restricted`; removed, with all it holds, after the module's tests.

    namespace("steps") gives `crispline-steps-<random>`; namespace("steps", {"label": "value"}) sets or replaces labels.
    """
    made: list[str] = []

    def make(topic: str, labels: dict[str, str] | None = None) -> str:
        name = f"crispline-{topic}-{secrets.token_hex(3)}"
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**RESTRICTED, **(labels or {})}}})
        made.append(name)
        _made.append(name)
        kube.wait_for(f"default service account of {name}", lambda: kube.get("v1", "ServiceAccount", "default", name))
        return name

    yield make
    for name in made:
        _made.remove(name)
        kube.delete("v1", "Namespace", name)


@pytest.fixture(scope="session")
def helm(kube: Cluster) -> Callable[..., str]:
    """Run helm against the cluster: helm("install", "model", "charts/model-server", "-n", namespace, ...) gives its output, or fails with it.

    `check=False` gives the output of a command that failed, too.
    """
    program = needed_program("helm")

    def run(*arguments: str, check: bool = True, **options: Any) -> str:
        done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
        assert not check or done.returncode == 0, f"helm {' '.join(arguments)} gave {done.returncode}:\n{done.stdout}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def schemas() -> list[str]:
    """Arguments of kubeconform that name its schemas: -schema-location <location> ..."""
    locations = os.environ.get("CRISPLINE_SCHEMAS", "").split()
    if not locations:
        pytest.skip("CRISPLINE_SCHEMAS is not set; it names the schemas of kubeconform, such as: default")
    return [part for location in locations for part in ("-schema-location", location)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        topic = item.path.stem.removeprefix("test_cluster_")
        return LONGEST_FIRST.index(topic) if topic in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failed test shows what its namespaces looked like."""
    report = yield
    if report.failed and _made and call.when == "call" and "kube" in getattr(item, "funcargs", {}):
        cluster: Cluster = item.funcargs["kube"]
        for name in _made:
            try:
                report.sections.append((f"namespace {name}", cluster.state(name)))
            except Exception as error:
                report.sections.append((f"namespace {name}", f"could not be read: {error}"))
    return report
