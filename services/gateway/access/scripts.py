"""What Redis does in one step for the limits of tenants, so that all gateways count as one.

The sums are those of `shared.policy.limits`, in whole numbers that Lua holds exactly. A grant is open as long as its
first stream is in the set: what it did not use is given back together with that entry, so never twice, however often it
is tried.
"""

import hashlib
from typing import Final

ADMIT: Final = """
-- KEYS: rates, streams   ARGV: grant, streams, tokens, requests/min, tokens/min, streams at a time, us until it lapses
-- answers: 1 taken or 0 refused, level of requests, level of tokens, streams open
local minute = 60000000
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local need, cost = tonumber(ARGV[2]), tonumber(ARGV[3]) * minute
local per, rate, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local open = redis.call('ZCARD', KEYS[2])
local held = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'at')
local passed = math.max(0, now - tonumber(held[3] or now))
local requests = math.max(0, tonumber(held[1] or 0) - passed * per)
local tokens = math.max(0, tonumber(held[2] or 0) - passed * rate)
if (per > 0 and requests + minute > per * minute) or (rate > 0 and tokens + cost > rate * minute)
  or (most > 0 and open + need > most) then
  return {0, requests, tokens, open}
end
local ms = 1000
if per > 0 then
  requests = requests + minute
  ms = ms + math.ceil(requests / per / 1000)
end
if rate > 0 then
  tokens = tokens + cost
  ms = math.max(ms, 1000 + math.ceil(tokens / rate / 1000))
end
redis.call('HSET', KEYS[1], 'requests', string.format('%.0f', requests), 'tokens', string.format('%.0f', tokens),
  'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], ms)
for choice = 0, need - 1 do
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[7]), ARGV[1] .. ':' .. choice)
end
redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[7] / 1000))
return {1, requests, tokens, open + need}
"""

SETTLE: Final = """
-- KEYS: rates, streams   ARGV: grant, streams, unused tokens (negative: used beyond), requests/min, tokens/min
if redis.call('ZREM', KEYS[2], ARGV[1] .. ':0') == 0 then return 0 end
for choice = 1, ARGV[2] - 1 do redis.call('ZREM', KEYS[2], ARGV[1] .. ':' .. choice) end
local per, rate = tonumber(ARGV[4]), tonumber(ARGV[5])
if rate == 0 or ARGV[3] == '0' then return 1 end
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'at')
local passed = math.max(0, now - tonumber(held[3] or now))
local requests = math.max(0, tonumber(held[1] or 0) - passed * per)
local tokens = math.max(0, math.max(0, tonumber(held[2] or 0) - passed * rate) - ARGV[3] * 60000000)
redis.call('HSET', KEYS[1], 'requests', string.format('%.0f', requests), 'tokens', string.format('%.0f', tokens),
  'at', string.format('%.0f', now))
local ms = 1000 + math.ceil(tokens / rate / 1000)
if per > 0 then ms = math.max(ms, 1000 + math.ceil(requests / per / 1000)) end
redis.call('PEXPIRE', KEYS[1], ms)
return 1
"""

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
