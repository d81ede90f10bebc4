"""How a command that runs in another environment ends: a refusal without a stack trace, its exit code, and Ctrl-C as 130."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from components.contracts.errors import CrisplineError

INTERRUPTED = 130


def end_with(command: Callable[[], int]) -> NoReturn:
    """Run `command` and exit with what it returns; SIGTERM ends it as Ctrl-C does, so that what it owns is ended too."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = command()
        sys.stdout.flush()
    except CrisplineError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = error.exit_code
    except BrokenPipeError:
        code = 0  # the reader of our output has seen enough
        sys.stderr.close()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        code = INTERRUPTED
    sys.exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
