"""What a person types, as what a pipeline takes."""

from __future__ import annotations

from collections.abc import Sequence

from components.contracts.durations import format_moment, parse_moment
from components.contracts.errors import CrisplineError
from components.contracts.platform import usecases_root


class WrongUsage(CrisplineError):
    """The command line cannot be understood."""

    exit_code = 2


def given_moment(text: str) -> str:
    """A day (`2013-04-01`, its start in UTC) or an RFC 3339 moment, as an RFC 3339 moment in UTC. Raises WrongUsage."""
    try:
        return format_moment(parse_moment(f"{text}T00:00:00Z" if len(text) == len("2013-04-01") else text))
    except ValueError as error:
        raise WrongUsage(f"{text!r} is no moment; write 2013-04-01 or 2013-04-01T12:00:00Z ({error})") from None


def default_usecase(name: str) -> str:
    """The name itself, or that of the only use case. Raises WrongUsage when that is not one."""
    known = sorted(folder.parent.name for folder in usecases_root().glob("*/usecase.yaml"))
    if name:
        if name not in known:
            raise WrongUsage(f"there is no use case {name!r} under {usecases_root()}; there are: {', '.join(known) or 'none'}")
        return name
    if len(known) != 1:
        raise WrongUsage(f"name the use case with --usecase; under {usecases_root()} there are: {', '.join(known) or 'none'}")
    return known[0]


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """`["a=1"]` as `{"a": "1"}`. Raises WrongUsage."""
    found = dict(text.partition("=")[::2] for text in texts if "=" in text)
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise WrongUsage(f"{wrong[0]!r} is no <name>=<value>")
    return found
