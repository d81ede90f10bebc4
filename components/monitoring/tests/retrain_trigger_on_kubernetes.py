"""One replica of the trigger over the Kubernetes API and the pipelines' API, as a process that kills itself where it is told to.

`retrain_trigger_on_kubernetes.py OWNER POINT` works once, when a line comes in, on what is in the store that the platform names.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.monitoring.retrain_trigger.stores import open_store
from components.monitoring.retrain_trigger.trigger import Trigger
from pipelines.runners.kubeflow_runs import KubeflowRuns

LEASE_SECONDS, KFP_SECONDS = 6.0, 2


def dying(call: Callable[..., Any], here: str, point: str, after: bool = False) -> Callable[..., Any]:
    """The call, in whose place or after which the process is killed at its point."""

    def called(*arguments: Any, **named: Any) -> Any:
        if here == point and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = call(*arguments, **named)
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return called


def replica(platform: Platform, owner: str, point: str = "") -> Trigger:
    store: Any = open_store(platform.claims_uri, "flights")
    runs: Any = KubeflowRuns(platform, timeout_seconds=KFP_SECONDS)
    store.claim = dying(store.claim, "after_the_decision", point)
    store.handled = dying(store.handled, "after_the_binding", point)
    runs.api.runs.run_service_create_run = dying(runs.api.runs.run_service_create_run, "before_the_post", point)
    runs.submit_version = dying(runs.submit_version, "after_the_answer", point, after=True)
    return Trigger(load_usecase("flights").config, platform, store, runs, owner, LEASE_SECONDS)


if __name__ == "__main__":
    trigger = replica(Platform.load(), sys.argv[1], sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()  # so that several replicas start at the same moment
    trigger.work()
