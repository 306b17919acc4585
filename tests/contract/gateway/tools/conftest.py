"""A gateway whose scenario reads calls of functions in one format."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest_asyncio

from tests.contract.gateway.house import House, open_house
from tests.servers import NatsServer, RedisServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)  # its thread is the module's, not the first test's
    settings = nats_server.settings(prefix="gatewaytools")
    scenario = {"tool_format": "hermes"}
    async with open_house(settings, redis_server.settings(), scenario=scenario, max_streams=32) as house:
        yield house
