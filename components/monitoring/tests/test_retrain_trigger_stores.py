"""Both stores do what a `TriggerStore` has to do. The Kubernetes API is a fake here; tests/cluster runs the same tests on a real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.monitoring.retrain_trigger.stores import open_store as open_by_uri
from components.monitoring.tests.fake_kubernetes_api import FakeKubernetesApi
from components.monitoring.tests.trigger_store_conformance import OpenStore, TriggerStoreConformance

pytestmark = pytest.mark.pipeline


class TestSqliteStore(TriggerStoreConformance):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: open_by_uri(f"sqlite:///{tmp_path / 'claims.db'}", "flights")


class TestKubernetesStore(TriggerStoreConformance):
    @pytest.fixture
    def open_store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenStore]:
        with FakeKubernetesApi() as api:
            monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
            yield lambda: open_by_uri("kubernetes:///crispline/claims", "flights")
