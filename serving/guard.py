"""Who may ask, and how much: the optional bearer key and the size of a request's body.

Plain ASGI middleware, so that it also covers the documentation pages and unknown paths, never buffers a
response, and leaves the disconnect message to whoever waits for it.
"""

import hashlib
import secrets

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access import ANYONE, Principal
from serving.errors import error_response

# What the cluster's probes and Prometheus read, and the page; none of it says anything about content.
OPEN = frozenset({"/", "/healthz", "/readyz", "/metrics"})


class Guard:
    """Lets through requests that carry the key and are small enough."""

    def __init__(self, app: ASGIApp, *, api_key: SecretStr | None, max_body_bytes: int) -> None:
        self._app = app
        self._key = _digest(api_key.get_secret_value()) if api_key else None
        self._max = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["principal"] = ANYONE if self._key is None else Principal("operator", "admin")
        if scope["type"] != "http" or scope["path"] in OPEN or scope["path"].startswith("/static/"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._knows(headers.get("authorization", "")):
            message = "a bearer key is needed: `Authorization: Bearer <ALCHEMY_API_KEY>`"
            response = error_response(401, message, "invalid_api_key", {"WWW-Authenticate": "Bearer"})
            await response(scope, receive, send)
            return
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._max:
            await self._too_large(scope, receive, send)
            return
        received, answering = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _TooLarge:
            if answering:
                raise
            await self._too_large(scope, receive, send)

    def _knows(self, authorization: str) -> bool:
        if self._key is None:
            return True
        scheme, _, key = authorization.partition(" ")
        # Digests have one length: the comparison's time tells nothing about the key.
        return secrets.compare_digest(_digest(key.strip()), self._key) and scheme.lower() == "bearer"

    async def _too_large(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = error_response(413, f"the body is over {self._max} bytes", "request_too_large")
        await response(scope, receive, send)


class _TooLarge(BaseException):
    """Not an Exception: no handler inside the app may take it for a fault of its own."""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
