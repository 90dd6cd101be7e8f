"""Traces against a local collector that speaks OTLP over HTTP."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serving.watching.tracing import open_tracing, outgoing, span
from tests.serving.conftest import Knowledge, Serve
from tests.serving.llm import Model

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
QUESTION = "How often does the secret gateway retry?"


class Collector(ThreadingHTTPServer):
    """Takes spans."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: list[str] = []
        self.received = ExportTraceServiceRequest()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def spans(self) -> list[Span]:
        return [
            one
            for resource in self.received.resource_spans
            for scope in resource.scope_spans
            for one in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        self.server.received.MergeFromString(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def attributes(one: Span) -> dict[str, Any]:
    return {row.key: getattr(row.value, row.value.WhichOneof("value")) for row in one.attributes}


def test_a_request_is_one_trace_from_its_caller_to_the_language_model(
    knowledge: Knowledge, serve: Serve, collector: Collector, model: Model
) -> None:
    champion = knowledge.champion()
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "req-of-the-caller"}
    with serve(otlp_endpoint=collector.url, model_d=model.entry) as service:
        response = service.http.post("/api/chat", json={"question": QUESTION}, headers=headers)
        answer = response.json()
    assert collector.paths[0] == "/v1/traces"
    spans = {one.name: one for one in collector.spans if one.trace_id.hex() == TRACE}
    root, made, call = (spans[name] for name in ("POST /api/chat", "answer", "chat openai/test-model"))
    assert root.parent_span_id.hex() == CALLER
    assert root.kind == Span.SPAN_KIND_SERVER
    assert attributes(root) | {
        "http.route": "/api/chat",
        "http.response.status_code": 200,
        "alchemy.request.id": "req-of-the-caller",
    } == attributes(root)
    assert made.parent_span_id == root.span_id
    assert attributes(made)["gen_ai.response.id"] == answer["id"]
    assert attributes(made)["gen_ai.data_source.id"] == champion
    assert spans["retrieving"].parent_span_id == made.span_id
    assert attributes(spans["retrieving"])["gen_ai.operation.name"] == "retrieval"
    assert call.parent_span_id == spans["fusing"].span_id
    assert call.kind == Span.SPAN_KIND_CLIENT
    assert attributes(call)["gen_ai.operation.name"] == "chat"
    assert attributes(call)["gen_ai.request.model"] == "openai/test-model"
    _, trace, parent, _ = model.headers[0]["traceparent"].split("-")
    assert (trace, parent) == (TRACE, call.span_id.hex())


def test_no_span_holds_what_was_asked_or_answered_or_what_an_error_quoted(
    knowledge: Knowledge, serve: Serve, collector: Collector
) -> None:
    knowledge.champion()

    def fail(query: str) -> None:
        raise RuntimeError(f"cannot search {query}")

    with serve(otlp_endpoint=collector.url) as service:
        service.ask(QUESTION)
        knowledge.behavior.search = fail
        service.ask(QUESTION)
    steps = [attributes(one) for one in collector.spans if one.name == "retrieving"]
    assert [step.get("alchemy.degraded") for step in steps] == [None, "retrieval"]
    everything = str(collector.received)
    assert "secret gateway" not in everything
    assert "retries three times" not in everything


def test_a_collector_that_is_gone_costs_nobody_an_answer(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    with serve(otlp_endpoint="http://127.0.0.1:1") as service:
        assert service.ask()["answerable"]


def test_opentelemetrys_own_variable_turns_traces_on(
    knowledge: Knowledge, serve: Serve, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "chosen")
    knowledge.champion()
    with serve() as service:
        service.ask()
    assert "POST /api/chat" in {one.name for one in collector.spans}
    names = {attributes(one.resource).get("service.name") for one in collector.received.resource_spans}
    assert names == {"chosen"}


def test_without_a_collector_there_are_no_traces_and_nothing_is_imported_for_them() -> None:
    assert open_tracing(None) is None
    with span("a step", {"gen_ai.operation.name": "chat"}):
        assert outgoing() == {}
    # Not of the whole app: redis-py imports OpenTelemetry wherever it is installed.
    code = "import serving.watching.observe, sys; print([n for n in sys.modules if 'opentelemetry' in n])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
