"""Every error as a response in OpenAI's shape."""

import json
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from offsft.errors import EngineError, OffsftError

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_LONGEST_MESSAGE = 500


class ErrorDetail(BaseModel):
    """The error, for people (`message`) and for programs (`code`)."""

    message: str
    type: str
    param: str | None = Field(description="The field that is to blame, where one is.")
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorDetail


class ApiError(HTTPException):
    """An error for the client: status, one-line message, a code for programs, and when to retry."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        retry = {} if retry_after_s is None else {"Retry-After": str(max(1, round(retry_after_s + 0.5)))}
        super().__init__(status, message, headers={**(headers or {}), **retry} or None)
        self.code = code
        self.param = param


class GoneError(Exception):
    """The client disconnected; nobody waits for the answer."""


def body_of(error: HTTPException | StarletteHTTPException) -> dict[str, Any]:
    """`{"error": {...}}` for an HTTP error, our own or the framework's."""
    status = error.status_code
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {
        "error": {
            "message": str(error.detail)[:_LONGEST_MESSAGE],
            "type": kind,
            "param": getattr(error, "param", None),
            "code": getattr(error, "code", None) or _CODES.get(status),
        }
    }


def response_of(error: HTTPException | StarletteHTTPException) -> Response:
    """The response to a request that failed with `error`."""
    headers = dict(error.headers or {})
    if error.status_code == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    # ASCII: a lone surrogate in the request must not break the response that reports it.
    return Response(json.dumps(body_of(error)), error.status_code, headers, "application/json")


def api_error(error: Exception, retry_after_s: float, request_id: str = "") -> HTTPException | StarletteHTTPException:
    """The HTTP error for any exception; one that is not meant for users becomes a bare 500 with its request's id."""
    if isinstance(error, StarletteHTTPException):
        return error
    if isinstance(error, EngineError):
        return ApiError(503, f"{error}; try again", code="engine_unavailable", retry_after_s=retry_after_s)
    if isinstance(error, TimeoutError):
        return ApiError(504, "the request took longer than limits.deadline_s allows", code="deadline_exceeded")
    if isinstance(error, OffsftError):
        return ApiError(500, str(error), code="internal_error")
    message = f"something went wrong here; the log has it under this request's id{request_id and f', {request_id}'}"
    return ApiError(500, message, code="internal_error")
