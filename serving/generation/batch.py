"""The batch engine: one thread plays the rounds of a model for all requests of the event loop.

A request joins at the next round and leaves when it is through; alone it waits for nobody. So many may wait,
more are refused at once, with an estimate of when to come again. Which rows share a step, and that they do
not see each other, is the model's matter (`alchemy.training.generate`).

A round that fails ends the requests that were in work, and the next ones are served. Where not even their
rows can be freed, the device has failed for this process (a CUDA error stays): the engine closes itself.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from alchemy.errors import Unavailable
from alchemy.training.generate import GREEDY, AdapterModel, Generation, Message
from alchemy.training.sampling import Sampling
from serving.generation.engines import Piece
from serving.watching.metrics import GenerationMetrics

log = logging.getLogger(__name__)

_FIRST_GUESS_S = 2.0  # of how long one generation takes, before any was seen


class BatchEngine:
    """Continuous batching over one `AdapterModel`.

    Args:
        model: The model; from now on this engine's thread alone plays its rounds.
        most_waiting: Requests beyond the model's rows; one more is refused.
        metrics: Where it counts.
    """

    def __init__(self, model: AdapterModel, *, most_waiting: int, metrics: GenerationMetrics) -> None:
        self._model = model
        self._most = model.bounds.rows + most_waiting
        self._metrics = metrics
        self._in_work = 0
        self._readers: dict[Generation, _Reader] = {}
        self._wake = threading.Condition()
        self._closing = False
        self.problem: str | None = None  # why the last round, or the whole engine, failed
        self._typical_s = _FIRST_GUESS_S
        self._thread = threading.Thread(target=self._work, name="batch-engine", daemon=True)
        self._thread.start()

    async def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling = GREEDY,
        *,
        adapter: str | None = None,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """See `Engine.stream`."""
        self._admit()
        self._in_work += 1
        try:
            pieces = self._read(messages, sampling, adapter, deadline_s)
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece
        finally:
            self._in_work -= 1

    async def _read(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        adapter: str | None,
        deadline_s: float | None,
    ) -> AsyncGenerator[Piece, None]:
        began = time.monotonic()
        reader = _Reader(asyncio.get_running_loop())
        generation = await self._enter(messages, sampling, adapter, deadline_s, reader)
        try:
            first = True
            while True:
                reader.news.clear()
                finish = generation.finish  # looked at before the pieces: behind it there come no more
                text = "".join(generation.pieces.popleft() for _ in range(len(generation.pieces)))
                if finish == "canceled":
                    raise Unavailable("the engine stopped; please try again in a moment")
                if finish == "failed":
                    log.error("a text failed", exc_info=generation.error)
                    raise Unavailable("the text failed at one of its tokens") from generation.error
                if text and first:
                    first = False
                    self._metrics.first_token.observe(time.monotonic() - began)
                if text or finish:
                    yield Piece(text, finish, len(generation.prompt), generation.tokens)
                if finish:
                    self._typical_s += 0.1 * (time.monotonic() - began - self._typical_s)
                    return
                await reader.news.wait()
        finally:
            self._readers.pop(generation, None)
            if generation.finish is None:
                generation.canceled = True
                self._nudge()

    def close(self) -> None:
        """Ends all generations as Unavailable. Blocks for the present round, and takes no more."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(60)

    async def _enter(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        adapter: str | None,
        deadline_s: float | None,
        reader: "_Reader",
    ) -> Generation:
        def submit() -> Generation:
            generation = self._model.submit(messages, sampling, adapter=adapter, deadline_s=deadline_s)
            self._readers[generation] = reader
            self._nudge()
            if self._closing:  # the thread may have looked for the last time, and nobody else would end it
                self._model.abandon()
            return generation

        submitting = asyncio.get_running_loop().run_in_executor(None, submit)
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(self._forget)
            raise

    def _admit(self) -> None:
        if self._closing:
            raise Unavailable(self.problem or "the engine is closing")
        if self._in_work >= self._most:
            self._metrics.refused.inc()
            patience = self._model.waiting * self._typical_s / self._model.bounds.rows
            raise Unavailable(
                f"the model has {self._in_work} requests already; please try again in a moment",
                retry_after_s=min(max(patience, 1.0), 60.0),
            )

    def _forget(self, submitting: "asyncio.Future[Generation]") -> None:
        """Ends what was submitted for a request that is gone."""
        if not submitting.cancelled() and submitting.exception() is None:
            generation = submitting.result()
            self._readers.pop(generation, None)
            generation.canceled = True
            self._nudge()

    def _nudge(self) -> None:
        with self._wake:
            self._wake.notify()

    def _work(self) -> None:
        try:
            while self._wanted():
                self._play()
                self._tell()
            self._model.abandon()
        except Exception as error:
            log.exception("the batch engine has failed")
            self.problem = f"the engine has failed ({type(error).__name__}); restart the service"
            self._closing = True
            with suppress(Exception):  # it is told already
                self._model.abandon()  # those who came in before the door was closed
        self._tell()

    def _wanted(self) -> bool:
        """Waits until there is something to do; False where the engine closes."""
        with self._wake:
            self._wake.wait_for(lambda: self._closing or self._model.waiting or self._model.running)
            return not self._closing

    def _play(self) -> None:
        """One round. Raises where it fails for good: where what was in work cannot be ended."""
        try:
            self._metrics.played(self._model.play(), self._model)
            self.problem = None
        except Exception as error:
            log.exception("a round of the batch engine failed")
            self.problem = f"the engine's last round failed ({type(error).__name__}); the log says why"
            self._model.abandon()

    def _tell(self) -> None:
        """Wakes the readers for whom there is something to read, with one call a loop."""
        loops: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
        for generation, reader in list(self._readers.items()):
            if generation.pieces or generation.finish is not None:
                loops.setdefault(reader.loop, []).append(reader.news)
        for loop, news in loops.items():
            try:
                loop.call_soon_threadsafe(_set, news)
            except RuntimeError:  # that loop is closed, and nobody reads any more
                log.warning("the readers of a batch are gone", extra={"readers": len(news)})


class _Reader:
    """Who waits for a generation."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.news = asyncio.Event()


def _set(events: list[asyncio.Event]) -> None:
    for event in events:
        event.set()
