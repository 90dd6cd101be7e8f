"""A TCP proxy between a service and what it depends on, that turns bad in the way a test sets."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Mode = Literal["pass", "swallow", "slow", "refuse"]


class Proxy:
    """Forwards to `target` on loopback. Modes hold for open connections too.

    swallow: connections are accepted and bytes taken, and nothing comes back
    slow:    every piece of an answer comes `delay_s` late
    refuse:  open connections are cut and new ones at once
    """

    def __init__(self, target: int, *, delay_s: float = 1.0) -> None:
        self.mode: Mode = "pass"
        self.port = 0
        self._target = target
        self._delay_s = delay_s
        self.loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def turn(self, mode: Mode) -> None:
        """Changes the mode. Connections that lost bytes to a swallowing proxy are cut when it ends."""
        if mode == "refuse" or self.mode == "swallow":
            self.loop.call_soon_threadsafe(self._cut)
        self.mode = mode

    def _cut(self) -> None:
        for writer in self._writers:
            writer.close()

    async def serve(self) -> None:
        """Listens from now on."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Ends every connection."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self.mode == "refuse":
                return
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(to_writer)
            try:
                await asyncio.gather(self._pipe(reader, to_writer), self._pipe(to_reader, writer, back=True))
            finally:
                self._writers.discard(to_writer)
                to_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if self.mode == "swallow":
                    continue
                if self.mode == "slow" and back:
                    await asyncio.sleep(self._delay_s)
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def proxy(target: int, *, delay_s: float = 1.0) -> Iterator[Proxy]:
    """A running proxy to the port."""
    one = Proxy(target, delay_s=delay_s)
    loop = one.loop
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(one.serve(), loop).result(30)
    try:
        yield one
    finally:
        asyncio.run_coroutine_threadsafe(one.close(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
