"""Server-sent events, and noticing that a client went away."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

T = TypeVar("T")

_PING_S = 15.0  # proxies close connections that are silent for a minute or less
# For the OpenAPI document of routes that answer whole or, where they are asked to, as it goes.
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer, or with `stream` its events.", "content": {"text/event-stream": {}}}
}
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
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _with_pings(frames: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    async with aclosing(frames):
        while True:
            coming = asyncio.ensure_future(anext(frames, None))
            try:
                while not (await asyncio.wait({coming}, timeout=_PING_S))[0]:
                    yield ": still working\n\n"
            finally:
                await _let_go(coming)
            item = coming.result()
            if item is None:
                return
            yield item


async def _let_go(task: "asyncio.Future[str | None]") -> None:
    """A client that went away leaves a step of the generator behind, which must end before it is closed."""
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
