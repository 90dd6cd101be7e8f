"""What every request gets before anything else looks at it: an id, a clock, a span.

Plain ASGI middleware and the outermost of ours, so that refusals of the guard are counted too, and streams
until their last byte.
"""

import re
import secrets
import time
from contextlib import nullcontext

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.watching import logs
from serving.watching.metrics import Metrics
from serving.watching.tracing import Tracing

HEADER = "X-Request-Id"
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")  # it is copied into every log line


class Observe:
    """Names, times, counts and traces requests. `tracing` gives where spans go once the app has started."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER, "")
        identity = given if _SANE.fullmatch(given) else f"req-{secrets.token_hex(8)}"
        scope["request_id"] = identity
        logs.request_id.set(identity)  # of this task; a server gives each request its own
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = identity
            await send(message)

        tracing: Tracing | None = getattr(scope["app"].state, "tracing", None)
        span = tracing.request(scope["method"], headers) if tracing else nullcontext()
        with span as traced:
            try:
                await self._app(scope, receive, noted)
            finally:
                # The template, not the path: ids and unknown paths must not become labels.
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.latency.labels(route).observe(time.perf_counter() - started)
                self._metrics.requests.labels(route, str(status)).inc()
                if traced:
                    traced.update_name(f"{scope['method']} {route}")
                    traced.set_attributes(
                        {
                            "http.request.method": scope["method"],
                            "http.route": route,
                            "http.response.status_code": status,
                            "alchemy.request.id": identity,
                        }
                    )
