"""A real OpenAI-compatible server on loopback: the paid API is the only part that is not the real one."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest
from pydantic import SecretStr

from alchemy.catalog import Refiner
from alchemy.synthesis.prompts import JUDGE_SYSTEM

Reply = tuple[int, dict[str, str], str | dict]
HANG: Reply = (0, {}, "")  # no answer while the test runs
GLUE = {
    "the",
    "of",
    "is",
    "are",
    "and",
    "its",
    "it",
    "has",
    "about",
    "was",
    "to",
    "belongs",
    "on",
    "yes",
    "written",
}


def answer(content: str, finish_reason: str = "stop") -> dict:
    """A chat completion as the API returns it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "test",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
    }


def cut_off(body: dict) -> Reply:
    """An answer whose connection breaks in the middle."""
    data = orjson.dumps(body).decode()
    return 200, {"Content-Length": str(len(data)), "Connection": "close"}, data[: len(data) // 2]


def part(request: dict, name: str) -> str:
    """What stands between the fences called `name` in a prompt of the refiner or the judge."""
    return (
        request["messages"][1]["content"]
        .rpartition(f"</{name}")[0]
        .rpartition(f"\n<{name}")[2]
        .partition(">\n")[2]
        .rstrip()
    )


def is_judged(request: dict) -> bool:
    """Whether a request asks for a verdict."""
    return request["messages"][0]["content"] == JUDGE_SYSTEM


def verdict(supported: bool, answers: bool = True) -> Reply:
    value = {"reason": "It says so.", "supported": supported, "answers": answers}
    return 200, {}, answer(orjson.dumps(value).decode())


def word_by_word(request: dict) -> Reply:
    """A judge that supports an answer where its source has every word of it."""
    names = ("source", "facts", "fields", "passage")
    known = {word for name in names for word in re.findall(r"\w+", part(request, name).lower())}
    said = re.findall(r"\w+", part(request, "answer").lower())
    return verdict(all(word in known or word in GLUE for word in said))


def grounded(request: dict) -> Reply:
    """What a good model would answer, with one pair that invents a number."""
    text = part(request, "passage")
    title, _, body = text.partition("\n\n")
    pairs = [
        {
            "kind": "fact",
            "instruction": f"What happened to {title}?",
            "response": body,
            "evidence_quote": body,
        },
        {
            "kind": "how",
            "instruction": f"How much did {title} cost?",
            "response": "$987654321",
            "evidence_quote": body,
        },
    ]
    return 200, {}, answer(orjson.dumps({"pairs": pairs}).decode())


class LlmServer:
    """Counts and keeps requests; answers from `script` first, then with `reply`."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.keys: list[str] = []
        self.times: list[float] = []
        self.script: deque[Reply] = deque()
        self.delay_s = 0.0
        self.most_at_once = 0
        self.reply: Callable[[dict], Reply] = lambda request: (200, {}, answer("hello"))
        self.released = threading.Event()
        self._busy = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, headers, body = server._answer(request, self.headers.get("Authorization", ""))
                if (status, headers, body) == HANG:
                    server.released.wait()
                    self.close_connection = True
                    return
                if self.path != "/v1/chat/completions":
                    status, headers, body = 404, {}, {"error": {"message": self.path}}
                data = body.encode() if isinstance(body, str) else orjson.dumps(body)
                self.send_response(status)
                usual = {"Content-Type": "application/json", "Content-Length": str(len(data))}
                for name, value in (usual | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                """Clients that are killed break their connections; that is no news."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def calls(self) -> int:
        return len(self.requests)

    def stop(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, request: dict, authorization: str) -> Reply:
        with self._lock:
            self.requests.append(request)
            self.keys.append(authorization)
            self.times.append(time.monotonic())
            self._busy += 1
            self.most_at_once = max(self.most_at_once, self._busy)
            scripted = self.script.popleft() if self.script else None
        time.sleep(self.delay_s)
        try:
            return scripted or self.reply(request)
        finally:
            with self._lock:
                self._busy -= 1


@pytest.fixture
def llm() -> Iterator[LlmServer]:
    server = LlmServer()
    yield server
    server.stop()


@pytest.fixture
def model(llm: LlmServer) -> Refiner:
    """deepseek-chat, because litellm knows its price; the address is the local server's."""
    return Refiner(
        model_id="deepseek/deepseek-chat", base_url=llm.url, api_key=SecretStr("sk-very-secret"), timeout_s=10
    )
