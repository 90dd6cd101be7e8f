"""Answers being made: each is one task with a list of its events, read by any number of readers.

A reader may come late, leave, and come back after the last event that it saw: a stream that broke goes on
where it was. Work that nobody reads is canceled after `linger_s`. Events are kept for a moment after the end,
so that a reader who lost the connection near it misses nothing.

Knows nothing of questions; the same mechanism lets equal questions share one making (`coordinator`).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

T = TypeVar("T")

_FIRST_READER_S = 10.0  # a response takes a few turns of the event loop until it reads


class Running(Generic[T]):
    """A generator that is driven by its own task, whoever reads."""

    def __init__(self, events: AsyncGenerator[T, None], *, linger_s: float = 0.0) -> None:
        self._events: list[T] = []
        self._news = asyncio.Event()
        self._readers = 0
        self._linger_s = linger_s
        self._alone: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._drive(events))
        self._task.add_done_callback(self._finish)
        self._wait_for_a_reader(max(linger_s, _FIRST_READER_S))

    @property
    def ending(self) -> bool:
        """Whether it was canceled or is through: too late to join."""
        return self._task.done() or self._task.cancelling() > 0

    def stop(self, last: T | None = None) -> None:
        """Cancels the work; `last` is the last event that its readers see."""
        if self._task.done():
            return
        if last is not None:
            self._events.append(last)
        self._task.cancel()

    async def read(self, after: int = 0) -> AsyncGenerator[tuple[int, T], None]:
        """The events with their numbers, from number `after` + 1 on, as they come.

        Raises:
            Exception: What the generator raised, after its last event.
        """
        self._readers += 1
        if self._alone:
            self._alone.cancel()
        try:
            while True:
                news = self._news
                while after < len(self._events):
                    after += 1
                    yield after, self._events[after - 1]
                if self._task.done():
                    if not self._task.cancelled() and (error := self._task.exception()):
                        raise error
                    return
                await news.wait()
        finally:
            self._readers -= 1
            if not self._readers and not self._task.done():
                self._wait_for_a_reader(self._linger_s)

    def when_ended(self, call: Callable[[], None]) -> None:
        """Calls it once the task is through, however it ended."""
        self._task.add_done_callback(lambda _: call())

    async def settled(self) -> None:
        """Returns when the task is through, however it ended."""
        await asyncio.gather(self._task, return_exceptions=True)

    def _wait_for_a_reader(self, seconds: float) -> None:
        self._alone = asyncio.get_running_loop().call_later(seconds, self._stop_if_alone)

    def _stop_if_alone(self) -> None:
        if not self._readers:
            self._task.cancel()

    async def _drive(self, events: AsyncGenerator[T, None]) -> None:
        async with aclosing(events):
            async for event in events:
                self._events.append(event)
                self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _finish(self, task: "asyncio.Task[None]") -> None:
        if self._alone:
            self._alone.cancel()
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain where no reader is left
        self._tell()
