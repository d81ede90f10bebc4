"""`crispline demo`: the whole loop on a year of real data, ending with report.html."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import Platform
from components.contracts.storage import write_atomically
from pipelines.demo import state_folder
from pipelines.demo.narration import Narration, fail
from pipelines.demo.services import free_port
from pipelines.demo.settings import DEFAULT_SAMPLE, settings_of

INTERRUPTED = 130
EXAMPLES = """examples:
  crispline demo                 the year, with a sample of the flights
  crispline demo --fast          the first quarter
  crispline demo --full          the year with every flight
  crispline demo --resume        go on where an interrupted loop stopped
"""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="crispline demo", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--usecase", default="flights", help="name or folder (default: flights)")
    parser.add_argument("--state", type=Path, default=Path(".crispline/demo"), help="the loop's folder (default: .crispline/demo)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--fast", action="store_true", help="replay one quarter")
    length.add_argument("--full", action="store_true", help=f"replay every flight instead of a sample of {DEFAULT_SAMPLE:.1%}")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where the last loop in this folder stopped")
    again.add_argument("--fresh", action="store_true", help="start over (the default)")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with state_folder.owned(given.state) as state:
            return _run(given, state)
    except KeyboardInterrupt:
        fail(f"interrupted; every process has ended. Go on with: crispline demo --state {given.state} --resume")
        return INTERRUPTED
    except CrisplineError as error:
        fail(str(error))
        return error.exit_code


def _run(given: argparse.Namespace, state: Path) -> int:
    settings = settings_of(given.fast, given.full)
    before = state_folder.load(state)
    if given.resume and before is None:
        raise CrisplineError(f"there is nothing to resume in {state}; run without --resume")
    if given.resume and before is not None and before.settings != settings.described():
        raise CrisplineError(f"the loop in {state} was started with {before.settings}; resume it with the same options, or start over with --fresh")
    if not given.resume:
        state_folder.empty(state)
    usecase = load_usecase(given.usecase)
    ports = {name: free_port() for name in ("feature-server", "sidecar", "trigger", "forwarder")}
    platform = Platform.embedded(
        state, feature_server_url=f"http://127.0.0.1:{ports['feature-server']}", trigger_url=f"http://127.0.0.1:{ports['trigger']}/events"
    )
    write_atomically(state / "platform.json", platform.model_dump_json(indent=1).encode())
    with Narration(settings.start, settings.end) as say:
        from pipelines.demo.loop import Loop

        report = Loop(settings, state, usecase, platform, ports, say).run()
    print(report)
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
