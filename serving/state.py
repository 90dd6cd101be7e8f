"""The connection to the Redis-protocol server that holds whatever outlives a restart: state.

Production names a server with REDIS_URL; the dev profile starts an embedded one (`valkey`). Losing it loses
no answer: every call has a short deadline, and after a failure the server is left alone for a second, so
that one that swallows packets costs a second's first question its deadline and the others nothing. What is
kept there, and under which keys, is said by the modules that keep it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from alchemy.errors import Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

PREFIX = "alchemy:"  # of every key
_CONNECTIONS = 64
_REST_S = 1.0  # how long a failed server is left alone


class State:
    """One server's connections. Thread-compatible: for one event loop."""

    def __init__(self, url: str, *, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._rest_until = 0.0
        self.problem: str | None = None  # why the last call failed
        # One that waits for a free connection: redis-py's usual pool fails the call beyond its hundredth.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            # The deadline of the call bounds all that it does. Given one of its own for the socket, redis-py
            # sends by `asyncio.wait_for`, which up to Python 3.11 swallows a cancellation that comes just
            # when the bytes are out (gh-86296): whoever was canceled would go on.
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=deadline_s,
            # A second attempt would double the deadline; the next question is the retry.
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )
        self._redis: Any = Redis.from_pool(pool)

    async def call(self, command: Callable[[Any], Awaitable[T]]) -> T:
        """What `command` gives for the redis-py client: one command, pipeline or script; replies are bytes.

        Raises:
            Unavailable: The server failed, did not answer in time, or did so within the last second.
        """
        if self.problem and time.monotonic() < self._rest_until:
            raise Unavailable(self.problem)
        try:
            async with asyncio.timeout(self._deadline_s):
                result = await command(self._redis)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._rest_until = time.monotonic() + _REST_S
            reason = str(error) or f"no reply within {self._deadline_s} s"
            if self.problem is None:
                log.warning("the state server fails", extra={"reason": reason})
            self.problem = f"the state server fails: {reason}"
            # Connections of a server that went away would fail once each; drop them all.
            await self._redis.connection_pool.disconnect()
            raise Unavailable(self.problem) from error
        if self.problem:
            log.info("the state server is back")
            self.problem = None
        return result

    async def ping(self) -> None:
        """Returns when the server answers. Raises Unavailable."""
        await self.call(lambda redis: redis.ping())

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()
