"""Leases in Redis: who holds a name, and since when, as an epoch that never goes back.

Owns the scripts and the holder's own clock. A lease never excludes across a pause: whoever receives something checks
the epoch that came with it. Calls run in tasks of their own, never in one that a request may cancel.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.config import RedisSettings
from shared.errors import Unavailable
from shared.messages import Epoch
from shared.redis_client import open_redis_client

Clock = Callable[[], float]
MARGIN = 0.1
"""Part of the ttl by which a holder stops earlier than Redis forgets: clocks drift, answers travel."""

# Idempotent on the owner: a call whose reply was lost can be repeated. The boot number grows when Redis has forgotten
# it (flush), when another Redis process answers (restart, failover: its counter may lie behind) and when the caller
# has seen a higher one. It is drawn from the clock in microseconds, so that those before and after a flush differ, and
# stays far below 2^53, the largest that Lua holds exactly.
TAKE = """
-- KEYS: lease, fence, boot   ARGV: owner, ttl_ms, highest boot number known to the caller
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner then
  if owner == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  local held = redis.call('HMGET', KEYS[1], 'boot', 'counter')
  return {owner, held[1], held[2], 0}
end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
local stored = redis.call('HMGET', KEYS[3], 'number', 'run')
local boot = tonumber(stored[1] or '0')
if stored[2] ~= run or boot < tonumber(ARGV[3]) then
  local clock = redis.call('TIME')
  boot = math.max(tonumber(clock[1]) * 1000000 + tonumber(clock[2]), boot + 1, tonumber(ARGV[3]) + 1)
  redis.call('HSET', KEYS[3], 'number', string.format('%.0f', boot), 'run', run)
end
local counter = redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'boot', string.format('%.0f', boot), 'counter', counter)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {ARGV[1], string.format('%.0f', boot), tostring(counter), 1}
"""

RELEASE = """
-- KEYS: lease   ARGV: owner
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The lease is ours. `created`: it did not exist before this call, so anyone may have seen it missing."""

    epoch: Epoch
    created: bool
    sent_at: float  # on our clock, before the call left: the ttl counts from here


@dataclass(frozen=True, slots=True)
class Taken:
    """Another owner holds the lease."""

    owner: str
    epoch: Epoch


def open_lease_client(settings: RedisSettings, ttl_s: float) -> Redis:
    """Make a client whose calls answer or fail well within a ttl; it never repeats a call by itself."""
    return open_redis_client(settings.url, ttl_s / 4, max_connections=4)


class Lease:
    """One name, held or wanted by one owner. Not for concurrent use."""

    def __init__(self, client: Redis, name: str, ttl_s: float, *, clock: Clock = time.monotonic) -> None:
        self.name = name
        self.ttl_s = ttl_s
        self.epoch: Epoch = (0, 0)  # of the last confirmation; (0, 0) before the first
        self._client = client
        self._clock = clock
        self._until = float("-inf")
        self._known_boot = 0
        self._process = secrets.token_hex(8)
        self._tenure = 0  # a release that was sent late must not end the next tenure

    @property
    def owner(self) -> str:
        """Who we are in Redis."""
        return f"{self._process}|{self._tenure}"

    @property
    def held(self) -> bool:
        """Whether the last confirmation still holds, on our own clock."""
        return self._clock() < self._until

    def saw(self, epoch: Epoch) -> None:
        """Remember an epoch seen elsewhere; ours will be higher."""
        self._known_boot = max(self._known_boot, epoch[0])

    async def confirm(self) -> Confirmed | Taken:
        """Take or renew the lease. Raises Unavailable when Redis did not answer: whether it took is then unknown."""
        sent_at = self._clock()
        arguments = (self.owner, str(max(1, round(self.ttl_s * 1000))), str(self._known_boot))
        answer = await self._call(TAKE, [keys.lease(self.name), keys.FENCE, keys.BOOT], arguments)
        try:
            owner, boot, counter, created = answer
            epoch = (int(boot), int(counter))
        except (TypeError, ValueError) as error:
            raise Unavailable(f"{keys.lease(self.name)} in Redis is no lease of ours: {answer!r}") from error
        self.saw(epoch)
        if owner.decode(errors="replace") != self.owner:
            self._until = float("-inf")
            return Taken(owner.decode(errors="replace"), epoch)
        self.epoch = epoch
        self._until = sent_at + self.ttl_s * (1 - MARGIN)
        return Confirmed(epoch, bool(created), sent_at)

    async def release(self) -> bool:
        """Give the lease up, if it is ours. False when Redis did not answer; the lease then ends by its ttl."""
        owner, self._until = self.owner, float("-inf")
        self._tenure += 1
        try:
            await self._call(RELEASE, [keys.lease(self.name)], (owner,))
        except Unavailable:
            return False
        return True

    async def _call(self, script: str, names: list[str], arguments: tuple[str, ...]) -> Any:  # noqa: ANN401  # a reply
        try:
            return await self._client.eval(script, len(names), *names, *arguments)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis did not confirm {keys.lease(self.name)}: {error}") from error
