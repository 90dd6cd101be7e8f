"""Who embeds for the RAG API: the release's one embedder, or a server that speaks OpenAI's protocol."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np

from alchemy.errors import Unavailable
from serving.embeddings import Embeddings
from serving.rag.options import RagOptions
from serving.released import Floats, Follower, Lease
from serving.watching.tracing import outgoing

_BATCH = 64  # texts of one call: whoever waits behind a large document waits for no more


class Embedder(Protocol):
    """Embeds for one request; both methods give unit vectors [n, dimension] and raise Unavailable."""

    name: str

    async def passages(self, texts: Sequence[str]) -> Floats: ...
    async def questions(self, texts: Sequence[str]) -> Floats: ...


Embedding = Callable[[], AbstractContextManager[Embedder]]  # the embedder, for as long as a request needs it


def of_release(follower: Follower, embeddings: Embeddings) -> Embedding:
    """That of whatever release serves when a request begins."""

    @contextmanager
    def held() -> Iterator[Embedder]:
        lease = follower.lease()
        if lease is None:
            raise Unavailable("no release is loaded yet, so there is no embedder; see /readyz")
        with lease:
            yield _Leased(lease, embeddings)

    return held


class _Leased:
    def __init__(self, lease: Lease, embeddings: Embeddings) -> None:
        self.name = lease.live.release.embedder
        self._lease = lease
        self._embeddings = embeddings

    async def passages(self, texts: Sequence[str]) -> Floats:
        embed = self._embeddings.embed_passages
        return np.concatenate([await embed(self._lease, batch) for batch in _batches(texts)])

    async def questions(self, texts: Sequence[str]) -> Floats:
        return await self._embeddings.embed(self._lease, list(texts))


class RemoteEmbedder:
    """`POST /v1/embeddings` of a server. For one event loop."""

    def __init__(self, options: RagOptions) -> None:
        self.name = str(options.embedding_model)
        self._url = f"{options.openai_url}/embeddings"
        self._key = options.localai_api_key.get_secret_value() if options.localai_api_key else "none"
        self._deadline_s = options.embed_s
        self._http: Any = None  # made by the first call, inside the event loop

    def __call__(self) -> AbstractContextManager[Embedder]:
        return nullcontext(self)

    async def passages(self, texts: Sequence[str]) -> Floats:
        return np.concatenate([await self._embedded(batch) for batch in _batches(texts)])

    async def questions(self, texts: Sequence[str]) -> Floats:
        """As passages are: the protocol knows no difference."""
        return await self.passages(texts)

    async def close(self) -> None:
        """Ends the connections."""
        if self._http:
            await self._http.aclose()

    async def _embedded(self, texts: list[str]) -> Floats:
        import httpx

        if self._http is None:
            self._http = httpx.AsyncClient(timeout=self._deadline_s)
        try:
            async with asyncio.timeout(self._deadline_s):
                response = await self._http.post(
                    self._url,
                    json={"model": self.name, "input": texts},
                    headers={"Authorization": f"Bearer {self._key}", **outgoing()},
                )
            response.raise_for_status()
            rows = sorted(response.json()["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], np.float32)
        except (httpx.HTTPError, TimeoutError) as error:
            # Not its text, which may hold the key, or the address with a password.
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else None
            reason = f"status {status}" if status else type(error).__name__
            raise Unavailable(f"LOCALAI_URL does not embed ({reason})") from None
        except (ValueError, TypeError, KeyError) as error:
            reason = type(error).__name__
            raise Unavailable(f"LOCALAI_URL answered with no embeddings ({reason})") from None
        norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.all(np.isfinite(norms) & (norms > 0)):
            raise Unavailable(f"LOCALAI_URL answered {len(texts)} texts with vectors of {vectors.shape}")
        return vectors / norms


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), _BATCH):
        yield list(texts[start : start + _BATCH])
