"""`crispline serve`: the released model behind its real endpoint, until Ctrl-C; a new release is rolled over to without dropping a request."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from components.contracts.errors import CrisplineError
from components.contracts.platform import PLATFORM_VARIABLE, Platform
from components.contracts.storage import write_atomically
from components.deployment.promotion import current_release
from pipelines.commands.reporting import end_with
from pipelines.demo.services import Supervisor, free_port
from pipelines.demo.serving_stack import ServingStack
from pipelines.runners.environments import platform_file
from pipelines.runners.run_host import owned_host

_LOOK_SECONDS = 1.0


def serve(request: dict[str, Any]) -> int:
    """`request`: port, environment, moment_skew, usecase, state. Raises CrisplineError when there is no release or a service ends by itself."""
    state = Path(request["state"]).resolve()
    usecase, environment = request["usecase"], request["environment"]
    ports = {name: free_port() for name in ("feature-server", "sidecar", "trigger")} | {"forwarder": int(request["port"])}
    platform = Platform.load(platform_file(state)).model_copy(
        update={"feature_server_url": f"http://127.0.0.1:{ports['feature-server']}", "trigger_url": f"http://127.0.0.1:{ports['trigger']}/events"}
    )
    release = _release(platform, usecase, environment)
    write_atomically(state / "platform.json", platform.model_dump_json(indent=2).encode())
    with Supervisor(state / "logs", {PLATFORM_VARIABLE: str(state / "platform.json")}) as supervisor, owned_host(state):
        stack = ServingStack(supervisor, platform, usecase, environment, state, ports, moment_skew=request["moment_skew"])
        _say(f"starting release {release[:12]} of {usecase} in {environment}; logs in {state / 'logs'}")
        stack.start_support()
        stack.start_feature_server()
        stack.start_serving(release)
        _say(f"serving on {stack.url}; Ctrl-C ends it")
        while True:
            time.sleep(_LOOK_SECONDS)
            supervisor.check_alive()
            newest = _release(platform, usecase, environment)
            if newest != stack.release:
                stack.roll_over(newest)
                _say(f"rolled over to release {newest[:12]}")


def _release(platform: Platform, usecase: str, environment: str) -> str:
    found = current_release(platform, usecase, environment)
    if found is None:
        raise CrisplineError(f"nothing is released to {environment}; run `crispline run training` first")
    return str(found.release)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    end_with(lambda: serve(json.loads(sys.argv[1])))
