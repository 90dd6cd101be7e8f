"""One error form for every route, OpenAI's: {"error": {"message", "type", "param", "code"}}."""

import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from alchemy.errors import AlchemyError, BadInput, Conflict, NotFound, Unavailable
from serving.headers import security_headers
from serving.people.attempts import TooManyAttempts
from serving.people.credentials import Unrecognized

_STATUS: dict[type[AlchemyError], int] = {BadInput: 422, NotFound: 404, Conflict: 409, Unavailable: 503}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Problem(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """What every failed request is answered with."""

    error: Problem


def _documented(status: int, text: str) -> dict[str, Any]:
    example = {"error": {"message": text, "type": _kind(status), "param": None, "code": None}}
    content = {"application/json": {"example": example}}
    return {"model": ErrorBody, "description": text, "content": content}


def _kind(status: int) -> str:
    return "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")


# What any route may answer besides its own results; for the OpenAPI document.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: _documented(status, text)
    for status, text in {
        400: "the body cannot be parsed",
        401: "nobody whom the service knows",
        403: "the role does not allow this",
        404: "there is no such thing, or it is somebody else's",
        409: "somebody else was first, or the state of things does not allow it",
        413: "the body is too large",
        422: "a field is missing or out of its bounds",
        429: "too many requests; Retry-After says when to try again",
        503: "something that the service depends on does not answer; Retry-After says when to try again",
    }.items()
}


def error_response(
    status: int,
    message: str,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    param: str | None = None,
) -> JSONResponse:
    """The response of a failed request."""
    body = {"error": {"message": message, "type": _kind(status), "param": param, "code": code}}
    return JSONResponse(body, status, dict(headers or {}))


def retry_after(error: AlchemyError) -> str:
    """The whole seconds that a client should wait."""
    return str(math.ceil(getattr(error, "retry_after_s", None) or 2))


def install(app: FastAPI) -> None:
    """Answers every exception of the app in this form."""

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return error_response(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(Unrecognized)
    async def unrecognized(_: Request, error: Unrecognized) -> JSONResponse:
        return error_response(401, str(error), "invalid_grant", {"WWW-Authenticate": "Bearer"})

    @app.exception_handler(TooManyAttempts)
    async def later(_: Request, error: TooManyAttempts) -> JSONResponse:
        return error_response(429, str(error), "too_many_attempts", {"Retry-After": str(error.seconds)})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return error_response(422, f"{where or 'body'}: {first['msg']}", "invalid_value", param=where or None)

    @app.exception_handler(Exception)
    async def fault(request: Request, _: Exception) -> JSONResponse:
        # Starlette answers these outside of all our middleware, which would have added the headers.
        headers = {"X-Request-Id": request.scope["request_id"], **security_headers(request.scope)}
        return error_response(
            500, "the service failed for a reason of its own; it is in the log", None, headers
        )

    @app.exception_handler(AlchemyError)
    async def ours(_: Request, error: AlchemyError) -> JSONResponse:
        status = _STATUS.get(type(error), 500)
        headers = {"Retry-After": retry_after(error)} if status == 503 else None
        return error_response(status, str(error), headers=headers)
