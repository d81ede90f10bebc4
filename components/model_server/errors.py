"""One exception for each thing that can be wrong with a request: the field, the value that was found and what to do about it.

They know nothing of HTTP; `components.model_server.statuses` is the one table that gives each its status.
"""

from __future__ import annotations

from typing import ClassVar

from components.contracts.errors import CrisplineError


class RequestRefused(CrisplineError):
    """Base of every refusal of a request. `reason` is a constant for programs; `field` a path such as `instances[3].features.distance`."""

    reason: ClassVar[str] = "REFUSED"

    def __init__(self, field: str, message: str, remedy: str, value: object = None) -> None:
        self.field = field
        self.message = message
        self.remedy = remedy
        self.value = shown(value)
        found = f" (found {self.value})" if self.value else ""
        super().__init__(f"{field}: {message}{found}; {remedy}")

    def __reduce__(self) -> str | tuple[object, ...]:
        return type(self), (self.field, self.message, self.remedy), {"value": self.value}


class NotJson(RequestRefused):
    """The body is absent, is not JSON, or is declared as something else."""

    reason = "NOT_JSON"


class WrongShape(RequestRefused):
    """JSON, but not the envelope or the message that the contract describes: a part is absent, has another kind, or two parts exclude each other."""

    reason = "WRONG_SHAPE"


class UnknownField(RequestRefused):
    """A name that the message, the contract's columns or the join keys do not have."""

    reason = "UNKNOWN_FIELD"


class MissingField(RequestRefused):
    """A feature, request-time field or join key that the contract needs."""

    reason = "MISSING_FIELD"


class WrongType(RequestRefused):
    """A value of another type than its column's."""

    reason = "WRONG_TYPE"


class MissingValue(RequestRefused):
    """null or NaN in a column that is not nullable."""

    reason = "MISSING_VALUE"


class NotFinite(RequestRefused):
    """Infinity: no column can hold it."""

    reason = "NOT_FINITE"


class MomentOutOfOrder(RequestRefused):
    """A prediction moment after the event that it is to predict."""

    reason = "MOMENT_OUT_OF_ORDER"


class MomentTooFar(RequestRefused):
    """A prediction moment further from the clock than the edge allows."""

    reason = "MOMENT_TOO_FAR"


class BatchTooLarge(RequestRefused):
    """More rows than the contract allows in one request."""

    reason = "BATCH_TOO_LARGE"


class BodyTooLarge(RequestRefused):
    """More bytes than the contract allows in one request."""

    reason = "BODY_TOO_LARGE"


class UnknownRoute(RequestRefused):
    reason = "UNKNOWN_ROUTE"


class WrongMethod(RequestRefused):
    reason = "WRONG_METHOD"


class FeaturesUnavailable(RequestRefused):
    """The feature server failed and the use case declares `fallback: refuse`."""

    reason = "FEATURES_UNAVAILABLE"


class NotReady(RequestRefused):
    """The model is not warm, or no longer accepts work."""

    reason = "NOT_READY"


class UpstreamUnavailable(RequestRefused):
    """The forwarder cannot reach the model server."""

    reason = "UPSTREAM_UNAVAILABLE"


class InternalError(RequestRefused):
    """Anything unforeseen: the answer names no cause, the server's log has the trace under the request id."""

    reason = "INTERNAL_ERROR"


def shown(value: object) -> str:
    """A value as an answer may show it: short, and never a whole payload."""
    if value is None:
        return ""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
