"""What every request of the RAG API works with: the collections, the embedder, who writes, and bounds.

The database is opened by the first request that needs it, so a service without one starts and serves all
else. Not for what a request does: `ingestion`, `answering`.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TypeVar

from alchemy.errors import Unavailable
from alchemy.rag.vector_store import Shape, Strategy, VectorStore
from alchemy.text.sanitize import Sanitizer
from serving.fusing import Finalists
from serving.rag.embedding import Embedder, Embedding
from serving.rag.options import RagOptions
from serving.released import Floats
from serving.watching.metrics import Metrics
from serving.watching.tracing import span

T = TypeVar("T")

_WATCHED_S = 300.0  # a failure is told of so long, or until a call succeeds: perhaps nobody asks again


@dataclass
class Stages:
    """How long each step of a request took, in milliseconds."""

    began: float = field(default_factory=time.perf_counter)
    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Times and traces a step."""
        began = time.perf_counter()
        try:
            with span(stage, {}):
                yield
        finally:
            self.ms[stage] = _ms_since(began)

    @property
    def latency_ms(self) -> dict[str, float]:
        """By step, and in total until now."""
        return {**self.ms, "total": _ms_since(self.began)}


class Rag:
    """The parts of the RAG API of one service. For one event loop."""

    def __init__(
        self,
        options: RagOptions,
        open_store: Callable[[], VectorStore] | None,
        embedding: Embedding,
        finalists: Finalists,
        sanitizer: Sanitizer,
        metrics: Metrics,
    ) -> None:
        self.options = options
        self.finalists = finalists
        self.sanitizer = sanitizer
        self.metrics = metrics
        self._open_store = open_store
        self._embedding = embedding
        self._opening = threading.Lock()
        self._store: VectorStore | None = None
        # Apart, so that no document keeps a question waiting.
        self.ingesting = ThreadPoolExecutor(2, "ingest")
        self.searching = ThreadPoolExecutor(4, "query")
        self._in_work = 0
        self._failure, self._failed_at = "", 0.0

    @property
    def problem(self) -> str | None:
        """Why the database or the embedder failed lately."""
        lately = time.monotonic() - self._failed_at < _WATCHED_S
        return self._failure if self._failure and lately else None

    @contextmanager
    def working(self) -> Iterator[None]:
        """A request in work. Raises Unavailable where there are too many, or is nowhere to search."""
        if self._open_store is None:
            raise Unavailable("QDRANT_URL is not set: in production the RAG API needs a Qdrant server")
        if self._in_work >= self.options.max_concurrent:
            raise Unavailable("too many requests are in work; please try again in a moment")
        self._in_work += 1
        try:
            yield
        finally:
            self._in_work -= 1

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Work of the database and the embedder, whose failure is a `problem`."""
        try:
            yield
        except Unavailable as error:
            self._failure, self._failed_at = str(error), time.monotonic()
            raise
        self._failure = ""

    @property
    def store(self) -> VectorStore:
        """Opened by the first call. Blocks. Raises Unavailable."""
        with self._opening:
            if self._store is None:
                assert self._open_store, "no request works without"
                self._store = self._open_store()
            return self._store

    async def embedded(
        self, strategy: Strategy, known: Shape | None, embed: Callable[[Embedder], Awaitable[Floats]]
    ) -> tuple[Shape, Floats | None]:
        """Dense vectors of the strategy, None for sparse, and the shape of all its vectors.

        Args:
            strategy: Of the collection.
            known: Its shape, where it exists.
            embed: Makes the vectors [n, dimension].

        Raises:
            Conflict: They do not compare with the collection's.
            Unavailable: The embedder does not answer.
        """
        if strategy == "sparse":
            shape, vectors = Shape.of(strategy), None
        else:
            with self._embedding() as embedder:
                if known:  # before the work, as far as one can tell
                    known.check(Shape.of(strategy, embedder.name, known.dimension))
                vectors = await embed(embedder)
                shape = Shape.of(strategy, embedder.name, vectors.shape[1])
        if known:
            known.check(shape)
        return shape, vectors

    def close(self) -> None:
        """Takes no more work, and lets go of the database. Blocks."""
        for pool in (self.ingesting, self.searching):
            pool.shutdown(wait=False, cancel_futures=True)
        with self._opening:
            if self._store:
                self._store.close()


async def in_thread(pool: ThreadPoolExecutor, function: Callable[..., T], *args: object) -> T:
    """The result of what blocks; a caller who is gone leaves the thread to end by itself."""
    future = asyncio.wrap_future(pool.submit(copy_context().run, function, *args))
    # Nobody may be there when the thread fails: looking at the error here keeps asyncio quiet.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await future


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
