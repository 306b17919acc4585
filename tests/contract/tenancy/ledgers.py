"""Ledgers over a real Redis, and what tests ask of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from services.gateway.access.caller import Caller, Grant
from services.gateway.access.ledger import SCRIPTS, Ledger
from services.gateway.access.line import Line
from shared import keys
from shared.config import RedisSettings
from shared.errors import LimitReached
from shared.policy.limits import MINUTE, Limits, Need
from shared.tasks import Tasks

ACME = Caller("acme", "k1")


@asynccontextmanager
async def opened(redis: RedisSettings, gateway: str = "gateway-1") -> AsyncIterator[Ledger]:
    line = Line(redis, SCRIPTS)
    ledger = Ledger(gateway, line)
    line.on_up = ledger.catch_up
    tasks = Tasks("a test")
    _ = tasks.spawn(line.run(), name="line")
    try:
        yield ledger
    finally:
        assert await tasks.close() == []
        await line.close()


async def taken(ledger: Ledger, limits: Limits, need: Need, times: int) -> list[Grant]:
    """Ask so many times at once; the grants of those that were let in."""
    asked = [ledger.admit(ACME, "chat", limits, need) for _ in range(times)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, Grant | LimitReached) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Grant)]


async def streams(client: Redis) -> int:
    return int(await client.zcard(keys.tenant_streams("acme")))


async def tokens_used(client: Redis) -> int:
    return int(await client.hget(keys.tenant_rates("acme"), "tokens") or 0) // MINUTE
