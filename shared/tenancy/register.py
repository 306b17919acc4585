"""Where API keys are kept: one hash each in Redis, and a stream of what happened to them, which every gateway follows.

Owns the order of writing: a key is changed and told of in one step. Holds no secret. Every call raises LinkLost when
Redis does not answer.
"""

import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.config import RedisSettings
from shared.errors import LinkLost
from shared.redis_client import open_redis_client
from shared.tenancy.api_key import ApiKey

KEPT_S: Final = 90 * 86_400
"""A key that is worth nothing any more is still listed for so long."""
LONGEST_STREAM: Final = 10_000

CREATE: Final = """
-- KEYS: key, stream   ARGV: id, tenant, by, unix time to forget it at or 0, longest stream, field, value, ...
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
redis.call('HSET', KEYS[1], unpack(ARGV, 6))
if ARGV[4] ~= '0' then redis.call('EXPIREAT', KEYS[1], ARGV[4]) end
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*',
  'what', 'created', 'id', ARGV[1], 'tenant', ARGV[2], 'by', ARGV[3])
"""
REVOKE: Final = """
-- KEYS: key, stream   ARGV: id, by, now, seconds to keep it, longest stream
-- answers the entry that tells of it; an empty one where the key was revoked before; nothing where there is no such key
local held = redis.call('HMGET', KEYS[1], 'revoked', 'tenant')
if not held[2] then return false end
if held[1] and held[1] ~= '0' then return '' end
redis.call('HSET', KEYS[1], 'revoked', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*',
  'what', 'revoked', 'id', ARGV[1], 'tenant', held[2], 'by', ARGV[2])
"""
USED: Final = """
-- KEYS: key   ARGV: now
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'used', ARGV[1]) end
"""


class Register:
    """All API keys of one Redis."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def create(self, key: ApiKey, by: str = "") -> str:
        """Keep a key that somebody made; returns the entry that tells the gateways of it."""
        pairs = [part for pair in key.fields().items() for part in pair]
        forget = key.expires + KEPT_S if key.expires else 0
        told = await self._eval(
            CREATE, [keys.api_key(key.id), keys.API_KEYS], key.id, key.tenant, by, forget, LONGEST_STREAM, *pairs
        )
        if told is None:
            raise LinkLost("this id is taken; create the key again")
        return str(told.decode())

    async def revoke(self, key_id: str, by: str = "") -> str | None:
        """Make a key worthless for ever. Returns the entry that tells of it, "" where it was; None: no such key."""
        arguments = (key_id, by, int(time.time()), KEPT_S, LONGEST_STREAM)
        told = await self._eval(REVOKE, [keys.api_key(key_id), keys.API_KEYS], *arguments)
        return None if told is None else str(told.decode())

    async def find(self, key_id: str) -> ApiKey | None:
        """Read one key."""
        fields = await self._answer(self._client.hgetall(keys.api_key(key_id)))
        return ApiKey.read(key_id, cast("dict[bytes, bytes]", fields))

    async def all(self) -> list[ApiKey]:
        """Read every key, the oldest first."""
        found: dict[str, ApiKey] = {}  # Redis may name one twice
        start = len(keys.api_key(""))
        try:
            async for name in self._client.scan_iter(match=keys.api_key("*"), count=1000):
                key = await self.find(name.decode()[start:])
                if key is not None:
                    found[key.id] = key
        except (RedisError, OSError, TimeoutError) as error:
            raise _lost(error) from error
        return sorted(found.values(), key=lambda key: (key.created, key.id))

    async def last(self) -> str:
        """Name the newest entry of the stream; empty where no key was ever made."""
        newest = await self._answer(self._client.xrevrange(keys.API_KEYS, count=1))
        return str(newest[0][0].decode()) if newest else ""

    async def forget_gateway(self, gateway: str) -> None:
        """Drop what a gateway that is gone has heard."""
        await self._answer(self._client.hdel(keys.KEYS_HEARD, gateway))

    async def heard(self) -> dict[str, str]:
        """Say for each gateway which entry it heard last."""
        said = await self._answer(self._client.hgetall(keys.KEYS_HEARD))
        return {name.decode(): entry.decode() for name, entry in said.items()}

    async def _eval(self, script: str, names: list[str], *arguments: str | int) -> Any:  # noqa: ANN401  a reply
        return await self._answer(self._client.eval(script, len(names), *names, *map(str, arguments)))

    async def _answer(self, call: Awaitable[Any] | Any) -> Any:  # noqa: ANN401
        try:
            return await call
        except (RedisError, OSError, TimeoutError) as error:
            raise _lost(error) from error


@asynccontextmanager
async def open_register(settings: RedisSettings) -> AsyncIterator[Register]:
    """Open the register for a command. Raises LinkLost when Redis does not answer."""
    client = open_redis_client(settings.url, settings.timeout_s)
    try:
        yield Register(client)
    finally:
        await client.aclose()


def _lost(error: BaseException) -> LinkLost:
    return LinkLost(f"Redis does not answer ({error}); is the cluster running?")


def not_older(entry: str, than: str) -> bool:
    """Whether an entry of the stream is the same as another or came after it."""
    return _order(entry) >= _order(than)


def _order(entry: str) -> tuple[int, int]:
    time_ms, _, number = entry.partition("-")
    return int(time_ms or 0), int(number or 0)
