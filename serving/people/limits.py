"""How much one caller may ask for: a rate, kept in the state server for all replicas, and requests at once.

The rate is the generic cell rate algorithm (ITU-T I.371): one number for each caller, the time at which they
will have had all that they took. While the state server is gone each process keeps that number for itself,
so a caller has the rate once for each replica, and never none. Requests at once are counted per process.
"""

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from alchemy.errors import Unavailable
from serving.options import ServingOptions
from serving.people.access import Principal
from serving.state import PREFIX, State

_PREFIX = PREFIX + "rate:"
_MOST_CALLERS = 10_000
_WINDOW_S = 60.0
_ROUNDING_S = 0.001  # of sums with the seconds since the epoch; without it the last one may be refused

# `take` below, on the server's clock. Numbers go back as text: Lua's would be cut to integers.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local until_ = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local step, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local taken = until_ + step
local allowed = taken - now <= window + 0.001
if allowed then
  redis.call('SET', KEYS[1], string.format('%.6f', taken), 'PX', math.ceil((taken - now) * 1000))
  until_ = taken
end
return {string.format('%.6f', until_ - now), allowed and 1 or 0}
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request is within the rate, and how the caller stands."""

    allowed: bool
    limit: int  # requests a minute, which may all come at once
    owed_s: float  # until the caller has the whole limit again

    @property
    def remaining(self) -> int:
        """Requests that would be let through now."""
        return max(0, math.floor((_WINDOW_S - self.owed_s) * self.limit / _WINDOW_S + 1e-6))

    @property
    def headers(self) -> dict[str, str]:
        """For the response (draft-ietf-httpapi-ratelimit-headers)."""
        told = {
            "RateLimit-Policy": f'"requests";q={self.limit};w={_WINDOW_S:.0f}',
            "RateLimit": f'"requests";r={self.remaining};t={math.ceil(self.owed_s)}',
        }
        if not self.allowed:
            step = _WINDOW_S / self.limit
            told["Retry-After"] = str(max(1, math.ceil(self.owed_s + step - _WINDOW_S)))
        return told


def take(until: float, now: float, limit: int) -> tuple[float, Verdict]:
    """One request of a caller who will have had all at `until`: the new time, and the verdict."""
    until = max(until, now)
    taken = until + _WINDOW_S / limit
    if taken - now <= _WINDOW_S + _ROUNDING_S:
        return taken, Verdict(True, limit, taken - now)
    return until, Verdict(False, limit, until - now)


class TooManyAtOnce(Exception):
    """The caller has as many requests in work as they may."""


class Limits:
    """The rates and places of all callers. The operator, and nobody in particular, have no limits."""

    def __init__(self, state: State, options: ServingOptions) -> None:
        self._state = state
        self._people = options.requests_per_minute
        self._programs = options.program_requests_per_minute
        self._places = options.requests_at_once
        self._local: OrderedDict[str, float] = OrderedDict()
        self._strict: dict[str, float] = {}  # caller -> until when on the monotonic clock
        self._busy: Counter[str] = Counter()

    async def take(self, principal: Principal) -> Verdict | None:
        """The verdict over one request; None for who has no limit."""
        if not principal.is_limited:
            return None
        caller = principal.caller
        limit = principal.per_minute or (self._programs if principal.via == "key" else self._people)
        if self._strict.get(caller, 0.0) > time.monotonic():
            limit = max(1, limit // 4)
        arguments = (1, f"{_PREFIX}{caller}", _WINDOW_S / limit, _WINDOW_S)
        try:
            owed, allowed = await self._state.call(lambda redis: redis.eval(_TAKE, *arguments))
        except Unavailable:
            return self._take_here(caller, limit)
        return Verdict(bool(allowed), limit, float(owed))

    @contextmanager
    def place(self, principal: Principal) -> Iterator[None]:
        """One of the caller's requests at once. Raises TooManyAtOnce."""
        if not principal.is_limited:
            yield
            return
        caller = principal.caller
        if self._busy[caller] >= self._places:
            raise TooManyAtOnce
        self._busy[caller] += 1
        try:
            yield
        finally:
            self._busy[caller] -= 1
            if not self._busy[caller]:
                del self._busy[caller]

    def tighten(self, caller: str, seconds: float) -> None:
        """Leaves the caller a quarter of their rate for a while."""
        now = time.monotonic()
        self._strict = {name: until for name, until in self._strict.items() if until > now}
        self._strict[caller] = now + seconds

    def _take_here(self, caller: str, limit: int) -> Verdict:
        until, verdict = take(self._local.get(caller, 0.0), time.monotonic(), limit)
        self._local[caller] = until
        self._local.move_to_end(caller)
        if len(self._local) > _MOST_CALLERS:
            self._local.popitem(last=False)
        return verdict
