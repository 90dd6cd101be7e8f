"""One making for all who may have the same answer: from the cache, from one that is being made, or anew.

Who may share: those whom the same release would give the same answer, so equal release, tenant, access set
and parameters (`scope`). A question that means the same as one answered before gets that answer; equal
questions at the same time are made once and streamed to all who asked. Now and then what the cache gave for
a reworded question is made again in the background, to know how often it is wrong.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, nullcontext
from functools import partial
from typing import Any

import numpy as np

from serving.answer import Answer, Cited, Question, Token
from serving.caching.cache import CacheManager, CacheScope, Hit
from serving.making import Made
from serving.pipeline import Pipeline, Step
from serving.released import Floats, Follower, Lease
from serving.running import Running

log = logging.getLogger(__name__)

_THREADS = 2  # that embed questions for the cache


def scope(question: Question, release: str, writers: Sequence[str] = ()) -> CacheScope:
    """Who shares an answer to this question, where these models write answers."""
    asked = question.model_dump_json(include={"top_k", "filters", "intuition", "adapter"})
    parameters = " ".join([asked, *writers])
    return CacheScope(release, question.asker.tenant, question.asker.access_digest, parameters)


class Sharing:
    """The pipeline behind the cache and the single flight. For one event loop."""

    def __init__(
        self, pipeline: Pipeline, cache: CacheManager, follower: Follower, *, writers: Sequence[str] = ()
    ) -> None:
        self._pipeline = pipeline
        self._writers = writers
        self._cache = cache
        self._follower = follower
        self._flights: dict[tuple[object, ...], Running[Step | Made]] = {}
        self._behind: dict[object, asyncio.Task[None]] = {}  # work that nobody waits for
        self._pool = ThreadPoolExecutor(_THREADS, "cache")

    async def steps(self, question: Question, lease: Lease) -> AsyncGenerator[Step | Made, None]:
        """The steps of the answer, and last what was made."""
        hit = await self._cache.find(
            question.text, scope(question, lease.live.id, self._writers), partial(self._embed, lease)
        )
        if hit:
            if hit.tier == "semantic" and self._cache.sampled():
                self._do_behind(("check", hit.answer.id), self._check(question, hit))
            for step in _again(hit):
                yield step
            return
        async with aclosing(self._flight(question, lease).read()) as items:
            async for _, item in items:
                yield item

    def keep(self, question: Question, answer: Answer) -> None:
        """Keeps the answer for whoever asks this next; in the background, once for all who shared it."""
        if answer.cached is None and answer.release:
            place = scope(question, answer.release, self._writers)
            self._do_behind((place, question.text), self._keep(question.text, place, answer))

    async def close(self) -> None:
        """Ends the work that nobody waits for."""
        tasks = list(self._behind.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pipeline.close()

    def _flight(self, question: Question, lease: Lease) -> Running[Step | Made]:
        # The bundle itself: after a rollback the same release may be loaded twice.
        key = (id(lease.live), scope(question, lease.live.id, self._writers), question.text)
        flight = self._flights.get(key)
        if flight is None or flight.ending:
            flight = self._flights[key] = Running(self._pipeline.make(question, lease))
            flight.when_ended(lambda: self._landed(key, flight))
        return flight

    def _landed(self, key: tuple[object, ...], flight: Running[Step | Made]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _keep(self, question: str, place: CacheScope, answer: Answer) -> None:
        with self._follower.lease() or nullcontext() as lease:
            if lease and lease.live.id == place.release:  # else the next release answers anew
                await self._cache.keep(question, place, partial(self._embed, lease), answer)

    async def _check(self, question: Question, hit: Hit) -> None:
        """Makes the answer anew, and notes whether it agrees with what the cache gave."""
        with self._follower.lease() or nullcontext() as lease:
            if lease is None or lease.live.id != hit.answer.release:
                return
            async with aclosing(self._pipeline.make(question, lease)) as steps:
                async for step in steps:
                    if isinstance(step, Made) and not step.degraded:
                        self._cache.check(hit, _as_answer(step, hit.answer))

    async def _embed(self, lease: Lease, texts: list[str]) -> Floats:
        return np.asarray(await lease.submit(self._pool, lease.live.embed, texts))

    def _do_behind(self, key: object, work: Coroutine[Any, Any, None]) -> None:
        if key in self._behind:
            work.close()
            return
        task = self._behind[key] = asyncio.create_task(work)
        task.add_done_callback(partial(self._done_behind, key))

    def _done_behind(self, key: object, task: "asyncio.Task[None]") -> None:
        del self._behind[key]
        if not task.cancelled() and (error := task.exception()):
            log.warning("work for the cache failed", exc_info=error)


def _again(hit: Hit) -> list[Step | Made]:
    """A stored answer as if it were made now."""
    answer = hit.answer
    made = Made(
        answer.answer,
        answerable=answer.answerable,
        finalist=answer.finalist,
        citations=tuple(answer.citations),
        unsupported=tuple(answer.unsupported),
        removed=tuple(answer.removed),
        intuition=answer.intuition,
        filters=answer.filters,
        dropped=answer.dropped,
        cached=hit.tier,
        cached_question=hit.question,
    )
    return [Token(text=made.text), *(Cited(citation=citation) for citation in made.citations), made]


def _as_answer(made: Made, like: Answer) -> Answer:
    """What was made, with the rest of another answer to the same question."""
    return like.model_copy(
        update={
            "answer": made.text,
            "answerable": made.answerable,
            "finalist": made.finalist,
            "citations": list(made.citations),
        }
    )
