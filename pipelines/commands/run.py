"""`crispline run <pipeline>`: one run, followed step by step; stdout gets what it returned, as JSON where it is not a terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.commands.reporting import end_with
from pipelines.runners.progress import progress_for_stderr
from pipelines.runners.run_host import execute
from pipelines.runners.runs import RunStore


def run(request: dict[str, Any]) -> int:
    """`request`: pipeline, parameters, state. The run stands in the store like any other."""
    state = Path(request["state"]).resolve()
    store = RunStore(state)
    parameters = {name: str(value) for name, value in request["parameters"].items()}
    stored = store.begin(f"{request['pipeline']}-by-hand", request["pipeline"], parameters, parameters.get("cause", ""))
    print(f"run {stored.id} of {request['pipeline']}; logs in {state / 'runs' / stored.id}", file=sys.stderr, flush=True)

    result = execute(store, stored, None, progress_for_stderr())
    if sys.stdout.isatty():
        console = Console(highlight=False)
        for step, value in result.outputs.items():
            console.print(f"{step:<28} {value}")
    else:
        imports = {step.name: step.imports_seconds for step in result.steps}
        print(json.dumps({"run": stored.id, "outputs": dict(result.outputs), "seconds": dict(result.seconds), "imports": imports}))
    return 0


if __name__ == "__main__":
    end_with(lambda: run(json.loads(sys.argv[1])))
