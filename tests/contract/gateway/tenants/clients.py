"""Clients of tenants, with keys that are made for them."""

import time
from typing import Any

from openai import AsyncOpenAI
from redis.asyncio import Redis

from shared.tenancy.api_key import make
from shared.tenancy.register import Register
from tests.contract.gateway.house import House
from tests.contract.gateway.wire import HELLO


async def new_key(redis: Redis, tenant: str, *scenarios: str, lifetime_s: int = 0, made_s: float = 0) -> str:
    kept, key = make(tenant, list(scenarios), now=int(time.time() + made_s), lifetime_s=lifetime_s)
    await Register(redis).create(kept)
    return key


def client_of(house: House, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0, timeout=10)


async def ask(house: House, key: str, **more: Any) -> Any:
    async with client_of(house, key) as client:
        return await client.chat.completions.create(model="chat", messages=HELLO, **{"max_tokens": 4, **more})
