"""The names of the environments and of their images; imports nothing, so that the command line and the runners share it."""

from typing import Final

ENVIRONMENTS: Final = ("pipeline", "serving", "monitoring")
IMAGES: Final = (*ENVIRONMENTS, "tracking")
IMAGE_TAG_VARIABLE: Final = "CRISPLINE_IMAGE_TAG"
REGISTRY_VARIABLE: Final = "CRISPLINE_IMAGE_REGISTRY"
DEFAULT_REGISTRY: Final = "localhost:5000"

_PREFIX: Final = "crispline-"


def image_name(environment: str) -> str:
    return _PREFIX + environment


def image_variable(environment: str) -> str:
    """The variable that names one environment's image completely, by tag or digest: CRISPLINE_IMAGE_PIPELINE, ..."""
    return f"CRISPLINE_IMAGE_{environment.upper()}"


def environment_of_image(reference: str) -> str:
    """`localhost:5000/crispline-pipeline:dev` gives `pipeline`. Raises ValueError for an image that is none of ours."""
    name = reference.rsplit("/", 1)[-1].split(":", 1)[0].split("@", 1)[0]
    environment = name.removeprefix(_PREFIX)
    if name == environment or environment not in ENVIRONMENTS:
        raise ValueError(f"image {reference!r} belongs to no environment; the images are {', '.join(image_name(each) for each in ENVIRONMENTS)}")
    return environment
