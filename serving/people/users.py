"""People: who exists, and what they may do. One hash in the state server, changed by compare-and-swap.

Names are lower-case ASCII and unique in the whole service, because people log in by name alone; everything
else about a person stays inside their tenant. `version` grows with every change that must end the tokens
given out before: password, role, tenant, access. It starts at the clock, so that a name that was deleted and
made again does not revive old tokens.
"""

import re
import time
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints

from alchemy.errors import Conflict, NotFound
from alchemy.records import SOURCES
from serving.people.access import ANYONE, NOBODY, OPERATOR, Principal, Role
from serving.state import PREFIX, State

KEY = PREFIX + "users"
_RESERVED = {ANYONE.name, OPERATOR.name, NOBODY.name}
_ATTEMPTS = 5  # of a change that somebody else's change got in between

# Writes one field of a hash if it still is what was read; an empty string means that it is not there.
_SWAP = """
local now = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if now ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1])
else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
"""


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) and value.isascii() else value


def _not_reserved(name: str) -> str:
    if name in _RESERVED:
        raise ValueError("this name is the service's own")
    return name


def _scope(scope: str) -> str:
    source, slash, project = scope.partition("/")
    if source not in SOURCES or not slash or not project.strip() or not project.isprintable():
        raise ValueError(
            f"a scope is <source>/<project> or <source>/*, the source one of {', '.join(SOURCES)}"
        )
    return scope


NAME = re.compile(r"^[a-z0-9][a-z0-9._@+-]{0,63}\Z")
Name = Annotated[str, BeforeValidator(_lower), StringConstraints(pattern=NAME), AfterValidator(_not_reserved)]
Tenant = Annotated[str, BeforeValidator(_lower), StringConstraints(pattern=NAME)]
AccessScope = Annotated[str, StringConstraints(max_length=250), AfterValidator(_scope)]


class User(BaseModel):
    """A person, as kept."""

    model_config = ConfigDict(frozen=True)

    name: Name
    role: Role = "reader"
    tenant: Tenant = "default"
    access: frozenset[AccessScope] | None = None
    password: str  # its hash
    version: int
    created_at: float  # seconds since the epoch
    updated_at: float

    @classmethod
    def create(cls, name: str, password: str, **fields: Any) -> "User":
        """A new person with a hashed password. Raises pydantic's ValidationError."""
        now = time.time()
        return cls(
            name=name, password=password, version=_version(0), created_at=now, updated_at=now, **fields
        )

    def changed(self, **fields: Any) -> "User":
        """The person with other fields, and with them the end of all tokens given out so far."""
        changes = {"version": _version(self.version), "updated_at": time.time()}
        return User.model_validate(self.model_dump() | changes | fields)

    def principal(self, **fields: Any) -> Principal:
        """Who this person is to a route."""
        known = self.model_dump(include={"name", "role", "tenant", "access", "version"})
        return Principal(**(known | fields))


class Users:
    """The people of all tenants. Every method raises Unavailable when the state server does not answer."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def add(self, user: User) -> None:
        """Raises Conflict when the name is taken."""
        if not await self._swap(user.name, b"", _row(user)):
            raise Conflict(f"the name {user.name} is taken")

    async def find(self, name: str) -> User | None:
        """The person of that name, if there is one."""
        row = await self._row(name)
        return User.model_validate_json(row) if row else None

    async def get(self, name: str, tenant: str | None = None) -> User:
        """The person of that name; of another tenant there is none. Raises NotFound."""
        user = await self.find(name)
        if user is None or tenant not in (None, user.tenant):
            raise NotFound(f"there is no user {name}")
        return user

    async def of(self, tenant: str | None = None) -> list[User]:
        """The people of a tenant, or of all, by name."""
        rows = await self._state.call(lambda redis: redis.hvals(KEY))
        users = (User.model_validate_json(row) for row in rows)
        return sorted((u for u in users if tenant in (None, u.tenant)), key=lambda user: user.name)

    async def change(self, user: User, **fields: Any) -> User:
        """The person with other fields. Raises Conflict when they were changed since `user` was read."""
        changed = user.changed(**fields)
        if not await self._swap(user.name, _row(user), _row(changed)):
            raise Conflict(f"{user.name} was changed by somebody else meanwhile; look again")
        return changed

    async def rehash(self, user: User, password: str) -> None:
        """Keeps a stronger hash of the same password; tokens stay valid. A change in between wins."""
        await self._swap(user.name, _row(user), _row(user.model_copy(update={"password": password})))

    async def remove(self, name: str, tenant: str | None = None) -> User:
        """Deletes the person; returns who that was. Raises NotFound, or Conflict under constant changes."""
        for _ in range(_ATTEMPTS):
            user = await self.get(name, tenant)
            if await self._swap(user.name, _row(user), b""):
                return user
        raise Conflict(f"{name} is being changed by somebody else; look again")

    async def _row(self, name: str) -> bytes | None:
        row: bytes | None = await self._state.call(lambda redis: redis.hget(KEY, name.lower()))
        return row

    async def _swap(self, name: str, expected: bytes, row: bytes) -> bool:
        return bool(await self._state.call(lambda redis: redis.eval(_SWAP, 1, KEY, name, expected, row)))


def _row(user: User) -> bytes:
    """Always the same bytes for the same person: what is compared is what was written."""
    scopes = None if user.access is None else sorted(user.access)
    return orjson.dumps(user.model_dump(mode="json") | {"access": scopes})


def _version(before: int) -> int:
    return max(before + 1, int(time.time() * 1000))
