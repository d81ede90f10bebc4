"""`crispline promote` and `crispline rollback`: what the pipeline's steps do, asked for by a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from components.deployment.steps import run_promote, run_rollback
from pipelines.commands.reporting import end_with


def change_release(request: Mapping[str, str]) -> int:
    """`request`: command, usecase, environment, release, as_of and cause or reason. Prints the commit."""
    if request["command"] == "promote":
        commit = run_promote(request["usecase"], environment=request["environment"], release=request["release"], cause=request["cause"], as_of=request["as_of"])
    else:
        commit = run_rollback(
            request["usecase"], environment=request["environment"], to=request["release"] or "previous", reason=request["reason"], as_of=request["as_of"]
        )
    print(commit)
    return 0


if __name__ == "__main__":
    end_with(lambda: change_release(json.loads(sys.argv[1])))
