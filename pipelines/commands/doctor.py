"""`crispline doctor`: what this machine has and lacks; with an environment, what that has and lacks."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from components.contracts.errors import CrisplineError
from components.contracts.loading import load_usecase
from components.contracts.platform import usecases_root
from components.environments.names import ENVIRONMENTS
from pipelines.commands.findings import Finding, tell
from pipelines.commands.reporting import end_with
from pipelines.runners.environments import ROOT, environment_folder, interpreter

_NEEDED_GIGABYTES = 5.0
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def diagnose() -> int:
    """Print the findings about this machine on stdout; returns 1 when something needed is missing."""
    return tell(findings())


def diagnose_environment(environment: str) -> int:
    """The same for an environment of manifests/environments, as it is reached from this machine."""
    from pipelines.commands.environment_checks import environment_findings

    return tell(environment_findings(environment))


def findings() -> Iterator[Finding]:
    yield Finding("Python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or newer")
    uv = shutil.which("uv") or _existing(ROOT / ".tools" / "bin" / "uv")
    yield Finding("uv", bool(uv), uv or "not found", "run `make setup`, which installs it")
    for program in ("git", "make"):
        path = shutil.which(program)
        yield Finding(program, bool(path), path or "not found", f"install {program} with the system's package manager")
    for environment in ENVIRONMENTS:
        yield _environment(environment)
    free = shutil.disk_usage(ROOT).free / 1e9
    yield Finding("disk", free >= _NEEDED_GIGABYTES, f"{free:.1f} GB free", f"free {_NEEDED_GIGABYTES:.0f} GB where the repository lies")
    cores = os.cpu_count() or 1
    yield Finding("cores", cores >= 2, str(cores), "the demo takes longer than it says on one core", needed=False)
    browser = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    yield Finding(
        "Chromium", bool(browser), browser or "not found", "install Chromium to run the test that opens the report; it is skipped without", needed=False
    )
    yield from _usecases()


def _environment(environment: str) -> Finding:
    subject, remedy = f"environment {environment}", "run `make setup`"
    try:
        python = interpreter(environment)
    except CrisplineError:
        return Finding(subject, False, "not installed", remedy)
    version = subprocess.run([python, "-c", "import sys, components; print(sys.version.split()[0])"], capture_output=True, text=True, check=False)
    if version.returncode != 0:
        return Finding(
            subject, False, "does not start: " + (version.stderr.strip().splitlines() or ["no message"])[-1], f"remove {python.parent.parent} and {remedy}"
        )
    synced, lock = python.parent.parent / ".synced", environment_folder(environment) / "uv.lock"
    if synced.exists() and synced.stat().st_mtime < lock.stat().st_mtime:
        return Finding(subject, False, "older than its lock", remedy)
    return Finding(subject, True, f"Python {version.stdout.strip()}", remedy)


def _usecases() -> Iterator[Finding]:
    for file in sorted(usecases_root().glob("*/usecase.yaml")):
        try:
            load_usecase(file.parent)
        except CrisplineError as error:
            yield Finding(f"use case {file.parent.name}", False, str(error).splitlines()[0], f"see `crispline validate {file.parent}`")
        else:
            yield Finding(f"use case {file.parent.name}", True, "valid", "")


def _existing(path: Path) -> str | None:
    return str(path) if path.exists() else None


if __name__ == "__main__":
    end_with(lambda: diagnose_environment(sys.argv[1]))
