"""What a step's own process does: kfp's executor on the component's source, output to the step's log."""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

EXECUTOR = "kfp.dsl.executor_main"


def run_executor(source: str, arguments: Sequence[str], variables: Mapping[str, str], folder: Path, log: Path) -> int:
    """Run a lightweight component as its container's command does; returns the exit code.

    `source`: the component's Python; `arguments`: what the command passes to kfp's executor; `folder`: the step's working folder.
    """
    with log.open("ab", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(variables)
    program = folder / "component.py"
    program.write_text(source)
    os.chdir(folder)
    sys.argv = [EXECUTOR, "--component_module_path", str(program), *arguments]
    try:
        sys.modules[EXECUTOR].executor_main() if EXECUTOR in sys.modules else runpy.run_module(EXECUTOR, run_name="__main__")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException as error:
        traceback.print_exception(type(error), error, _from_the_step_on(error.__traceback__, program))
        return 1
    return 0


def _from_the_step_on(frames: TracebackType | None, program: Path) -> TracebackType | None:
    """Without the frames of kfp's executor, which tell nothing about the step."""
    each = frames
    while each is not None:
        if each.tb_frame.f_code.co_filename == str(program):
            return each
        each = each.tb_next
    return frames


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent ends; elsewhere the parent's clean end must do."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def yield_to_others() -> None:
    """Lowest priority, before a program starts: of the process and, where Linux schedules sessions as groups (sched(7)), of its session."""
    os.nice(19)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")
