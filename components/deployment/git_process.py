"""How git is run: whose environment, configuration and credentials count.

The caller's Git environment and configuration are shut out where commits are made: GIT_DIR of a hook, a signing key or a template of the
user cannot redirect or change a promotion. Where the network is used they count, because credentials come by Git's own means: a credential
helper, GIT_ASKPASS, an SSH agent, or settings in GIT_CONFIG_COUNT, GIT_CONFIG_KEY_0, ... (a Secret can hold these).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from components.contracts.errors import CrisplineError

_LOCAL_SECONDS, _NETWORK_SECONDS = 60, 300
# What would point Git to another repository: `git rev-parse --local-env-vars`, without the settings that may carry credentials.
_REDIRECTING = frozenset(
    f"GIT_{name}"
    for name in (
        *("DIR", "WORK_TREE", "INDEX_FILE", "COMMON_DIR", "OBJECT_DIRECTORY", "ALTERNATE_OBJECT_DIRECTORIES", "CONFIG", "CONFIG_PARAMETERS"),
        *("GRAFT_FILE", "REPLACE_REF_BASE", "NO_REPLACE_OBJECTS", "PREFIX", "SHALLOW_FILE", "INTERNAL_SUPER_PREFIX", "IMPLICIT_WORK_TREE", "NAMESPACE"),
    )
)


@dataclass(frozen=True)
class Author:
    """Whose name stands on the commits."""

    name: str = "crispline"
    address: str = "crispline@localhost"


CRISPLINE = Author()


def run_local(arguments: list[str], author: Author, more: Mapping[str, str] | None = None, stdin: bytes = b"") -> bytes:
    """What git says, without the caller's Git environment and configuration. Raises CrisplineError with Git's message."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (("NAME", author.name), ("EMAIL", author.address))}
    quiet = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    done = _start(arguments, {**environment, **identity, **quiet, **(more or {})}, stdin, _LOCAL_SECONDS)
    if done.returncode:
        called = next((part for part in arguments if not part.startswith("--")), arguments[-1])
        raise CrisplineError(f"git {called} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def run_network(arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Git as the caller would run it, with the caller's credentials, but in no other repository than `arguments` name."""
    inherited = {name: value for name, value in os.environ.items() if name not in _REDIRECTING}
    return _start(arguments, {**inherited, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}, b"", _NETWORK_SECONDS)


def _start(arguments: list[str], environment: Mapping[str, str], stdin: bytes, seconds: int) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], input=stdin, capture_output=True, env=environment, timeout=seconds, check=False)
    except FileNotFoundError as error:
        raise CrisplineError("git is not installed; promotion is a Git commit, so the image or machine needs it") from error
    except subprocess.TimeoutExpired as error:
        raise CrisplineError(f"git did not answer within {seconds} s ({' '.join(arguments[-2:])})") from error
