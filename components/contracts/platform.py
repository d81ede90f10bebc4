"""Where things are: the endpoints of one installation, read from the file that CRISPLINE_PLATFORM names.

Credentials never stand here; they reach a process through its environment (a Kubernetes Secret) under the names that the client
libraries read themselves (AWS_ACCESS_KEY_ID, MLFLOW_TRACKING_PASSWORD, ...).
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from components.contracts.errors import CrisplineError

PLATFORM_VARIABLE = "CRISPLINE_PLATFORM"
USECASES_VARIABLE = "CRISPLINE_USECASES"


class Platform(BaseModel):
    """Every `*_uri` is a local path or an fsspec URI; every `*_url` an HTTP endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    environment: str = "dev"
    lake_uri: str
    feature_store_uri: str
    online_store: str  # Feast's online store: a path (SQLite), or redis://host:6379/<database>, rediss:// with TLS; password in REDIS_PASSWORD
    tracking_uri: str
    artifact_uri: str  # MLflow's artifacts (a tracking server keeps them there itself) and the journals of searches for parameters
    records_uri: str
    bundles_uri: str
    prediction_log_uri: str
    labels_uri: str
    gitops_repository: str
    lineage_uri: str  # OpenLineage events: a local file, a folder on an object store (one object an event), or a lineage server's http(s) URL
    feature_server_url: str = ""
    trigger_url: str = ""  # where the retrain trigger takes events: http://host:port/events
    claims_uri: str = ""  # the retrain trigger's claims: sqlite:///<file> embedded
    gitops_branch: str = "main"
    forge_url: str = ""  # the forge's REST API, where a proposal becomes a pull request: https://api.github.com; token in GITHUB_TOKEN
    pipelines_url: str = ""  # Kubeflow Pipelines' API: http://ml-pipeline.kubeflow:8888
    pipelines_namespace: str = ""  # the namespace of the runs in a multi-user installation; empty in a single-user one
    pipelines_root: str = ""  # where its runs keep artifacts: s3://crispline/dev/pipelines; empty for what the namespace's kfp-launcher ConfigMap says
    pipelines_ui_url: str = ""  # its pages, for links to runs: http://kubeflow.example.org/pipeline
    pipelines_time_zone: str = "UTC"  # in which it reads every cron (CRON_SCHEDULE_TIMEZONE of its ml-pipeline-scheduledworkflow)
    notifications_url: str = ""  # where the end of every run on Kubeflow Pipelines is told, as a CloudEvent; token in CRISPLINE_NOTIFICATIONS_TOKEN

    @classmethod
    def embedded(cls, state: Path, **ports: str) -> Platform:
        """The default layout under one state folder: files, SQLite, local processes."""
        state = state.resolve()
        return cls(
            lake_uri=str(state / "lake"),
            feature_store_uri=str(state / "features"),
            online_store=str(state / "features" / "online.db"),
            tracking_uri=f"sqlite:///{state / 'mlflow' / 'mlflow.db'}",
            artifact_uri=str(state / "mlflow" / "artifacts"),
            records_uri=str(state / "records"),
            bundles_uri=str(state / "bundles"),
            prediction_log_uri=str(state / "prediction_log"),
            labels_uri=str(state / "labels"),
            gitops_repository=str(state / "gitops"),
            lineage_uri=str(state / "lineage" / "openlineage.jsonl"),
            claims_uri=f"sqlite:///{state / 'trigger' / 'claims.db'}",
            **ports,
        )

    @classmethod
    def load(cls, path: Path | None = None) -> Platform:
        """Read `path`, or the file named by CRISPLINE_PLATFORM. Raises CrisplineError with the remedy."""
        name = str(path) if path is not None else os.environ.get(PLATFORM_VARIABLE, "")
        if not name:
            raise CrisplineError(f"{PLATFORM_VARIABLE} is not set; it must name the platform file (embedded: <state>/platform.json)")
        file = Path(name)
        if not file.exists():
            raise CrisplineError(f"{file} does not exist; {PLATFORM_VARIABLE} must name the platform file")
        try:
            return cls.model_validate_json(file.read_text())
        except ValidationError as error:
            raise CrisplineError(f"{file}: {error}") from error


def usecases_root() -> Path:
    """The folder that holds the use cases: CRISPLINE_USECASES, or `usecases/` beside the components."""
    configured = os.environ.get(USECASES_VARIABLE, "")
    return Path(configured) if configured else Path(__file__).resolve().parents[2] / "usecases"
