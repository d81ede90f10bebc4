"""Packages that a use case needs beyond an environment: `usecases/<name>/requirements/<environment>.in`, locked beside it in `<environment>.txt`.

The lock is resolved under the environment's own lock as constraints, so that it can add packages and never change one. An image installs it
in its last layer; on a laptop `make setup` installs those of every use case.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from components.contracts.errors import CrisplineError
from components.environments.names import ENVIRONMENTS
from pipelines.runners.environments import ROOT, environment_folder, interpreter

FOLDER = "requirements"
HEADER = "# Made by `crispline packages lock` from {source} under the lock of the environment {environment}. Renew it when either changes."

_COMPILE = ("pip", "compile", "--quiet", "--universal", "--python-version", "3.12", "--generate-hashes", "--no-header", "--no-annotate")


def requirement_files(usecases: Path, environment: str, kind: str) -> list[Path]:
    """`<usecases>/*/requirements/<environment>.<kind>` in order; kind `in` is what a person writes, `txt` the lock."""
    return sorted(usecases.glob(f"*/{FOLDER}/{environment}.{kind}"))


def lock(usecase: Path) -> list[Path]:
    """Lock every list of a use case's folder; returns the locks written. Raises CrisplineError with uv's reason when the lists cannot be met.

    A list for an environment that does not exist is refused.
    """
    written = []
    for source in sorted((usecase / FOLDER).glob("*.in")):
        environment = source.stem
        if environment not in ENVIRONMENTS:
            raise CrisplineError(f"{source}: there is no environment {environment!r}; the lists are {', '.join(f'{each}.in' for each in ENVIRONMENTS)}")
        with _constraints(environment) as constraints:
            resolved = _uv(
                [*_COMPILE, "--constraints", str(constraints), str(source)],
                environment_folder(environment),  # uv reads the environment's overrides there
                f"{source} cannot be met under the lock of the environment {environment}",
            )
        target = source.with_suffix(".txt")
        target.write_text(f"{HEADER.format(source=source.name, environment=environment)}\n{resolved}")
        written.append(target)
    return written


def install(usecases: Path, environment: str) -> list[Path]:
    """Install what all use cases need into this machine's environment; returns the locks. Raises CrisplineError when two of them exclude each other."""
    unlocked = [file for file in requirement_files(usecases, environment, "in") if not file.with_suffix(".txt").exists()]
    if unlocked:
        raise CrisplineError(f"{unlocked[0]} is not locked; run `crispline packages lock`")
    locks = requirement_files(usecases, environment, "txt")
    if locks:
        with _constraints(environment) as constraints:
            files = [part for file in locks for part in ("--requirements", str(file))]
            _uv(
                [
                    "pip",
                    "install",
                    "--quiet",
                    "--python",
                    str(interpreter(environment)),
                    "--no-deps",
                    "--require-hashes",
                    "--constraints",
                    str(constraints),
                    *files,
                ],
                ROOT,
                f"what the use cases need cannot be installed into the environment {environment}; renew the locks with `crispline packages lock`",
            )
    return locks


@contextmanager
def _constraints(environment: str) -> Iterator[Path]:
    """A file with every version of an environment's lock, development groups included."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "constraints.txt"
        _uv(
            ["export", "--quiet", "--frozen", "--all-groups", "--no-hashes", "--no-emit-project", "--no-emit-package", "crispline", "--output-file", str(file)],
            environment_folder(environment),
            f"the lock of the environment {environment} cannot be read",
        )
        yield file


def _uv(arguments: Sequence[str], folder: Path, refusal: str) -> str:
    beside = ROOT / ".tools" / "bin" / "uv"
    program = shutil.which("uv") or (str(beside) if beside.exists() else "")
    if not program:
        raise CrisplineError("uv is not installed; run `make setup`, which installs it")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CrisplineError(f"{refusal}:\n{done.stderr.strip()}")
    return done.stdout
