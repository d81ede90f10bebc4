"""`crispline ui`: MLflow's own pages on the tracking store of a state folder."""

from __future__ import annotations

from pathlib import Path

from components.contracts.platform import Platform
from pipelines.runners.environments import platform_file


def mlflow_server(state: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """(arguments of `python -m mlflow`, environment variables). One worker and no job execution: a quarter of the default's memory."""
    platform = Platform.load(platform_file(state))
    uri = platform.tracking_uri
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    arguments = ["server", "--backend-store-uri", uri, "--artifacts-destination", platform.artifact_uri]
    return [*arguments, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"], {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
