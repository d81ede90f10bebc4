"""The one table from a refusal to its HTTP status, and the one shape of a refusal's body."""

from __future__ import annotations

from http import HTTPStatus

from pydantic import BaseModel, ConfigDict, Field

from components.model_server import errors

STATUS: dict[type[errors.RequestRefused], HTTPStatus] = {
    errors.NotJson: HTTPStatus.BAD_REQUEST,
    errors.UnknownRoute: HTTPStatus.NOT_FOUND,
    errors.WrongMethod: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.BatchTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.WrongShape: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UnknownField: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.MissingField: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.WrongType: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.MissingValue: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NotFinite: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.MomentOutOfOrder: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.MomentTooFar: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.FeaturesUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.NotReady: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.UpstreamUnavailable: HTTPStatus.BAD_GATEWAY,
    errors.InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class RefusalStatus(BaseModel):
    """Why a request was refused. `info` and `status` are Seldon's own keys, kept for its clients."""

    model_config = ConfigDict(frozen=True)

    code: int = Field(description="the HTTP status")
    reason: str = Field(description="a constant for programs, such as WRONG_TYPE")
    field: str = Field(description="what is at fault, such as instances[3].features.distance")
    message: str
    remedy: str
    value: str = Field(description="the value that was found, shortened; empty where none was")
    info: str
    status: int = 1


class Refusal(BaseModel):
    model_config = ConfigDict(frozen=True)

    status: RefusalStatus
    meta: dict[str, str]


def status_of(error: errors.RequestRefused) -> int:
    return int(STATUS[type(error)])


def refusal_of(error: errors.RequestRefused, request_id: str) -> Refusal:
    """The body of the answer to a refused request."""
    return Refusal(
        status=RefusalStatus(
            code=status_of(error),
            reason=error.reason,
            field=error.field,
            message=error.message,
            remedy=error.remedy,
            value=error.value,
            info=f"{error.field}: {error.message}",
        ),
        meta={"puid": request_id},
    )
