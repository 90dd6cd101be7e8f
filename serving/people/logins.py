"""Logins: one per password that was given, ended by logging out, by a replayed token, or by time.

In the state server a login is the id of the one refresh token that may be used next. Using another one of the
same login means that two have it, one of them a thief: that ends the login, and with it its access tokens.
"""

import secrets
from dataclasses import dataclass

from serving.people.tokens import BadToken, Claims, Tokens
from serving.people.users import User, Users
from serving.state import PREFIX, State

_PREFIX = PREFIX + "login:"

# 1: rotated; 0: there is no such login (any more); -1: an old token was used again, and the login is over.
_ROTATE = """
local current = redis.call('GET', KEYS[1])
if not current then return 0 end
if current ~= ARGV[1] then redis.call('DEL', KEYS[1]) return -1 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a client holds after it logged in."""

    access: str
    refresh: str
    user: User


class Replayed(BadToken):
    """A refresh token was used twice."""

    def __init__(self, name: str) -> None:
        super().__init__("a refresh token was used again; the login has ended")
        self.name = name


class Logins:
    """Every method raises Unavailable when the state server does not answer."""

    def __init__(self, state: State, users: Users, tokens: Tokens, *, refresh_s: int) -> None:
        self._state = state
        self._users = users
        self._tokens = tokens
        self._refresh_s = refresh_s

    async def start(self, user: User) -> Pair:
        """The tokens of a person whose password was checked."""
        login = secrets.token_hex(16)
        pair, refresh = self._pair(user, login)
        key = _PREFIX + login
        await self._state.call(lambda redis: redis.set(key, refresh.id, ex=self._refresh_s))
        return pair

    async def refresh(self, token: str) -> Pair:
        """New tokens for a refresh token, which is used up. Raises BadToken, or Replayed."""
        claims = self._tokens.read(token, "refresh")
        user = await self._users.find(claims.name)
        if user is None or user.version != claims.version:
            raise BadToken("the person has changed since")
        pair, refresh = self._pair(user, claims.login)
        arguments = (1, _PREFIX + claims.login, claims.id, refresh.id, self._refresh_s)
        outcome = await self._state.call(lambda redis: redis.eval(_ROTATE, *arguments))
        if outcome == -1:
            raise Replayed(claims.name)
        if outcome != 1:
            raise BadToken("the login has ended")
        return pair

    async def is_open(self, login: str) -> bool:
        """Whether the login goes on."""
        return bool(await self._state.call(lambda redis: redis.exists(_PREFIX + login)))

    async def end(self, login: str) -> None:
        """Ends a login: its refresh token and its access tokens are worth nothing from now on."""
        await self._state.call(lambda redis: redis.delete(_PREFIX + login))

    def _pair(self, user: User, login: str) -> tuple[Pair, Claims]:
        access, _ = self._tokens.issue("access", user.name, user.version, login)
        refresh, claims = self._tokens.issue("refresh", user.name, user.version, login)
        return Pair(access, refresh, user), claims
