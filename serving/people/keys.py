"""Keys for programs: random, shown once, kept as a digest, revocable, with a date to expire if wanted.

A key acts for a person, in their tenant and with their access, and with a role that is at most theirs. It is
`ak_<id>_<secret>`: the id finds the record, so that the digest is compared in constant time, never searched.
"""

import hashlib
import secrets
import time
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from alchemy.errors import BadInput, Conflict, NotFound
from serving.people.access import Role
from serving.people.users import User
from serving.state import PREFIX, State

KEY = PREFIX + "keys"
MARK = "ak_"
_EACH = 50  # keys of one person


class Key(BaseModel):
    """A key, as kept: without its secret."""

    model_config = ConfigDict(frozen=True)

    id: str
    user: str
    since: float  # when that person was made: the key is not for another one of the same name
    label: Annotated[str, Field(min_length=1, max_length=100)]
    role: Role
    digest: str  # SHA-256 of the secret, which is random: a slow hash would protect it no better
    created_at: float  # seconds since the epoch
    expires_at: float | None = None
    per_minute: int | None = None  # requests; None: as configured

    def is_opened_by(self, secret: str) -> bool:
        """Whether that is the key's secret."""
        return secrets.compare_digest(_digest(secret), self.digest)

    def is_over(self, now: float) -> bool:
        """Whether the key has expired."""
        return self.expires_at is not None and now >= self.expires_at


class Keys:
    """Every method raises Unavailable when the state server does not answer."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def create(
        self,
        user: User,
        label: str,
        role: Role,
        *,
        expires_at: float | None = None,
        per_minute: int | None = None,
    ) -> tuple[Key, str]:
        """A new key, and what the program sends. Raises Conflict when the person has too many."""
        if len(await self.of(user.name)) >= _EACH:
            raise Conflict(f"{user.name} has {_EACH} keys; remove one first")
        if expires_at is not None and expires_at <= time.time():
            raise BadInput("the key would have expired already")
        secret = secrets.token_urlsafe(32)
        key = Key(
            id=secrets.token_hex(8),
            user=user.name,
            since=user.created_at,
            label=label,
            role=role,
            digest=_digest(secret),
            created_at=time.time(),
            expires_at=expires_at,
            per_minute=per_minute,
        )
        await self._state.call(lambda redis: redis.hset(KEY, key.id, key.model_dump_json()))
        return key, f"{MARK}{key.id}_{secret}"

    async def find(self, key_id: str) -> Key | None:
        """The key of that id, if there is one."""
        row = await self._state.call(lambda redis: redis.hget(KEY, key_id))
        return Key.model_validate_json(row) if row else None

    async def of(self, user: str) -> list[Key]:
        """The keys of a person, oldest first."""
        rows = await self._state.call(lambda redis: redis.hvals(KEY))
        keys = (Key.model_validate_json(row) for row in rows)
        return sorted((key for key in keys if key.user == user), key=lambda key: key.created_at)

    async def remove(self, user: str, key_id: str) -> None:
        """Revokes a key of that person. Raises NotFound."""
        key = await self.find(key_id)
        if key is None or key.user != user:
            raise NotFound(f"{user} has no key {key_id}")
        await self._state.call(lambda redis: redis.hdel(KEY, key_id))

    async def remove_all(self, user: str) -> None:
        """Revokes every key of a person."""
        ids = [key.id for key in await self.of(user)]
        if ids:
            await self._state.call(lambda redis: redis.hdel(KEY, *ids))


def split_key(text: str) -> tuple[str, str]:
    """The id and the secret of what a program sent; both empty where it is no key of ours."""
    key_id, _, secret = text.removeprefix(MARK).partition("_")
    return (key_id, secret) if text.startswith(MARK) else ("", "")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
