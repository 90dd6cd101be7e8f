"""Guessing passwords: after a few tries the next one has to wait, twice as long every time.

Tries are counted before the password is looked at, so that many at once are no way around it, for
- a name from one address: 5 are free, then 2, 4, 8 ... seconds up to 15 minutes;
- an address, whatever the names: 50 are free, the same waits; behind it may be a whole office;
- a name from everywhere: 100 are free, and the wait is never over 30 seconds. It does not count where that
  person has logged in from within 30 days, so nobody can keep them out from elsewhere.
A count is forgotten an hour after its last try. A password that was right takes its try back, and clears
that of its name from its address.
"""

from alchemy.errors import AlchemyError
from serving.state import PREFIX, State

_PREFIX = PREFIX + "attempts:"
_KNOWN_S = 30 * 86400

# ARGV: seconds a count is kept, then (free, longest wait) of each key. KEYS[4]: the name was here before.
_TRY = """
local now = tonumber(redis.call('TIME')[1])
local counted = redis.call('EXISTS', KEYS[4]) == 1 and 2 or 3
local wait = 0
for i = 1, counted do
  local open = tonumber(redis.call('HGET', KEYS[i], 'open') or 0)
  wait = math.max(wait, open - now)
end
if wait > 0 then return wait end
for i = 1, 3 do
  local tries = redis.call('HINCRBY', KEYS[i], 'tries', 1)
  local over = tries - tonumber(ARGV[2 * i])
  if over > 0 then
    redis.call('HSET', KEYS[i], 'open', now + math.min(2 ^ math.min(over, 20), tonumber(ARGV[2 * i + 1])))
  end
  redis.call('EXPIRE', KEYS[i], ARGV[1])
end
return 0
"""
_RIGHT = """
redis.call('DEL', KEYS[1])
for i = 2, 3 do
  if redis.call('HINCRBY', KEYS[i], 'tries', -1) <= 0 then redis.call('DEL', KEYS[i]) end
end
redis.call('SET', KEYS[4], 1, 'EX', ARGV[1])
return 0
"""
_LIMITS = (3600, 5, 900, 50, 900, 100, 30)


class TooManyAttempts(AlchemyError):
    """The next try has to wait for `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many tries; try again in {seconds} s")
        self.seconds = seconds


class Attempts:
    """Counts tries. Every method raises Unavailable when the state server does not answer."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def begin(self, name: str, address: str) -> None:
        """Counts a try. Raises TooManyAttempts, and then it was not one."""
        arguments = (4, *_keys(name, address), *_LIMITS)
        wait = await self._state.call(lambda redis: redis.eval(_TRY, *arguments))
        if wait:
            raise TooManyAttempts(int(wait))

    async def right(self, name: str, address: str) -> None:
        """The password was right."""
        arguments = (4, *_keys(name, address), _KNOWN_S)
        await self._state.call(lambda redis: redis.eval(_RIGHT, *arguments))


def _keys(name: str, address: str) -> tuple[str, str, str, str]:
    return (
        f"{_PREFIX}{name}@{address}",
        f"{_PREFIX}from:{address}",
        f"{_PREFIX}to:{name}",
        f"{PREFIX}known:{name}@{address}",
    )
