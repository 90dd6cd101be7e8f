"""A local server that speaks OpenAI's protocol, streams and embeds, and fails in the way a test sets."""

import json
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = ("It ", "retries", " three times", " [", "1]", ".")


@contextmanager
def language_model() -> Iterator["Model"]:
    """The server, running."""
    server = Model()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


def bag_of_words(text: str) -> list[float]:
    """Texts with the same words, in any order, are one direction."""
    row = [0.0] * 32
    for word in text.lower().split():
        row[zlib.crc32(word.strip("?.,").encode()) % 32] += 1
    return row


class Model(ThreadingHTTPServer):
    """A language model that writes `pieces`, or fails in the way a test sets."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pieces: tuple[str, ...] = GOOD
        self.model_id = "openai/test-model"
        self.status = 200
        self.silent_after: int | None = None
        self.breaks_after: int | None = None
        self.waits_after: int | None = None
        self.ends = True  # the response, after its last word; else it hangs up there
        self.goes_on = threading.Event()
        self.delay_s = 0.0  # before the first piece
        self.pace_s = 0.0  # before each further piece
        self.requests: list[dict[str, Any]] = []
        self.embedded: list[dict[str, Any]] = []  # requests of embeddings
        self.embed_status = 200
        self.embedding: Callable[[str], list[float]] = bag_of_words
        self.headers: list[Message] = []
        self.connections = 0
        self.hung_up = threading.Event()  # the client closed the connection
        self.closing = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what tests are about."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def entry(self) -> dict[str, Any]:
        base_url = f"{self.url}/v1"
        return {
            "model_id": self.model_id,
            "provider": "llm",
            "base_url": base_url,
            "api_key": "k",
            "timeout_s": 60,
        }


class _Handler(BaseHTTPRequestHandler):
    server: Model
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.server.headers.append(self.headers)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/embeddings":
            self.server.embedded.append(asked)
            rows = [
                {"object": "embedding", "index": index, "embedding": self.server.embedding(text)}
                for index, text in enumerate(asked["input"])
            ]
            # Backwards: the protocol's index is the order, not the place.
            self._answer(self.server.embed_status, {"object": "list", "model": "m", "data": rows[::-1]})
            return
        self.server.requests.append(asked)
        if self.server.status != 200:
            error = {"message": "overloaded", "type": "server_error"}
            self._answer(self.server.status, {"error": error})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        time.sleep(self.server.delay_s)
        try:
            for number, piece in enumerate(self.server.pieces):
                if number == self.server.silent_after:
                    self._silence()
                if number == self.server.breaks_after:
                    self.close_connection = True
                    return
                if number == self.server.waits_after:
                    self.server.goes_on.wait(60)
                if number:
                    time.sleep(self.server.pace_s)
                self._send({"index": 0, "delta": {"role": "assistant", "content": piece}})
            if self.server.silent_after == len(self.server.pieces):
                self._silence()
            self._send({"index": 0, "delta": {}, "finish_reason": "stop"})
            self._write(b"data: [DONE]\n\n")
            if not self.server.ends:
                self.close_connection = True
                return
            self._write(b"")
        except OSError:
            self.server.hung_up.set()
            self.close_connection = True

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _silence(self) -> None:
        """Says nothing until the client hangs up."""
        self.connection.settimeout(0.1)
        while not self.server.closing.is_set():
            try:
                if not self.connection.recv(1):
                    raise ConnectionResetError
            except TimeoutError:
                continue

    def _send(self, choice: dict[str, Any]) -> None:
        row = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        self._write(b"data: " + json.dumps(row).encode() + b"\n\n")

    def _write(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()
