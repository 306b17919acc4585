"""Two gateways that hold tenants to their limits together, over a Redis of their own."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from shared.config import ModeratorSettings, TenantSettings
from tests.contract.gateway.house import House, open_house
from tests.servers import NatsServer, RedisServer

TENANTS = {
    "slow": TenantSettings(requests_per_minute=3),
    "small": TenantSettings(tokens_per_minute=200, answer_tokens=20),
    "narrow": TenantSettings(concurrent_streams=2),
    "shared": TenantSettings(requests_per_minute=20),
    "boxed": TenantSettings(scenarios=("elsewhere",)),
    "asks": TenantSettings(requests_per_minute=3, tokens_per_minute=100, concurrent_streams=1),
    "busy": TenantSettings(requests_per_minute=4, tokens_per_minute=100, concurrent_streams=1),
    "hasty": TenantSettings(requests_per_minute=2),
    "wide": TenantSettings(requests_per_minute=10_000, tokens_per_minute=1_000_000, concurrent_streams=100),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own_redis(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RedisServer]:
    """Keys stay in Redis, and gateways of other tests must not ask for them."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def houses(
    nats_server: NatsServer, own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[House, House]]:
    """Two gateways, each with workers of its own, and one Redis."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)  # its thread is the module's, not the first test's
    redis = own_redis.settings()
    first, second = nats_server.settings(prefix="tenantsone"), nats_server.settings(prefix="tenantstwo")
    words = tmp_path_factory.mktemp("rules") / "words"
    words.write_text("bomb\n")
    moderation = {"rules": ModeratorSettings(words={"weapons": str(words)})}
    async with (
        open_house(first, redis, tenant=TENANTS, moderation=moderation) as one,
        open_house(second, redis, instance="gateway-2", tenant=TENANTS, moderation=moderation) as two,
    ):
        yield one, two


@pytest_asyncio.fixture(loop_scope="module")
async def house(houses: tuple[House, House]) -> AsyncIterator[House]:
    yield houses[0]
    for one in houses:
        one.fleet.calm()
        await one.empty()


@pytest_asyncio.fixture(loop_scope="module")
async def redis(own_redis: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(own_redis.settings().url)
    yield client
    await client.aclose()
