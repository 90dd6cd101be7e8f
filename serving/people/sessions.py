"""Conversations: kept for who had them, capped, exported and deleted at their wish.

In the state server each owner (tenant and user) has one sorted set of session ids by last change; a session
is a hash of its head and a list of its messages. Titles and messages are sealed (`sealing`), bound to their
owner and session. What changes several keys is one script, so a crash leaves nothing half done.
"""

import re
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from alchemy.errors import NotFound
from alchemy.quoting import Citation
from alchemy.retrieval.conversation import Turn
from serving.answer import Answer
from serving.people.access import Principal
from serving.people.sealing import Sealing
from serving.state import PREFIX, State

_PREFIX = PREFIX + "sessions:"
_ID = re.compile(r"[0-9a-f]{24}")
_TITLE = 80  # characters of the first question

# KEYS: index, head, messages. ARGV: id, now, ttl, most sessions, prefix of the other sessions' keys, title
_CREATE = """
redis.call('HSET', KEYS[2], 'title', ARGV[6], 'created_at', ARGV[2], 'updated_at', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
while redis.call('ZCARD', KEYS[1]) > tonumber(ARGV[4]) do
  local oldest = ARGV[5] .. redis.call('ZPOPMIN', KEYS[1])[1]
  redis.call('DEL', oldest, oldest .. ':messages')
end
return 1
"""
# ARGV: id, now, ttl, most messages, title where there is none yet, messages ...
_APPEND = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if redis.call('HGET', KEYS[2], 'title') == '' then redis.call('HSET', KEYS[2], 'title', ARGV[5]) end
for i = 6, #ARGV do redis.call('RPUSH', KEYS[3], ARGV[i]) end
redis.call('LTRIM', KEYS[3], -ARGV[4], -1)
redis.call('HSET', KEYS[2], 'updated_at', ARGV[2])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
return 1
"""
_RENAME = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], 'title', ARGV[1])
return 1
"""
_DELETE = "redis.call('ZREM', KEYS[1], ARGV[1]) return redis.call('DEL', KEYS[2], KEYS[3])"
_DELETE_ALL = """
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
for _, id in ipairs(ids) do redis.call('DEL', ARGV[1] .. id, ARGV[1] .. id .. ':messages') end
redis.call('DEL', KEYS[1])
return #ids
"""


class Message(BaseModel):
    """One thing that was said."""

    model_config = ConfigDict(frozen=True)

    role: Literal["user", "assistant"]
    content: str
    at: float = Field(description="Seconds since the epoch.")
    answer_id: str | None = None
    citations: list[Citation] = []


class Session(BaseModel):
    """A conversation without what was said in it."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    created_at: float = Field(description="Seconds since the epoch.")
    updated_at: float
    messages: int


class Conversation(BaseModel):
    """A conversation with its last messages, oldest first."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    created_at: float = Field(description="Seconds since the epoch.")
    updated_at: float
    messages: list[Message]


class Sessions:
    """Every method raises Unavailable when the state server does not answer.

    A session of somebody else is one that does not exist: NotFound.
    """

    def __init__(
        self, state: State, sealing: Sealing, *, ttl_s: int, most_messages: int, most_sessions: int
    ) -> None:
        self._state = state
        self._sealing = sealing
        self._ttl_s = ttl_s
        self._most_messages = most_messages
        self._most_sessions = most_sessions

    async def create(self, principal: Principal, title: str = "") -> Session:
        """A new session. Beyond the cap the one that was silent for longest goes."""
        session = secrets.token_hex(12)
        now, keys = time.time(), _keys(principal.owner, session)
        arguments = (*keys, session, now, self._ttl_s, self._most_sessions, _head(principal.owner, ""))
        sealed = self._sealed_title(principal.owner, session, title)
        await self._call(lambda redis: redis.eval(_CREATE, 3, *arguments, sealed))
        return Session(id=session, title=title, created_at=now, updated_at=now, messages=0)

    async def of(self, principal: Principal) -> list[Session]:
        """The principal's sessions, the last used first."""
        owner = principal.owner
        ids = [row.decode() for row in await self._call(lambda r: r.zrevrange(_index(owner), 0, -1))]

        async def read(redis: Any) -> Any:
            async with redis.pipeline(transaction=False) as pipeline:
                for session in ids:
                    pipeline.hgetall(_head(owner, session)).llen(_messages(owner, session))
                return await pipeline.execute()

        rows = await self._call(read) if ids else []
        found = zip(ids, rows[::2], rows[1::2], strict=True)
        # One that expired is in the index until the owner's next change.
        return [self._session(owner, session, head, count) for session, head, count in found if head]

    async def get(self, principal: Principal, session_id: str) -> Conversation:
        """The session with its messages. Raises NotFound."""
        head, rows = await self._read(principal.owner, session_id, self._most_messages)
        about = _about(principal.owner, session_id)
        messages = [Message.model_validate_json(self._sealing.open(row, about)) for row in rows]
        known = self._session(principal.owner, session_id, head, 0).model_dump()
        return Conversation(**(known | {"messages": messages}))

    async def turns(self, principal: Principal, session_id: str, last: int) -> list[Turn]:
        """The last so many messages, oldest first. Raises NotFound."""
        _, rows = await self._read(principal.owner, session_id, last)
        about = _about(principal.owner, session_id)
        said = (Message.model_validate_json(self._sealing.open(row, about)) for row in rows)
        return [Turn(m.role, m.content, m.citations[0].title if m.citations else "") for m in said]

    async def append(self, principal: Principal, session_id: str, question: str, answer: Answer) -> None:
        """Keeps a question and its answer; the first question is the title of a session that has none.

        Raises:
            NotFound: The session was deleted meanwhile.
        """
        owner, now = principal.owner, time.time()
        said = Message(role="user", content=question, at=now)
        replied = Message(
            role="assistant",
            content=answer.answer,
            at=now,
            answer_id=answer.id,
            citations=answer.citations,
        )
        about = _about(owner, session_id)
        rows = [self._sealing.seal(m.model_dump_json().encode(), about) for m in (said, replied)]
        title = self._sealed_title(owner, session_id, " ".join(question.split())[:_TITLE])
        arguments = (*_keys(owner, session_id), session_id, now, self._ttl_s, self._most_messages)
        if not await self._call(lambda redis: redis.eval(_APPEND, 3, *arguments, title, *rows)):
            raise _missing(session_id)

    async def rename(self, principal: Principal, session_id: str, title: str) -> None:
        """Gives the session another title. Raises NotFound."""
        sealed = self._sealed_title(principal.owner, session_id, title)
        keys = _keys(principal.owner, session_id)
        if not await self._call(lambda redis: redis.eval(_RENAME, 3, *keys, sealed)):
            raise _missing(session_id)

    async def delete(self, principal: Principal, session_id: str) -> None:
        """Deletes the session. Raises NotFound."""
        keys = _keys(principal.owner, session_id)
        if not await self._call(lambda redis: redis.eval(_DELETE, 3, *keys, session_id)):
            raise _missing(session_id)

    async def delete_all(self, owner: str) -> int:
        """Deletes every session of `Principal.owner`; returns how many there were."""
        arguments = (1, _index(owner), _head(owner, ""))
        return int(await self._call(lambda redis: redis.eval(_DELETE_ALL, *arguments)))

    async def export(self, principal: Principal) -> AsyncGenerator[Conversation, None]:
        """Every session with its messages, the last used first; one that goes meanwhile is left out."""
        for session in await self.of(principal):
            try:
                yield await self.get(principal, session.id)
            except NotFound:
                continue

    async def _read(self, owner: str, session_id: str, last: int) -> tuple[dict[bytes, bytes], list[bytes]]:
        _, head_key, messages_key = _keys(owner, session_id)

        async def read(redis: Any) -> Any:
            async with redis.pipeline(transaction=False) as pipeline:
                pipeline.hgetall(head_key).lrange(messages_key, -last, -1)
                return await pipeline.execute()

        head, rows = await self._call(read)
        if not head:
            raise _missing(session_id)
        return head, rows if last > 0 else []

    async def _call(self, command: Callable[[Any], Awaitable[Any]]) -> Any:
        return await self._state.call(command)

    def _sealed_title(self, owner: str, session_id: str, title: str) -> bytes:
        # An empty title stays visible as one: the server gives it the first question's words.
        return self._sealing.seal(orjson.dumps(title), _about(owner, session_id)) if title else b""

    def _session(self, owner: str, session_id: str, head: dict[bytes, bytes], messages: int) -> Session:
        title = self._sealing.open(head[b"title"], _about(owner, session_id))
        return Session(
            id=session_id,
            title=orjson.loads(title) if title else "",
            created_at=float(head[b"created_at"]),
            updated_at=float(head[b"updated_at"]),
            messages=messages,
        )


def _index(owner: str) -> str:
    return f"{_PREFIX}{owner}"


def _head(owner: str, session_id: str) -> str:
    return f"{_PREFIX}{owner}:{session_id}"


def _messages(owner: str, session_id: str) -> str:
    return f"{_head(owner, session_id)}:messages"


def _keys(owner: str, session_id: str) -> tuple[str, str, str]:
    if not _ID.fullmatch(session_id):  # part of a key: anything else could be that of another row
        raise _missing(session_id)
    return _index(owner), _head(owner, session_id), _messages(owner, session_id)


def _about(owner: str, session_id: str) -> str:
    return f"session {owner} {session_id}"


def _missing(session_id: str) -> NotFound:
    return NotFound(f"there is no session {session_id}")
