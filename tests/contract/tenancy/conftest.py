"""The session's Redis, left as empty as it was found, and an identity provider."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from services.gateway.access.tokens import Tokens
from shared.config import RedisSettings
from tests.contract.tenancy.providers import Provider, settings


@pytest.fixture
async def redis_settings(redis_settings: RedisSettings) -> AsyncIterator[RedisSettings]:
    """Settings of the session's Redis, emptied before and after."""
    yield redis_settings
    client = Redis.from_url(redis_settings.url)
    await client.flushall()
    await client.aclose()


@pytest.fixture
async def provider() -> AsyncIterator[tuple[Provider, str]]:
    made = Provider()
    app = web.Application()
    app.router.add_get("/keys", made.answer)
    server = TestServer(app)
    await server.start_server()
    yield made, str(server.make_url("/keys"))
    await server.close()


@pytest.fixture
async def tokens(provider: tuple[Provider, str]) -> AsyncIterator[Tokens]:
    made = Tokens(settings(provider[1]))
    yield made
    await made.close()
