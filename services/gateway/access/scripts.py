"""What Redis does in one step for the limits of tenants, so that all gateways count as one.

The sums are those of `shared.policy.limits`, in whole numbers that Lua holds exactly. A grant is open as long as its
first stream is in the set: what it did not use is given back together with that entry, so never twice, however often it
is tried.
"""

import hashlib
from typing import Final

_BUCKETS: Final = """
local minute = 60000000
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- what a bucket holds now; where its limit was changed, as full as before, and what stands beyond it unchanged
local function drained(level, was, limit, at)
  level, was = tonumber(level or 0), tonumber(was or limit)
  if was ~= limit and was > 0 and limit > 0 then
    local within = math.min(level, was * minute)
    local whole = math.floor(within / was)
    level = whole * limit + math.ceil((within - whole * was) * limit / was) + level - within
  end
  return math.max(0, level - math.max(0, now - (at or now)) * limit), limit > 0 and limit or was
end

local function read(key, per, rate)
  local held = redis.call('HMGET', key, 'requests', 'tokens', 'at', 'request_limit', 'token_limit')
  local at = tonumber(held[3])
  local requests, was_per = drained(held[1], held[4], per, at)
  local tokens, was_rate = drained(held[2], held[5], rate, at)
  return requests, tokens, was_per, was_rate
end

-- until both are empty, as far as there are limits
local function write(key, requests, tokens, per, rate, was_per, was_rate)
  redis.call('HSET', key, 'requests', string.format('%.0f', requests), 'tokens', string.format('%.0f', tokens),
    'at', string.format('%.0f', now), 'request_limit', was_per, 'token_limit', was_rate)
  local ms = 0
  if per > 0 then ms = math.ceil(requests / per / 1000) end
  if rate > 0 then ms = math.max(ms, math.ceil(tokens / rate / 1000)) end
  redis.call('PEXPIRE', key, string.format('%.0f', 1000 + ms))
end
"""

ADMIT: Final = (
    _BUCKETS
    + """
-- KEYS: rates, streams   ARGV: grant, streams, tokens, requests/min, tokens/min, streams at a time, us until it lapses
-- answers: 1 taken or 0 refused, level of requests, level of tokens, streams open
local need, cost = tonumber(ARGV[2]), tonumber(ARGV[3]) * minute
local per, rate, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local open = redis.call('ZCARD', KEYS[2])
local requests, tokens, was_per, was_rate = read(KEYS[1], per, rate)
if (per > 0 and requests + minute > per * minute) or (rate > 0 and cost > 0 and tokens + cost > rate * minute)
  or (most > 0 and need > 0 and open + need > most) then
  return {0, requests, tokens, open}
end
if per > 0 then requests = requests + minute end
if rate > 0 then tokens = tokens + cost end
write(KEYS[1], requests, tokens, per, rate, was_per, was_rate)
for choice = 0, need - 1 do
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[7]), ARGV[1] .. ':' .. choice)
end
redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[7] / 1000))
return {1, requests, tokens, open + need}
"""
)

SETTLE: Final = (
    _BUCKETS
    + """
-- KEYS: rates, streams   ARGV: grant, streams, unused tokens (negative: used beyond), requests/min, tokens/min
if redis.call('ZREM', KEYS[2], ARGV[1] .. ':0') == 0 then return 0 end
for choice = 1, ARGV[2] - 1 do redis.call('ZREM', KEYS[2], ARGV[1] .. ':' .. choice) end
local per, rate = tonumber(ARGV[4]), tonumber(ARGV[5])
if rate == 0 or ARGV[3] == '0' then return 1 end
local requests, tokens, was_per, was_rate = read(KEYS[1], per, rate)
write(KEYS[1], requests, math.max(0, tokens - ARGV[3] * minute), per, rate, was_per, was_rate)
return 1
"""
)

RENEW: Final = """
-- KEYS: streams   ARGV: us until they lapse, entry, ...
local clock = redis.call('TIME')
local until_us = string.format('%.0f', clock[1] * 1000000 + clock[2] + ARGV[1])
for k = 2, #ARGV do redis.call('ZADD', KEYS[1], until_us, ARGV[k]) end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[1] / 1000))
return 1
"""


def sha(script: str) -> str:
    """Name a script as Redis does."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
