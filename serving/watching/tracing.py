"""Traces by OpenTelemetry, for services that have a collector: a span per request, and one per step in it.

Off, which is the default, nothing of OpenTelemetry is imported and `span` costs a look at one variable. On,
spans go by OTLP over HTTP to ALCHEMY_SERVING_OTLP_ENDPOINT, or to what OpenTelemetry's own variables
(OTEL_EXPORTER_OTLP_*) say. Names follow its conventions for generative AI (`gen_ai.*`). No span holds what
was asked or answered: not even an exception's message, which may quote it.

The current span is a variable of our own: an async generator may be closed from another context than the one
that it began in, which OpenTelemetry's own bookkeeping reports as an error.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from alchemy.errors import BadConfig

Attributes = Mapping[str, str | int | float | bool | list[str] | None]  # None: left out

_SERVICE = "data-alchemy"
_EXPORT_S = 5.0  # a collector that hangs costs a batch of spans, never a request
_current: ContextVar[tuple[Any, Any] | None] = ContextVar("span", default=None)  # tracer and span


class Tracing:
    """Where spans go; one per app."""

    def __init__(self, endpoint: str | None = None) -> None:
        """`endpoint` is the collector's base URL. Raises BadConfig where the extra is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise BadConfig("traces need the extra `tracing`: pip install 'data-alchemy[tracing]'") from error
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": _SERVICE}
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        url = endpoint and f"{endpoint.rstrip('/')}/v1/traces"
        exporter = OTLPSpanExporter(endpoint=url, timeout=_EXPORT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(_SERVICE)

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """A request's span, below the caller's of the W3C `traceparent` header where there is one."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(headers)
        with _current_while(self._tracer, self._tracer.start_span(name, parent, SpanKind.SERVER)) as one:
            yield one

    def close(self) -> None:
        """Sends what is left, for a few seconds at most. Blocks."""
        self._provider.shutdown()


def open_tracing(endpoint: str | None) -> Tracing | None:
    """Traces where the option or OpenTelemetry's own variables name a collector. Raises BadConfig."""
    named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if endpoint or any(os.environ.get(name) for name in named):
        return Tracing(endpoint)
    return None


@contextmanager
def span(name: str, attributes: Attributes, *, calls_out: bool = False) -> Iterator[None]:
    """A step of the current request; nothing where it is not traced. `calls_out`: of another service."""
    current = _current.get()
    if current is None:
        yield
        return
    from opentelemetry.trace import SpanKind, set_span_in_context

    tracer, above = current
    kind = SpanKind.CLIENT if calls_out else SpanKind.INTERNAL
    with _current_while(tracer, tracer.start_span(name, set_span_in_context(above), kind)):
        note(attributes)
        yield


def note(attributes: Attributes) -> None:
    """Adds to the current span what is known only now."""
    if current := _current.get():
        current[1].set_attributes({name: value for name, value in attributes.items() if value is not None})


def outgoing() -> dict[str, str]:
    """The headers that make another service's spans part of this trace."""
    current = _current.get()
    if current is None:
        return {}
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers, set_span_in_context(current[1]))
    return headers


@contextmanager
def _current_while(tracer: Any, one: Any) -> Iterator[Any]:
    from opentelemetry.trace import StatusCode

    above = _current.get()
    _current.set((tracer, one))
    try:
        yield one
    except BaseException as error:
        one.set_attribute("error.type", type(error).__qualname__)
        if isinstance(error, Exception):  # a client that left is no error
            one.set_status(StatusCode.ERROR)
        raise
    finally:
        _current.set(above)
        one.end()
