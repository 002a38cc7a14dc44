"""Errors in OpenAI's shape, whatever went wrong and wherever."""

import json
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from offsft.errors import EngineError, OffsftError

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_LONGEST_MESSAGE = 500


class ErrorDetail(BaseModel):
    """What went wrong: for people (`message`) and for programs (`code`)."""

    message: str
    type: str
    param: str | None = Field(description="The field that is to blame, where one is.")
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class ApiError(HTTPException):
    """An error for the client: status, one line, a code for programs, and when to try again."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        headers = None if retry_after_s is None else {"Retry-After": str(max(1, round(retry_after_s + 0.5)))}
        super().__init__(status, message, headers=headers)
        self.code = code
        self.param = param


class GoneError(Exception):
    """The client went away; nobody waits for an answer."""


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
    """The answer to a request that failed with `error`."""
    headers = dict(error.headers or {})
    if error.status_code == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    # ASCII: a lone surrogate from the request must not break the answer that complains of it.
    return Response(json.dumps(body_of(error)), error.status_code, headers, "application/json")


def api_error(error: Exception, retry_after_s: float) -> HTTPException | StarletteHTTPException:
    """What a client is told of any exception; of what is not meant for users, nothing but that it happened."""
    if isinstance(error, StarletteHTTPException):
        return error
    if isinstance(error, EngineError):
        return ApiError(503, f"{error}; try again", code="engine_unavailable", retry_after_s=retry_after_s)
    if isinstance(error, TimeoutError):
        return ApiError(504, "the request took longer than limits.deadline_s allows", code="deadline_exceeded")
    if isinstance(error, OffsftError):
        return ApiError(500, str(error), code="internal_error")
    return ApiError(500, "something went wrong here; the log has it under this request's id", code="internal_error")


def add_handlers(app: FastAPI, retry_after_s: float) -> None:
    """Every exception that a route can raise on purpose becomes an answer; the rest is for the outermost layer."""

    async def known(_: Request, error: Exception) -> Response:
        return response_of(api_error(error, retry_after_s))

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response_of(_invalid(error))

    for kind in (StarletteHTTPException, OffsftError, TimeoutError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)


def _invalid(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first['ctx']['error']}", code="invalid_json")
    if first["type"] == "model_attributes_type" and first["loc"] == ("body",):
        return ApiError(
            400, "the body must be a JSON object, sent as content-type application/json", code="invalid_json"
        )
    path = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    return ApiError(
        400, f"{path}: {first['msg'][:1].lower()}{first['msg'][1:]}{more}", code="invalid_value", param=path
    )
