"""From what a request carries to whose it is: the operator's key, a login's token, a program's key, a ticket.

What a person may do comes from their record, which is looked at again after two seconds, and at once in the
process that changed it. While the state server is gone nothing can be revoked: who was recognized within the
last minutes, for no longer than an access token lives, is let in as they were then, and counted.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import orjson
from pydantic import SecretStr

from alchemy.errors import Unavailable
from serving.people.access import ANYONE, OPERATOR, Principal, lesser
from serving.people.keys import Key, Keys, split_key
from serving.people.logins import Logins
from serving.people.tokens import BadToken, Tokens
from serving.people.users import User, Users
from serving.state import PREFIX, State
from serving.watching.metrics import Metrics

_TICKET = PREFIX + "ticket:"
TICKET_S = 30
_FRESH_S = 2.0
_MOST_KNOWN = 10_000

Known = tuple[User, Key | None]


class Unrecognized(Exception):
    """Nobody whom we know; the message is safe to show."""


class Credentials:
    """Recognizes principals."""

    def __init__(
        self,
        state: State,
        users: Users,
        keys: Keys,
        logins: Logins,
        tokens: Tokens,
        metrics: Metrics,
        *,
        operator_key: SecretStr | None,
        is_open: bool,
        stale_s: float,
    ) -> None:
        self._state = state
        self._users = users
        self._keys = keys
        self._logins = logins
        self._tokens = tokens
        self._metrics = metrics
        self._operator = _digest(operator_key.get_secret_value()) if operator_key else None
        self.is_open = is_open
        self._stale_s = stale_s
        self._known: OrderedDict[str, tuple[float, Known]] = OrderedDict()

    @property
    def problem(self) -> str | None:
        """Why nothing can be revoked now."""
        return None if self.is_open else self._state.problem

    async def recognize(self, authorization: str) -> Principal:
        """The principal of an Authorization header. Raises Unrecognized, or Unavailable."""
        if self.is_open:
            return ANYONE
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise Unrecognized("an `Authorization: Bearer ...` header is needed; see POST /api/auth/login")
        # Digests have one length: the comparison's time tells nothing about the key.
        if self._operator and secrets.compare_digest(_digest(credential), self._operator):
            return OPERATOR
        key_id, secret = split_key(credential)
        if key_id:
            return await self._program(key_id, secret)
        try:
            claims = self._tokens.read(credential, "access")
        except BadToken:
            raise Unrecognized("the bearer token is not valid, or no longer") from None
        return await self._person(claims.login, claims.name, claims.version)

    async def ticket(self, principal: Principal) -> str:
        """A word that stands for the principal's credential once, in a WebSocket's address."""
        ticket = secrets.token_urlsafe(32)
        row = orjson.dumps([principal.via, principal.credential, principal.name, principal.version])
        key = _TICKET + _digest(ticket).hex()
        await self._state.call(lambda redis: redis.set(key, row, ex=TICKET_S))
        return ticket

    async def redeem(self, ticket: str) -> Principal:
        """The principal of a ticket, which is used up. Raises Unrecognized, or Unavailable."""
        key = _TICKET + _digest(ticket).hex()
        row = await self._state.call(lambda redis: redis.getdel(key))
        if row is None:
            raise Unrecognized("the ticket is unknown, used or expired")
        via, credential, name, version = orjson.loads(row)
        match via:
            case "login":
                return await self._person(credential, name, version)
            case "key":
                return _acting_for(*await self._look("key", credential))
            case "operator" if self._operator:
                return OPERATOR
            case "open" if self.is_open:
                return ANYONE
        raise Unrecognized("the ticket is unknown, used or expired")

    async def still(self, principal: Principal) -> Principal:
        """The principal as they are now, on a connection that lasts. Raises Unrecognized, or Unavailable."""
        match principal.via:
            case "login":
                return await self._person(principal.credential, principal.name, principal.version)
            case "key":
                return _acting_for(*await self._look("key", principal.credential))
        return principal

    def forget(self) -> None:
        """Somebody was changed here: everybody is looked up again."""
        self._known.clear()

    async def _person(self, login: str, name: str, version: int) -> Principal:
        user, _ = await self._look("login", login, name)
        if user.version != version:
            raise Unrecognized("the bearer token is not valid, or no longer")
        return user.principal(via="login", credential=login)

    async def _program(self, key_id: str, secret: str) -> Principal:
        user, key = await self._look("key", key_id)
        if key is None or not key.is_opened_by(secret):
            raise Unrecognized("the key is not valid, or no longer")
        return _acting_for(user, key)

    async def _look(self, via: str, credential: str, name: str = "") -> Known:
        """The records behind a credential: fresh ones, or where they cannot be read, those of before."""
        entry, now = f"{via}:{credential}:{name}", time.monotonic()
        read_at, known = self._known.get(entry, (-self._stale_s, None))
        if known and now - read_at < _FRESH_S:
            return known
        read: Callable[[], Awaitable[Known]] = (
            (lambda: self._read_key(credential))
            if via == "key"
            else lambda: self._read_login(credential, name)
        )
        try:
            found = await read()
        except Unavailable:
            if known is None or now - read_at > self._stale_s:
                raise
            self._metrics.degraded.labels("revocation").inc()
            return known
        except Unrecognized:
            self._known.pop(entry, None)
            raise
        self._known[entry] = (now, found)
        self._known.move_to_end(entry)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return found

    async def _read_login(self, login: str, name: str) -> Known:
        user = await self._users.find(name)
        if user is None or not await self._logins.is_open(login):
            raise Unrecognized("the bearer token is not valid, or no longer")
        return user, None

    async def _read_key(self, key_id: str) -> Known:
        key = await self._keys.find(key_id)
        user = await self._users.find(key.user) if key else None
        if key is None or user is None or user.created_at != key.since:
            raise Unrecognized("the key is not valid, or no longer")
        return user, key


def _acting_for(user: User, key: Key | None) -> Principal:
    if key is None or key.is_over(time.time()):
        raise Unrecognized("the key is not valid, or no longer")
    role = lesser(user.role, key.role)
    return user.principal(role=role, via="key", credential=key.id, per_minute=key.per_minute)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
