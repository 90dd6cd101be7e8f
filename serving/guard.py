"""The door: who a request is from, whether they may ask now, and how large it may be.

Plain ASGI middleware, so that it also covers WebSockets, the documentation and unknown paths, never buffers a
response, and leaves the disconnect message to whoever waits for it. Every path is closed but those named
here: a new route is closed until somebody opens it. No cookie is ever read or set, so that no other site can
make a browser ask in somebody's name; a token comes in a header alone, a ticket only for a WebSocket.
"""

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alchemy.errors import Unavailable
from serving.errors import error_response
from serving.headers import security_headers
from serving.people.access import ANYONE, NOBODY, Principal
from serving.people.addresses import client_address
from serving.people.credentials import Unrecognized
from serving.people.limits import TooManyAtOnce
from serving.people.people import People

# What the cluster's probes and Prometheus read, what a page needs before the login, and the page itself.
OPEN = frozenset(
    {
        *("/healthz", "/readyz", "/metrics", "/", "/favicon.ico"),
        *("/api/auth/login", "/api/auth/refresh", "/api/auth/mode"),
    }
)
_OPEN_UNDER = "/static/"
_WEBSOCKET_CLOSE = 4401  # where the server cannot refuse with a status


class Guard:
    """Lets through requests of principals within their limits, and of a bounded size.

    Args:
        app: What is guarded.
        max_body_bytes: Of a request's body.
        of_curators: By path, of a curator's or admin's, who bring documents in.
    """

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, of_curators: Mapping[str, int] | None = None
    ) -> None:
        self._app = app
        self._max = max_body_bytes
        self._of_curators = of_curators or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        people: People = scope["app"].state.services.people
        visit = _Visit(scope, people)
        try:
            told = await visit.enter()
            with people.limits.place(scope["principal"]):
                await self._bounded(scope, receive, visit.answering(send, told))
        except _Refused as refused:
            await self._refuse(scope, receive, visit.answering(send, refused.headers), refused)
        except TooManyAtOnce:
            people.metrics.refused.labels("at_once").inc()
            busy = _Refused(429, "too many of your requests are in work", "too_many_at_once", _SOON)
            await self._refuse(scope, receive, visit.answering(send, _SOON), busy)
        finally:
            visit.leave()

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = self._most(scope)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            raise _too_large(most)
        received, answering = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
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
            raise _too_large(most) from None

    def _most(self, scope: Scope) -> int:
        found: Principal = scope["principal"]
        return self._of_curators.get(scope["path"], self._max) if found.may("curator") else self._max

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refused: "_Refused") -> None:
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": _WEBSOCKET_CLOSE, "reason": refused.message[:100]})
            return
        response = error_response(refused.status, refused.message, refused.code)
        await response(scope, receive, send)


class _Visit:
    """One request from its first look to its last byte."""

    def __init__(self, scope: Scope, people: People) -> None:
        self._scope = scope
        self._people = people
        self._headers = Headers(scope=scope)
        self._status = 0
        self._address = client_address(scope, people.options.trusted_proxies)
        self._id = scope["request_id"]  # by `observe`
        scope.setdefault("state", {}).update(client_address=self._address)

    async def enter(self) -> Mapping[str, str]:
        """Sets the principal; what to tell of the caller's rate. Raises _Refused."""
        scope, people = self._scope, self._people
        path = scope["path"]
        if path in OPEN or path.startswith(_OPEN_UNDER):
            scope["principal"] = ANYONE if people.credentials.is_open else NOBODY
            return {}
        scope["principal"] = found = await self._recognize()
        people.watch.asked(found.caller)
        verdict = await people.limits.take(found)
        if verdict is None:
            return {}
        if not verdict.allowed:
            people.metrics.refused.labels("rate").inc()
            people.audit.record("limited", found, request=self._id)
            raise _Refused(429, "too many requests", "rate_limit_exceeded", verdict.headers)
        return verdict.headers

    def answering(self, send: Send, told: Mapping[str, str]) -> Send:
        """`send`, with the headers that every response has."""

        async def noted(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                self._status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in (security_headers(self._scope) | dict(told)).items():
                    headers.setdefault(name, value)
            await send(message)

        return noted

    def leave(self) -> None:
        """Notes what was denied, and what an admin did."""
        scope, people = self._scope, self._people
        found: Principal | None = scope.get("principal")
        caller = found.caller if found and found is not NOBODY else f"from {self._address}"
        request = {"method": scope.get("method", "WEBSOCKET"), "path": scope["path"][:200]}
        fields = {"request": self._id, "status": self._status, "address": self._address, **request}
        if self._status in (401, 403, 404):
            people.watch.denied(caller)
        if self._status in (401, 403) and found is not NOBODY:  # the open routes note their own
            people.audit.record("denied", found, **fields)
        elif scope.get("acted_as") == "admin" and request["method"] not in ("GET", "HEAD"):
            subject = scope["state"].get("subject")  # what a route says it was done to
            people.audit.record("admin", found, **fields, **({"subject": subject} if subject else {}))

    async def _recognize(self) -> Principal:
        credentials = self._people.credentials
        try:
            ticket = self._ticket()
            if ticket and "authorization" not in self._headers:
                return await credentials.redeem(ticket)
            return await credentials.recognize(self._headers.get("authorization", ""))
        except Unrecognized as error:
            self._people.metrics.refused.labels("unrecognized").inc()
            headers = {"WWW-Authenticate": "Bearer"}
            raise _Refused(401, str(error), "invalid_api_key", headers) from None
        except Unavailable as error:
            raise _Refused(503, str(error), None, {"Retry-After": "2"}) from None

    def _ticket(self) -> str:
        if self._scope["type"] != "websocket":
            return ""
        return QueryParams(self._scope["query_string"]).get("ticket", "")


_SOON = {"Retry-After": "1"}


class _Refused(Exception):
    """The request ends at the door."""

    def __init__(
        self, status: int, message: str, code: str | None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}


def _too_large(most: int) -> _Refused:
    return _Refused(413, f"the body is over {most} bytes", "request_too_large")


class _TooLarge(BaseException):
    """Not an Exception: no handler inside the app, which reads the body, may take it for its own fault."""
