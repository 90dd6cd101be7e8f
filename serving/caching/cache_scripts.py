"""What the answer cache does inside the state server: six scripts, each one round trip and atomic.

Not for what an entry means; here it is bytes under a name. Keys, behind the prefix that is KEYS[1]:

    <scope>:e:<id>      hash: record, vector (float16); expires
    <scope>:m:<meaning> set of ids that mean the same; expires
    <scope>:ages        sorted set of ids by the millisecond at which they expire
    ages                the same over all scopes, members "<scope>:<id>"
    scopes              hash of scope -> JSON [tenant, release]
    sizes               hash of "<scope>:<id>" -> JSON [bytes, meaning, [documents]], which outlives the entry
    bytes               hash of scope -> bytes, and "" -> all bytes
    d:<document>        set of "<scope>:<id>" that cite it

The oldest are those that expire first. The keys of one call are made in the script, so this needs one server
(or a cluster that keeps the prefix on one node).
"""

_DROP = """
local prefix = KEYS[1]
local function drop(scope, id)
  local key = prefix .. scope .. ':e:' .. id
  redis.call('DEL', key)
  redis.call('ZREM', prefix .. scope .. ':ages', id)
  if redis.call('ZREM', prefix .. 'ages', scope .. ':' .. id) == 0 then return 0 end
  -- The entry itself is gone by now, where it expired: it does so in the millisecond that `ages` names.
  local kept = cjson.decode(redis.call('HGET', prefix .. 'sizes', scope .. ':' .. id))
  if type(kept) == 'number' then kept = {kept, '', {}} end  -- bytes alone, as before; its sets expire in time
  local size, meaning, documents = unpack(kept)
  redis.call('HDEL', prefix .. 'sizes', scope .. ':' .. id)
  redis.call('HINCRBY', prefix .. 'bytes', '', -size)
  if redis.call('HINCRBY', prefix .. 'bytes', scope, -size) <= 0 then
    redis.call('HDEL', prefix .. 'bytes', scope)
    redis.call('HDEL', prefix .. 'scopes', scope)
  end
  if meaning ~= '' then redis.call('SREM', prefix .. scope .. ':m:' .. meaning, id) end
  for _, document in ipairs(documents) do
    redis.call('SREM', prefix .. 'd:' .. document, scope .. ':' .. id)
  end
  return 1
end
local function sizes(dropped)
  local bytes = redis.call('HGET', prefix .. 'bytes', '') or '0'
  return {dropped, redis.call('ZCARD', prefix .. 'ages'), tonumber(bytes)}
end
local function split(member) return string.match(member, '^(%x+):(%x+)$') end
"""

# scope, id, meaning -> [record or "", id, record, vector, id, record, vector...]
FIND = """
local prefix, scope, id, meaning = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local found = {redis.call('HGET', prefix .. scope .. ':e:' .. id, 'record') or ''}
if found[1] ~= '' or meaning == '' then return found end
for _, other in ipairs(redis.call('SRANDMEMBER', prefix .. scope .. ':m:' .. meaning, 16)) do
  local held = redis.call('HMGET', prefix .. scope .. ':e:' .. other, 'record', 'vector')
  if held[1] and held[2] then
    for _, part in ipairs({other, held[1], held[2]}) do found[#found + 1] = part end
  end
end
return found
"""

# The scripts that change something return how many entries they dropped, and what is left over all scopes:
# [dropped, entries, bytes].

# scope, id, meaning, record, vector, now, ttl, most entries, most bytes, tenant, release, documents...
KEEP = (
    _DROP
    + """
local scope, id, meaning = ARGV[1], ARGV[2], ARGV[3]
local now, ttl, entries, bytes = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local member = scope .. ':' .. id
drop(scope, id)
local key = prefix .. scope .. ':e:' .. id
local dropped, documents = 0, {}
for i = 12, #ARGV do
  documents[#documents + 1] = ARGV[i]
  redis.call('SADD', prefix .. 'd:' .. ARGV[i], member)
  redis.call('PEXPIRE', prefix .. 'd:' .. ARGV[i], ttl, 'NX')
  redis.call('PEXPIRE', prefix .. 'd:' .. ARGV[i], ttl, 'GT')
end
local size = #ARGV[4] + #ARGV[5]
redis.call('HSET', key, 'record', ARGV[4], 'vector', ARGV[5])
redis.call('PEXPIRE', key, ttl)
if meaning ~= '' then
  redis.call('SADD', prefix .. scope .. ':m:' .. meaning, id)
  redis.call('PEXPIRE', prefix .. scope .. ':m:' .. meaning, ttl, 'NX')
  redis.call('PEXPIRE', prefix .. scope .. ':m:' .. meaning, ttl, 'GT')
end
redis.call('ZADD', prefix .. scope .. ':ages', now + ttl, id)
redis.call('ZADD', prefix .. 'ages', now + ttl, member)
redis.call('HSET', prefix .. 'sizes', member, cjson.encode({size, meaning, documents}))
redis.call('HINCRBY', prefix .. 'bytes', scope, size)
redis.call('HSET', prefix .. 'scopes', scope, cjson.encode({ARGV[10], ARGV[11]}))
local total = redis.call('HINCRBY', prefix .. 'bytes', '', size)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'ages', '-inf', now, 'LIMIT', 0, 256)) do
  dropped = dropped + drop(split(old))
end
while redis.call('ZCARD', prefix .. scope .. ':ages') > entries do
  dropped = dropped + drop(scope, redis.call('ZRANGE', prefix .. scope .. ':ages', 0, 0)[1])
end
while tonumber(redis.call('HGET', prefix .. 'bytes', '')) > bytes do
  dropped = dropped + drop(split(redis.call('ZRANGE', prefix .. 'ages', 0, 0)[1]))
end
return sizes(dropped)
"""
)

# scope, id
DROP = _DROP + "return sizes(drop(ARGV[1], ARGV[2]))"

# document, tenant or ""
FORGET = (
    _DROP
    + """
local dropped = 0
for _, member in ipairs(redis.call('SMEMBERS', prefix .. 'd:' .. ARGV[1])) do
  local scope, id = split(member)
  local of = redis.call('HGET', prefix .. 'scopes', scope)
  if of and (ARGV[2] == '' or cjson.decode(of)[1] == ARGV[2]) then dropped = dropped + drop(scope, id) end
end
return sizes(dropped)
"""
)

# tenant or "", release or "", most in one call
CLEAR = (
    _DROP
    + """
local dropped = 0
local scopes = redis.call('HGETALL', prefix .. 'scopes')
for i = 1, #scopes, 2 do
  local of = cjson.decode(scopes[i + 1])
  if (ARGV[1] == '' or of[1] == ARGV[1]) and (ARGV[2] == '' or of[2] == ARGV[2]) then
    local left = tonumber(ARGV[3]) - dropped
    for _, id in ipairs(redis.call('ZRANGE', prefix .. scopes[i] .. ':ages', 0, left - 1)) do
      if left > 0 then dropped = dropped + drop(scopes[i], id) end
    end
  end
end
return sizes(dropped)
"""
)

CHANGES = frozenset((KEEP, DROP, FORGET, CLEAR))

# tenant, now -> [entries, bytes, scopes]
FIGURES = """
local prefix, entries, bytes, count = KEYS[1], 0, 0, 0
local scopes = redis.call('HGETALL', prefix .. 'scopes')
for i = 1, #scopes, 2 do
  if cjson.decode(scopes[i + 1])[1] == ARGV[1] then
    entries = entries + redis.call('ZCOUNT', prefix .. scopes[i] .. ':ages', '(' .. ARGV[2], '+inf')
    bytes = bytes + tonumber(redis.call('HGET', prefix .. 'bytes', scopes[i]) or '0')
    count = count + 1
  end
end
return {entries, bytes, count}
"""
