"""The external engine against a local HTTP server that speaks vLLM's OpenAI protocol."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from alchemy.catalog import EngineOptions
from alchemy.errors import BadInput, NotFound, Unavailable
from alchemy.training.sampling import Sampling
from serving.generation.engines import Piece, write
from serving.generation.external import ExternalEngine
from tests.serving.conftest import eventually

QUESTION = [{"role": "user", "content": "How often does the gateway retry?"}]


class Endpoint(ThreadingHTTPServer):
    """Streams `words` under the models it has; `status` refuses, `hold` keeps it silent after a word."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models = ["base", "lora_adapter"]
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.breaks = False
        self.hold = threading.Event()
        self.hold.set()
        self.gone = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._json({"object": "list", "data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.bodies.append(body)
        server.keys.append(self.headers.get("Authorization"))
        if server.status != 200:
            self._json({"error": {"message": "no"}}, server.status)
        elif self.path == "/v1/load_lora_adapter":
            server.models.append(body["lora_name"])
            self._text(f"Success: LoRA adapter '{body['lora_name']}' added successfully.")
        elif self.path == "/v1/unload_lora_adapter":
            server.models.remove(body["lora_name"])
            self._text("Success")
        elif body["model"] not in server.models:
            self._json({"error": {"message": "The model does not exist", "code": 404}}, 404)
        else:
            self._stream(body)

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for word in (body["model"], " says", " 三"):
                self._event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
                if not self.server.hold.is_set():
                    self._until_gone()
                    return
            if self.server.breaks:
                return
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
            self._event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3}})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.gone.set()

    def _until_gone(self) -> None:
        """Returns when the client has hung up, which a read of nothing shows."""
        self.connection.settimeout(60)
        if self.connection.recv(1) == b"":
            self.server.gone.set()

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    def _json(self, body: dict[str, Any], status: int = 200) -> None:
        self._answer(json.dumps(body).encode(), "application/json", status)

    def _text(self, text: str) -> None:
        self._answer(text.encode(), "text/plain", 200)

    def _answer(self, content: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **self.server.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def make_engine(endpoint: Endpoint, **options: Any) -> ExternalEngine:
    return ExternalEngine("base", EngineOptions(base_url=endpoint.url, **options))


def test_the_adapter_is_the_models_name_and_sampling_goes_along(endpoint: Endpoint) -> None:
    engine = make_engine(endpoint, api_key=SecretStr("sk-of-a-test"))
    adapter = engine.load("lora_adapter", Path("unused"))
    sampling = Sampling(max_new_tokens=3, temperature=0.7, top_p=0.9, top_k=5, seed=4, stop=("\n",))
    written = asyncio.run(write(engine, QUESTION, sampling, adapter=adapter))
    assert written == Piece("lora_adapter says 三", "length", 11, 3)
    assert endpoint.bodies[-1] == {
        "model": "lora_adapter",
        "messages": QUESTION,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 3,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "seed": 4,
        "stop": ["\n"],
    }
    assert endpoint.keys[-1] == "Bearer sk-of-a-test"
    assert asyncio.run(write(engine, QUESTION)).text == "base says 三"


def test_a_releases_own_adapter_is_loaded_under_a_new_name_and_unloaded(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    engine = make_engine(endpoint, load_adapters=True)
    first, second = (engine.load("lora_adapter", tmp_path) for _ in range(2))
    assert first != second
    assert endpoint.bodies[0] == {"lora_name": first, "lora_path": str(tmp_path)}
    assert asyncio.run(write(engine, QUESTION, adapter=second)).text == f"{second} says 三"
    engine.unload(first)
    assert endpoint.models == ["base", "lora_adapter", second]


def test_an_adapter_that_the_endpoint_does_not_serve_is_named(endpoint: Endpoint) -> None:
    with pytest.raises(Unavailable, match="serves no model support"):
        make_engine(endpoint).load("support", Path("unused"))
    with pytest.raises(NotFound, match="knows no such model"):
        asyncio.run(write(make_engine(endpoint), QUESTION, adapter="support"))


@pytest.mark.parametrize(("status", "kind"), [(400, BadInput), (429, Unavailable), (500, Unavailable)])
def test_a_refusal_is_told_in_our_own_errors(endpoint: Endpoint, status: int, kind: type[Exception]) -> None:
    endpoint.status, endpoint.headers = status, {"Retry-After": "7"}
    with pytest.raises(kind, match=str(status)) as refused:
        asyncio.run(write(make_engine(endpoint), QUESTION))
    assert getattr(refused.value, "retry_after_s", 7) == 7


def test_an_endpoint_that_breaks_off_or_is_not_there_is_unavailable(endpoint: Endpoint) -> None:
    endpoint.breaks = True
    with pytest.raises(Unavailable, match="broke off"):
        asyncio.run(write(make_engine(endpoint), QUESTION))
    nobody = ExternalEngine("base", EngineOptions(base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(Unavailable, match="ConnectError"):
        asyncio.run(write(nobody, QUESTION))
    with pytest.raises(Unavailable, match="check model_c"):
        nobody.load("lora_adapter", Path("unused"))


def test_a_deadline_ends_the_text_and_hangs_up(endpoint: Endpoint) -> None:
    endpoint.hold.clear()
    written = asyncio.run(write(make_engine(endpoint), QUESTION, deadline_s=1))
    assert (written.text, written.finish) == ("base", "deadline")
    assert endpoint.gone.wait(60)


def test_a_deadline_that_comes_while_its_reader_is_busy_ends_the_text_as_well(endpoint: Endpoint) -> None:
    endpoint.hold.clear()

    async def read() -> list[Piece]:
        pieces = []
        async with aclosing(make_engine(endpoint).stream(QUESTION, deadline_s=3)) as stream:
            async for piece in stream:
                pieces.append(piece)
                await asyncio.sleep(3.2)  # the reader's own time, which no deadline of ours cancels
        return pieces

    assert asyncio.run(read()) == [Piece("base"), Piece("", "deadline")]


def test_a_closed_stream_has_hung_up(endpoint: Endpoint) -> None:
    endpoint.hold.clear()
    engine = make_engine(endpoint)

    async def leave() -> list[object]:
        stream = engine.stream(QUESTION)
        assert await anext(stream) == Piece("base")
        await stream.aclose()
        pool = engine._client()._transport._pool  # type: ignore[attr-defined]
        return list(pool.connections)

    assert asyncio.run(leave()) == []


def test_a_canceled_request_hangs_up(endpoint: Endpoint) -> None:
    endpoint.hold.clear()

    async def leave() -> None:
        task = asyncio.create_task(write(make_engine(endpoint), QUESTION))
        await asyncio.to_thread(eventually, lambda: endpoint.bodies)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.to_thread(endpoint.gone.wait, 60)

    asyncio.run(leave())


def test_a_closed_engine_takes_no_more(endpoint: Endpoint) -> None:
    engine = make_engine(endpoint)
    engine.close()
    with pytest.raises(Unavailable, match="closing"):
        asyncio.run(write(engine, QUESTION))
