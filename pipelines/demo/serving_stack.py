"""The served side of one use case: feature server, sidecar, trigger, model server and the forwarder in front of it.

A roll-over starts the new model server beside the old one, waits until it is warm, turns the forwarder to it and only then ends the old
one: the same order as a rolling update on Kubernetes, so that no request is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import httpx

from components.contracts.errors import CrisplineError
from components.contracts.platform import Platform
from pipelines.demo.services import Service, Supervisor


@dataclass
class ServingStack:
    """`moment_skew`: how far a request's prediction moment may lie from the wall clock; a replay of the past configures
    `unlimited`, empty leaves it to the release's contract."""

    supervisor: Supervisor
    platform: Platform
    usecase: str
    environment: str
    state: Path
    ports: dict[str, int]
    moment_skew: str
    _generation: int = field(default=0)
    release: str = ""

    def start_support(self) -> None:
        """Start what needs neither a release nor published features; returns at once."""
        sidecar = ("--port", str(self.ports["sidecar"]), "--spool", str(self.state / "spool"), "--usecase", self.usecase)
        self.supervisor.start(Service("sidecar", "monitoring", "components.monitoring.sidecar", sidecar, self.ports["sidecar"], "/health"))
        trigger = ("--port", str(self.ports["trigger"]), "--usecase", self.usecase, "--state", str(self.state))
        self.supervisor.start(Service("trigger", "pipeline", "components.monitoring.retrain_trigger", trigger, self.ports["trigger"], "/healthz"))

    def start_feature_server(self) -> None:
        """Start Feast's feature server over what was published so far; returns at once."""
        port = self.ports["feature-server"]
        self.supervisor.start(Service("feature-server", "pipeline", "components.data_engineering.feature_server", ("--port", str(port)), port, "/health"))

    def start_serving(self, release: str) -> None:
        """Start the model server with a release and the forwarder in front of it; blocks until everything is ready."""
        server = self._start_server(release)
        forwarder = (
            *("--port", str(self.ports["forwarder"]), "--upstream", self.supervisor.url(server), "--sink", self.supervisor.url("sidecar")),
            *("--predictor", "default", "--usecase", self.usecase),
        )  # fmt: skip
        self.supervisor.start(Service("forwarder", "serving", "components.model_server.forwarder", forwarder, self.ports["forwarder"], "/ready"))
        self.supervisor.wait_ready(server, "forwarder", "feature-server", "sidecar", "trigger")

    def roll_over(self, release: str) -> None:
        """Serve another release without dropping a request."""
        old, new = self._server_name(), self._start_server(release)
        self.supervisor.wait_ready(new)
        answer = httpx.post(f"{self.url}/admin/upstream", json={"upstream": self.supervisor.url(new)}, timeout=30.0)
        if answer.status_code != 200:
            raise CrisplineError(f"the forwarder refused the new model server: {answer.status_code} {answer.text}")
        self.supervisor.stop(old)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['forwarder']}"

    def _server_name(self) -> str:
        return f"model-server-{self._generation}"

    def _start_server(self, release: str) -> str:
        from pipelines.demo.services import free_port

        self._generation += 1
        self.release = release
        port = free_port()
        arguments = (
            *("--bundles-uri", self.platform.bundles_uri, "--release", release, "--port", str(port), "--host", "127.0.0.1"),
            *("--feature-server-url", f"http://127.0.0.1:{self.ports['feature-server']}", *(("--moment-skew", self.moment_skew) if self.moment_skew else ())),
        )  # fmt: skip
        name = self._server_name()
        self.supervisor.start(Service(name, "serving", "components.model_server.seldon", arguments, port, "/health/ready"))
        return name
