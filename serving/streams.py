"""Server-sent events, and noticing that a client went away."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

log = logging.getLogger(__name__)

T = TypeVar("T")

_AHEAD = 16  # events made before a slow client has read the first of them
_UNREAD_S = 60.0  # a client that reads nothing for so long would hold its release and its place for ever
_PUMPS: set[asyncio.Task[None]] = set()  # asyncio itself holds tasks only weakly
_PING_S = 15.0  # proxies close connections that are silent for a minute or less
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class ClientGone(Exception):
    """The client closed the connection; nobody reads an answer."""


def event_stream(frames: AsyncGenerator[str, None]) -> StreamingResponse:
    """A response that sends the frames, with a comment in silences, and closes them when the client goes."""
    return StreamingResponse(_with_pings(frames), media_type="text/event-stream", headers=_HEADERS)


def frame(data: str, *, event: str | None = None, number: int | None = None) -> str:
    """One event; `data` is one line."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}{f'event: {event}' + chr(10) if event else ''}data: {data}\n\n"


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; it is canceled, and ClientGone raised, when the client disconnects first."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, watch):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _with_pings(frames: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    # A task of its own drives the generator from its first step to its last. Starlette cancels the response
    # over and over until it ends, and that would also hit whatever the generator awaits while it closes:
    # the connection to the language model would stay open.
    queue: asyncio.Queue[str | None] = asyncio.Queue(_AHEAD)
    pump = asyncio.create_task(_pump(frames, queue))
    _PUMPS.add(pump)
    pump.add_done_callback(_PUMPS.discard)
    try:
        while True:
            try:
                async with asyncio.timeout(_PING_S):
                    item = await queue.get()
            except TimeoutError:
                if pump.done():
                    return
                yield ": still working\n\n"
                continue
            if item is None:
                return
            yield item
    finally:
        pump.cancel()


async def _pump(frames: AsyncGenerator[str, None], queue: asyncio.Queue[str | None]) -> None:
    try:
        async with aclosing(frames):
            async for item in frames:
                async with asyncio.timeout(_UNREAD_S):
                    await queue.put(item)
    except TimeoutError:
        log.warning("a client left its stream unread; its answer was canceled")
    except Exception:
        log.exception("a stream broke")
    with suppress(TimeoutError):
        async with asyncio.timeout(_UNREAD_S):
            await queue.put(None)
