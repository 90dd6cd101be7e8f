"""One error form for every route, OpenAI's: {"error": {"message", "type", "param", "code"}}."""

import math
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from alchemy.errors import AlchemyError, BadInput, Conflict, NotFound, Unavailable

_STATUS: dict[type[AlchemyError], int] = {BadInput: 422, NotFound: 404, Conflict: 409, Unavailable: 503}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_response(
    status: int,
    message: str,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    param: str | None = None,
) -> JSONResponse:
    """The response of a failed request."""
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status, dict(headers or {}))


def retry_after(error: AlchemyError) -> str:
    """The whole seconds that a client should wait."""
    return str(math.ceil(getattr(error, "retry_after_s", None) or 2))


def install(app: FastAPI) -> None:
    """Answers every exception of the app in this form."""

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return error_response(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return error_response(422, f"{where or 'body'}: {first['msg']}", "invalid_value", param=where or None)

    @app.exception_handler(Exception)
    async def fault(_: Request, __: Exception) -> JSONResponse:
        return error_response(500, "the service failed for a reason of its own; it is in the log")

    @app.exception_handler(AlchemyError)
    async def ours(_: Request, error: AlchemyError) -> JSONResponse:
        status = _STATUS.get(type(error), 500)
        headers = {"Retry-After": retry_after(error)} if status == 503 else None
        return error_response(status, str(error), headers=headers)
