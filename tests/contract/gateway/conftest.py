"""One gateway for each module of tests, and a client for each test."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest_asyncio
from openai import AsyncOpenAI

from tests.contract.gateway.house import House, open_house
from tests.servers import NatsServer, RedisServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)  # its thread is the module's, not the first test's
    nats, redis = nats_server.settings(prefix="gateway"), redis_server.settings()
    async with open_house(nats, redis, max_body_bytes=1_000_000, max_streams=32) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def house(one_house: House) -> AsyncIterator[House]:
    yield one_house
    one_house.fleet.calm()
    await one_house.empty()


@pytest_asyncio.fixture(loop_scope="module")
async def client(house: House) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0, timeout=10) as made:
        yield made
