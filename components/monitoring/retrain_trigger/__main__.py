"""`python -m components.monitoring.retrain_trigger --port N --usecase flights [--state DIR] [--run-mode dry_run]`: one replica of the trigger.

Runs go to Kubeflow Pipelines when the platform names one (`pipelines_url`), else to the runs of the state folder.
"""

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
from components.contracts.runs import RunSubmitter
from components.contracts.usecase import UseCase
from components.monitoring.retrain_trigger.claims import LEASE_SECONDS
from components.monitoring.retrain_trigger.stores import open_store
from components.monitoring.retrain_trigger.trigger import POLL_SECONDS, Trigger


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. The platform is CRISPLINE_PLATFORM's, or `<state>/platform.json`."""
    parser = argparse.ArgumentParser(prog="retrain-trigger", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--usecase", required=True)
    parser.add_argument("--state", type=Path, help="the installation's state folder, which holds the runs; not needed with Kubeflow Pipelines")
    parser.add_argument("--run-mode", choices=("disabled", "dry_run", "enabled"), help="overrides retraining.run_mode of usecase.yaml")
    parser.add_argument("--suspend", action="store_true", help="keep events, decide nothing and start nothing")
    parser.add_argument("--replica", default="", help="this replica's name in leases; by default host and port")
    parser.add_argument("--lease-seconds", type=float, default=LEASE_SECONDS)
    parser.add_argument("--poll-seconds", type=float, default=POLL_SECONDS, help="how soon a run's end or an expired lease is noticed")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        config = with_run_mode(load_usecase(options.usecase).config, options.run_mode)
        platform = Platform.load(options.state / "platform.json" if options.state and not os.environ.get(PLATFORM_VARIABLE) else None)
        store = open_store(platform.claims_uri, config.name)
        store.count()  # a store that cannot be read is said at the start, not at the first event
        owner = options.replica or f"{socket.gethostname()}:{options.port}"
        trigger = Trigger(config, platform, store, runs_of(platform, options.state, options.lease_seconds), owner, options.lease_seconds, options.suspend)
    except CrisplineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    import uvicorn

    from components.monitoring.retrain_trigger.service import create_app

    uvicorn.run(create_app(trigger, options.poll_seconds), host=options.host, port=options.port, access_log=False, log_level="warning", lifespan="on")
    return 0


def runs_of(platform: Platform, state: Path | None, lease_seconds: float = LEASE_SECONDS) -> RunSubmitter:
    """Where runs are started: Kubeflow Pipelines, or this machine. Raises CrisplineError when neither is named."""
    if platform.pipelines_url:
        from pipelines.runners.kubeflow_runs import KubeflowRuns

        # Submitting is four calls. When all of them time out, the lease still holds: nobody else looks for the run before the last one gave up.
        return KubeflowRuns(platform, timeout_seconds=max(1, int(lease_seconds / 5)))
    if state is None:
        raise CrisplineError(f"no place for runs: set pipelines_url in the file that {PLATFORM_VARIABLE} names, or give --state for runs on this machine")
    from pipelines.runners.runs import local_runs

    return local_runs(state)


def with_run_mode(config: UseCase, run_mode: str | None) -> UseCase:
    if run_mode is None:
        return config
    return config.model_copy(update={"retraining": config.retraining.model_copy(update={"run_mode": run_mode})})


if __name__ == "__main__":
    sys.exit(main())
