"""`crispline packages`: what use cases need beyond the environments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from components.contracts.platform import usecases_root
from components.environments.names import ENVIRONMENTS
from pipelines.usecase_packages import install, lock

packages_app = typer.Typer(no_args_is_help=True, help="Packages that a use case needs beyond its environments.", rich_markup_mode="rich")


@packages_app.command("lock", epilog="Example:  crispline packages lock usecases/flights")
def lock_packages(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of use cases. [dim]default: all[/dim]", show_default=False)] = None,
) -> None:
    """Lock requirements/<environment>.in of use cases under the locks of the environments."""
    for folder in folders or sorted(file.parent for file in usecases_root().glob("*/usecase.yaml")):
        for written in lock(folder):
            typer.echo(str(written))


@packages_app.command("install", epilog="Example:  crispline packages install pipeline")
def install_packages(
    environments: Annotated[list[str] | None, typer.Argument(help=f"{', '.join(ENVIRONMENTS)}. [dim]default: all[/dim]", show_default=False)] = None,
) -> None:
    """Install the locked packages of every use case into this machine's environments."""
    for environment in environments or ENVIRONMENTS:
        for installed in install(usecases_root(), environment):
            typer.echo(f"{environment}: {installed}")
