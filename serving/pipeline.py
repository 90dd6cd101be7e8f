"""How an answer is made: [rewrite ->] retrieve || intuition -> fuse. Who asks, and when, is `coordinator`'s.

Each step has a deadline and a degraded form, named in `degraded`:

    rewrite     no other words for the question came in time: its own words are searched
    retrieval   the search failed or was too slow: the question is declined, saying so
    intuition   the adapter failed or was too slow: the answer goes without
    fallback    the first language model failed before its first word: the next one wrote
    finalist    the language models failed: what the last wrote so far, if anything, and then quotes
    citations   the language model cited nothing that holds: quotes follow its text

Closing the generator cancels all work.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from alchemy.retrieval.rewrite import Rewrite
from alchemy.retrieval.search import Passage, SearchResult
from alchemy.settings import SearchOptions
from serving.answer import (
    Cited,
    Filters,
    Intuition,
    Question,
    Source,
    Sources,
    Status,
    Token,
    no_retrieval,
    refusal,
)
from serving.fusing import Finalists, Fusion
from serving.making import Made, Making
from serving.options import ServingOptions
from serving.released import Lease
from serving.watching.metrics import Metrics
from serving.watching.tracing import note

log = logging.getLogger(__name__)

T = TypeVar("T")
Step = Status | Sources | Token | Cited


@dataclass(frozen=True)
class _Pools:
    """Threads for what blocks: a step's own, so that a slow one keeps no other waiting."""

    rewriting: ThreadPoolExecutor
    search: ThreadPoolExecutor

    @classmethod
    def of(cls, threads: int) -> "_Pools":
        return cls(*(ThreadPoolExecutor(threads, name) for name in ("rewrite", "search")))

    def close(self) -> None:
        for pool in (self.rewriting, self.search):
            pool.shutdown(wait=False, cancel_futures=True)


class Pipeline:
    """Makes answers; holds nothing of any of them."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        options: ServingOptions,
        search: SearchOptions,
        finalists: Finalists,
        rewriter: Callable[[str], Rewrite] | None = None,
    ) -> None:
        self._metrics = metrics
        self._options = options
        self._search = search
        self._finalists = finalists
        self._rewriter = rewriter
        self._pools = _Pools.of(options.threads)

    async def make(self, question: Question, lease: Lease) -> AsyncGenerator[Step | Made, None]:
        """The steps of an answer as they are done; the last item is what was made."""
        making = Making()
        consulting = self._consult(making, question, lease)
        try:
            rewrite = None
            if self._rewriter:
                yield making.status("Rewriting", "start")
                rewrite = await self._rewrite(making, question.text, self._rewriter)
                yield making.status("Rewriting", "finish")
            yield making.status("Retrieving", "start")
            if consulting:
                yield making.status("Consulting", "start")
            found = await self._retrieve(making, question, lease, rewrite)
            yield making.status("Retrieving", "finish")
            if found is None or not found.answerable or not found.passages:
                text = (no_retrieval if found is None else refusal)(question.text)
                yield Token(text=text)
                yield making.declined(text)
                return
            yield Sources(sources=[_source(n, p) for n, p in enumerate(found.passages, 1)])
            heeded = bool(self._finalists.models)  # a model reads the guess first; quotes wait for none
            if consulting and heeded:
                yield await self._heard(making, consulting)
            yield making.status("Fusing", "start")
            guess = making.intuition.text if making.intuition else None
            fusion = Fusion(question.text, found.passages, guess, self._finalists)
            with making.timed("fusing"):
                async with aclosing(fusion.write()) as pieces:
                    async for piece in pieces:
                        yield Token(text=piece)
            yield making.status("Fusing", "finish")
            for citation in fusion.citations:
                yield Cited(citation=citation)
            if consulting and not heeded:
                yield await self._heard(making, consulting)
            yield making.made(fusion)
        finally:
            if consulting:
                consulting.cancel()

    async def in_words(self, ask: Callable[..., T], *args: Any) -> T:
        """What a language model makes of the arguments, asked in a thread that a caller may leave."""
        return await asyncio.wrap_future(self._pools.rewriting.submit(ask, *args))

    def close(self) -> None:
        """Takes no more work. Threads that are busy end with their own deadline."""
        self._pools.close()

    async def _rewrite(
        self, making: Making, question: str, rewriter: Callable[[str], Rewrite]
    ) -> Rewrite | None:
        """The question in other words. One that comes too late is in the model's cache the next time."""
        with making.timed("rewriting"):
            try:
                async with asyncio.timeout(self._options.rewrite_s):
                    return await self.in_words(rewriter, question)
            except Exception as error:
                making.lacks("rewrite")
                log.warning("no rewriting", extra={"reason": repr(error)})
                return None

    async def _retrieve(
        self, making: Making, question: Question, lease: Lease, rewrite: Rewrite | None
    ) -> SearchResult | None:
        options = self._search
        if question.top_k:
            options = options.model_copy(update={"top_k": question.top_k})
        limits = replace(question.filters.limits, access=question.asker.access)
        with making.timed("retrieving"):
            note({"gen_ai.operation.name": "retrieval", "gen_ai.data_source.id": lease.live.release.index})
            try:
                async with asyncio.timeout(self._options.search_s):
                    asked = (question.text, options, limits, rewrite)
                    result = await lease.submit(self._pools.search, lease.live.search, *asked)
            except Exception as error:
                making.lacks("retrieval")
                log.warning("retrieval failed", exc_info=error)
                return None
        making.filters, making.dropped = Filters.of(result.filters), Filters.of(result.dropped)
        self._metrics.relevance.observe(min(max(result.relevance, 0.0), 1.0))
        return result

    def _consult(self, making: Making, question: Question, lease: Lease) -> "asyncio.Task[Intuition] | None":
        """Starts the adapter; None where it is off or there is none."""
        adapters = lease.live.adapters
        if not (self._options.intuition and question.intuition):
            return None
        if any(problem.startswith("intuition") for problem in lease.live.problems):
            making.lacks("intuition")
        name = question.adapter or next(iter(adapters), "")
        if name not in adapters:
            if question.adapter:  # a release without it came in since the name was checked
                making.lacks("intuition")
            return None

        async def speak() -> Intuition:
            text = await adapters[name](
                [{"role": "user", "content": question.text}],
                max_new_tokens=self._options.intuition_tokens,
                deadline_s=self._options.search_s + self._options.intuition_grace_s,
            )
            return Intuition(text=text.strip(), adapter=name)

        consulting = asyncio.create_task(speak())
        # A declined question never asks how it went: looking at the error here keeps asyncio quiet.
        consulting.add_done_callback(lambda done: done.cancelled() or done.exception())
        return consulting

    async def _heard(self, making: Making, consulting: "asyncio.Task[Intuition]") -> Status:
        """Notes what the adapter said, if it is through within its grace."""
        with making.timed("consulting"):
            try:
                async with asyncio.timeout(self._options.intuition_grace_s):
                    intuition = await consulting
                making.intuition = intuition if intuition.text else None
            except Exception as error:
                making.lacks("intuition")
                log.warning("no intuition", extra={"reason": repr(error)})
        return making.status("Consulting", "finish")


def _source(number: int, passage: Passage) -> Source:
    chunk = passage.chunk
    return Source(
        number=number,
        document_id=chunk.document_id,
        title=chunk.title,
        source=chunk.source,
        url=chunk.url,
        score=round(float(passage.score), 4),
    )
