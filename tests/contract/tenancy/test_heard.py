"""Which gateways `baton keys` waits for, over a real Redis."""

from typing import Any

import pytest
from redis.asyncio import Redis

from services.commands import keys as command
from services.commands.access import Access
from shared import keys
from shared.config import Nats, RedisSettings
from shared.tenancy.register import Register


def gateway(name: str, state: str) -> dict[str, Any]:
    return {"id": name, "role": "gateway", "state": state}


async def test_a_gateway_that_starts_is_not_waited_for_and_not_forgotten(
    redis_settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Redis.from_url(redis_settings.url)
    register = Register(client)
    await client.delete(keys.KEYS_HEARD)
    await client.hset(keys.KEYS_HEARD, mapping={"up": "5-0", "behind": "4-0", "starts": "5-0", "gone": "5-0"})
    instances = [gateway("up", "ready"), gateway("behind", "draining"), gateway("starts", "starting")]
    monkeypatch.setattr(command, "inspect", lambda _: {"instances": [*instances, gateway("silent", "ready")]})
    access = Access(Nats(), redis_settings, "operator", 1.0, "")
    assert await command._late(access, register, "5-0") == ["behind", "silent"]
    assert set(await register.heard()) == {"up", "behind", "starts"}
    await client.delete(keys.KEYS_HEARD)
    await client.aclose()
