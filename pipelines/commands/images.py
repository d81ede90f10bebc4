"""`crispline images`: the tags that follow from the content, the builds, and what a registry holds."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console

from components.environments.names import IMAGES, REGISTRY_VARIABLE
from pipelines.commands.choices import default_usecase
from pipelines.images import (
    BUILD_AND_PUSH,
    IMAGE_LOAD_VARIABLE,
    Layer,
    build,
    image_reference_of,
    manifest,
    recipe_of,
    shared,
    sizes,
    step_image_variables,
)

images_app = typer.Typer(no_args_is_help=True, help="Container images of the environments.", rich_markup_mode="rich")

Names = Annotated[list[str] | None, typer.Argument(help=f"{', '.join(IMAGES)}. [dim]default: all[/dim]", show_default=False)]
UseCaseName = Annotated[str, typer.Option("--usecase", "-u", help="Name of a folder under usecases/. [dim]default: the only one[/dim]")]
Registry = Annotated[str, typer.Option(envvar=REGISTRY_VARIABLE, help="Registry and path before the image's name. [dim]default: localhost:5000[/dim]")]


@images_app.command("tag", epilog="Example:  crispline images tag pipeline")
def tag(names: Names = None, usecase: UseCaseName = "", registry: Registry = "") -> None:
    """Print the reference of each image: registry, name and the tag that its content gives."""
    for image in _chosen(names):
        typer.echo(image_reference_of(image, default_usecase(usecase), registry))


@images_app.command("env", epilog='Example:  eval "$(crispline images env)"')
def env(
    usecase: UseCaseName = "",
    registry: Registry = "",
    digests: Annotated[bool, typer.Option("--digests", help="By digest, as the registry has them: for a release.")] = False,
) -> None:
    """Print the variables under which pipelines compile for a use case's images."""
    for name, reference in step_image_variables(default_usecase(usecase), registry, digests).items():
        typer.echo(f"export {name}={reference}")


@images_app.command("build", epilog="Example:  crispline images build pipeline monitoring --registry ghcr.io/acme")
def build_images(
    names: Names = None,
    usecase: UseCaseName = "",
    registry: Registry = "",
    command: Annotated[
        str,
        typer.Option(
            envvar=IMAGE_LOAD_VARIABLE,
            help=f"Line for bash with {{context}} {{dockerfile}} {{arguments}} {{image}}. [dim]default: {BUILD_AND_PUSH.split('{')[0]}... && docker push[/dim]",
        ),
    ] = "",
    again: Annotated[bool, typer.Option("--again", help="Also what the registry has already.")] = False,
) -> None:
    """Build and publish what the registry does not have yet."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for image in _chosen(names):
        reference = image_reference_of(image, default_usecase(usecase), registry)
        if not again and manifest(reference) is not None:
            console.print(f"[green]✓[/] {reference} is there already")
            continue
        console.print(f"[dim]…[/] {reference}")
        began = time.monotonic()
        build(image, default_usecase(usecase), registry, command, again=True)
        console.print(f"[green]✓[/] {reference} built in {time.monotonic() - began:.0f} s")


@images_app.command("pin", epilog="Example:  crispline images pin --env staging --registry ghcr.io/acme")
def pin(
    environment: Annotated[str, typer.Option("--env", "-e", help="Whose values: manifests/environments/<env>/.")],
    usecase: UseCaseName = "",
    registry: Registry = "",
) -> None:
    """Write the digests of this tree's images into the values of an environment; the change is for you to commit."""
    from pipelines.image_pins import pin_images

    for changed in pin_images(environment, default_usecase(usecase), registry):
        typer.echo(str(changed))


@images_app.command("list", epilog="Example:  crispline images list --registry ghcr.io/acme")
def list_images(usecase: UseCaseName = "", registry: Registry = "") -> None:
    """Each image with its size as the registry holds it, compressed, and what it shares with the others."""
    references = {image: image_reference_of(image, default_usecase(usecase), registry) for image in IMAGES}
    found = sizes(references)
    common = shared(found)
    typer.echo(f"{'image':<11} {'compressed':>11} {'shared':>9}  reference")
    for image, reference in references.items():
        layers = found.get(image)
        size, same = ("not there", "") if layers is None else (_megabytes(layers), _megabytes([each for each in layers if each.digest in common]))
        typer.echo(f"{image:<11} {size:>11} {same:>9}  {reference}")


def _chosen(names: list[str] | None) -> list[str]:
    chosen = list(names or IMAGES)
    for name in chosen:
        recipe_of(name)
    return chosen


def _megabytes(layers: list[Layer]) -> str:
    return f"{sum(each.size for each in layers) / 1e6:.1f} MB"
