"""`python -m components.deployment.canary --config FILE [--port 8080 | --once | --check]`: the canary controller of one environment.

The platform is CRISPLINE_PLATFORM's. Git finds its credentials by its own means (docs/how-to/canary.md).
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.deployment.canary.calls import call_source
from components.deployment.canary.check import check
from components.deployment.canary.controller import Controller
from components.deployment.canary.options import ControllerOptions


def main(arguments: list[str] | None = None) -> int:
    """Do rounds until SIGTERM or SIGINT, or one with `--once`. Exit code of the error when the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="canary", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON file of components.deployment.canary.options.ControllerOptions")
    parser.add_argument("--host", default="0.0.0.0", help="address of /livez and /metrics")  # noqa: S104  a pod's probes come from outside
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--once", action="store_true", help="one round, then end")
    parser.add_argument("--check", action="store_true", help="only see whether everything that it needs can be reached; 1 when not")
    parser.add_argument("--url", default="", help="with --check: a running controller, which is asked for its state")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        options, platform = ControllerOptions.load(given.config), Platform.load()
        for watched in options.usecases:
            load_usecase(watched.usecase)
        sources = {watched.usecase: call_source(watched.calls, watched.rule.slow_seconds) for watched in options.usecases}
        if given.check:
            return int(bool(check(options, platform, sources, given.url)))
        controller = Controller(options, platform, sources)
        if given.once:
            controller.round()
            return 0
    except CrisplineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    import uvicorn

    from components.deployment.canary.service import create_app

    uvicorn.run(create_app(controller), host=given.host, port=given.port, access_log=False, log_level="warning", lifespan="on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
