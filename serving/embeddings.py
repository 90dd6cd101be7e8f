"""Embedding texts for others, beside the searches and not in their way: threads of its own, and a bound."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from alchemy.errors import Unavailable
from serving.options import ServingOptions
from serving.released import Embed, Floats, Lease

_THREADS = 2  # the cores belong to the searches
_WAITING = 16  # calls; more would only wait for their deadline


class Embeddings:
    """The embedder of whatever release the caller holds. For one event loop."""

    def __init__(self, options: ServingOptions) -> None:
        self._deadline_s = options.embed_s
        self._pool = ThreadPoolExecutor(_THREADS, "embed")
        self._in_work = 0

    async def embed(self, lease: Lease, texts: list[str]) -> Floats:
        """n texts, as questions -> [n, dimension], unit length. Raises Unavailable when busy or too slow."""
        return await self._embed(lease, lease.live.embed, texts)

    async def embed_passages(self, lease: Lease, texts: list[str]) -> Floats:
        """Likewise, as the index embeds passages."""
        return await self._embed(lease, lease.live.embed_passages, texts)

    async def _embed(self, lease: Lease, embed: Embed, texts: list[str]) -> Floats:
        if self._in_work >= _THREADS + _WAITING:
            raise Unavailable("too many texts are being embedded; please try again in a moment")
        self._in_work += 1
        try:
            async with asyncio.timeout(self._deadline_s):
                return await lease.submit(self._pool, embed, texts)
        except TimeoutError:
            raise Unavailable(f"the texts were not embedded within {self._deadline_s:g} s") from None
        finally:
            self._in_work -= 1

    def close(self) -> None:
        """Takes no more work."""
        self._pool.shutdown(wait=False, cancel_futures=True)
