import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from serving.running import Running


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 60))


class Source:
    """Numbers, as many as were let through; knows whether it was closed."""

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(0)
        self.closed = asyncio.Event()

    async def numbers(self, count: int = 1000) -> AsyncGenerator[int, None]:
        try:
            for number in range(count):
                await self.gate.acquire()
                yield number
        finally:
            self.closed.set()

    def let(self, count: int) -> None:
        for _ in range(count):
            self.gate.release()


async def take(running: Running[int], count: int, after: int = 0) -> list[tuple[int, int]]:
    rows = []
    async with aclosing(running.read(after)) as events:
        async for event in events:
            rows.append(event)
            if len(rows) == count:
                break
    return rows


def test_every_reader_sees_every_event_whenever_it_comes() -> None:
    async def check() -> None:
        source = Source()
        running = Running(source.numbers(3))
        first = asyncio.create_task(take(running, 99))
        source.let(2)
        assert await take(running, 2) == [(1, 0), (2, 1)]
        source.let(1)
        assert await first == await take(running, 99) == [(1, 0), (2, 1), (3, 2)]
        assert await take(running, 99, after=2) == [(3, 2)]

    run(check())


def test_work_that_nobody_reads_any_more_is_canceled() -> None:
    async def check() -> None:
        source = Source()
        running = Running(source.numbers())
        source.let(1)
        await take(running, 1)
        await source.closed.wait()
        await running.settled()
        assert running.ending
        assert await take(running, 99) == [(1, 0)]

    run(check())


def test_a_reader_who_comes_back_in_time_finds_the_work_going_on() -> None:
    async def check() -> None:
        source = Source()
        running = Running(source.numbers(2), linger_s=3600)
        source.let(1)
        await take(running, 1)
        source.let(1)
        assert await take(running, 99, after=1) == [(2, 1)]

    run(check())


def test_one_reader_of_two_may_leave() -> None:
    async def check() -> None:
        source = Source()
        running = Running(source.numbers(2))
        staying = asyncio.create_task(take(running, 99))
        source.let(1)
        await take(running, 1)
        source.let(1)
        assert len(await staying) == 2

    run(check())


def test_who_stops_the_work_has_the_last_word() -> None:
    async def check() -> None:
        source = Source()
        running = Running(source.numbers(), linger_s=3600)
        source.let(1)
        reading = asyncio.create_task(take(running, 99))
        await take(running, 1)
        running.stop(last=-1)
        assert await reading == [(1, 0), (2, -1)]
        assert source.closed.is_set()
        running.stop(last=-2)  # too late: nothing changes
        assert await take(running, 99) == [(1, 0), (2, -1)]

    run(check())


def test_a_failure_reaches_every_reader_after_the_last_event() -> None:
    async def broken() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("no")

    async def check() -> None:
        running = Running(broken())
        for _ in range(2):
            seen = []
            with pytest.raises(ValueError, match="no"):
                async for _, event in running.read():
                    seen.append(event)
            assert seen == [1]

    run(check())
