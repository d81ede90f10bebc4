"""helm and kubeconform for every chart's tests; both skip visibly where they are absent."""

from __future__ import annotations

import pytest

from tests.charts.helm import Helm, Kubeconform, found_helm, found_kubeconform


@pytest.fixture(scope="session")
def helm() -> Helm:
    return found_helm()


@pytest.fixture(scope="session")
def kubeconform() -> Kubeconform:
    return found_kubeconform()
