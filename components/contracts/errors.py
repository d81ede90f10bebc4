"""The one way in which crispline refuses something: what is wrong, where, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class CrisplineError(Exception):
    """Base of every refusal that a person can act on. The command line prints it without a stack trace and exits with `exit_code`."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file a person wrote.

    `line` counts from 1; 0 means that the file as a whole is meant.
    """

    file: Path
    line: int
    key: str
    message: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        return f"{place}: {self.key}: {self.message}\n    remedy: {self.remedy}"


class InvalidUseCase(CrisplineError):
    """A use case's folder breaks the contract; `problems` lists every breach found, not only the first."""

    exit_code = 2

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class InvalidData(CrisplineError):
    """Data breaks its contract; `report` is the place of the readable report, where one was written."""

    exit_code = 3

    def __init__(self, message: str, report: str | None = None) -> None:
        self.report = report
        super().__init__(message if report is None else f"{message}\n    report: {report}")


class IntegrityError(CrisplineError):
    """Stored content does not match the hash under which it was recorded."""

    exit_code = 4


class StepFailed(CrisplineError):
    """A pipeline's step ended with an error. The message holds the step's own traceback."""

    exit_code = 5
