"""`python -m components.monitoring.retrain_trigger --port N --usecase flights --state DIR [--run-mode dry_run]`: one replica of the trigger."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from pathlib import Path

from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import PLATFORM_VARIABLE, Platform
from components.contracts.usecase import UseCase
from components.monitoring.retrain_trigger.claims import LEASE_SECONDS, open_store
from components.monitoring.retrain_trigger.trigger import Trigger


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. The platform is CRISPLINE_PLATFORM's, or `<state>/platform.json`."""
    parser = argparse.ArgumentParser(prog="retrain-trigger", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--usecase", required=True)
    parser.add_argument("--state", type=Path, required=True, help="the installation's state folder, which holds the runs")
    parser.add_argument("--run-mode", choices=("disabled", "dry_run", "enabled"), help="overrides retraining.run_mode of usecase.yaml")
    parser.add_argument("--replica", default="", help="this replica's name in leases; by default host and port")
    parser.add_argument("--lease-seconds", type=float, default=LEASE_SECONDS)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        config = with_run_mode(load_usecase(options.usecase).config, options.run_mode)
        platform = Platform.load(None if os.environ.get(PLATFORM_VARIABLE) else options.state / "platform.json")
        from pipelines.runners.runs import local_runs

        owner = options.replica or f"{socket.gethostname()}:{options.port}"
        trigger = Trigger(config, platform, open_store(platform.claims_uri), local_runs(options.state), owner, options.lease_seconds)
    except CrisplineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    import uvicorn

    from components.monitoring.retrain_trigger.service import create_app

    uvicorn.run(create_app(trigger), host=options.host, port=options.port, access_log=False, log_level="warning", lifespan="on")
    return 0


def with_run_mode(config: UseCase, run_mode: str | None) -> UseCase:
    if run_mode is None:
        return config
    return config.model_copy(update={"retraining": config.retraining.model_copy(update={"run_mode": run_mode})})


if __name__ == "__main__":
    sys.exit(main())
