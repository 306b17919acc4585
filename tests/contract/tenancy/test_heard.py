"""What `baton keys` waits for, lists and leaves behind, over a real Redis."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import Redis as PlainRedis
from redis.asyncio import Redis

from services.commands import keys as command
from services.commands.access import Access
from shared import keys
from shared.config import Nats, RedisSettings
from shared.errors import DeadlineExceeded, LinkLost
from shared.tenancy.api_key import make
from shared.tenancy.register import Register
from tests.servers import RedisServer


def gateway(name: str, state: str) -> dict[str, Any]:
    return {"id": name, "role": "gateway", "state": state}


async def test_a_key_that_redis_names_twice_is_listed_once(
    redis_settings: RedisSettings, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SCAN may, whenever its table grows or shrinks meanwhile."""
    scan = redis_client.scan_iter

    async def twice(**words: Any) -> AsyncIterator[bytes]:
        async for name in scan(**words):
            yield name
            yield name

    monkeypatch.setattr(redis_client, "scan_iter", twice)
    register = Register(redis_client)
    kept = [make("acme", [], now=when)[0] for when in (2, 1)]
    for key in kept:
        await register.create(key)
    assert await register.all() == [kept[1], kept[0]]


def test_a_new_key_that_not_every_gateway_hears_of_in_time_does_not_stay_behind_unseen(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(Nats(), redis_server.settings(), "operator", 1.0, "")
    monkeypatch.setattr(command, "inspect", lambda _: {"instances": [gateway("deaf", "ready")]})
    monkeypatch.setattr(command, "HEARD_S", 0.2)
    with PlainRedis.from_url(access.redis.url) as client:
        try:
            with pytest.raises(DeadlineExceeded, match=r"deaf did not hear of it .* revoked"):
                command.create(access, "acme", [], expires=None, name="laptop", wait=True)
            assert [one["state"] for one in command.listed(access)] == ["revoked"]
            monkeypatch.setattr(command, "inspect", lambda _: {"instances": []})
            assert command.create(access, "acme", [], expires=None, name="laptop", wait=True)
        finally:
            client.flushall()


def test_a_key_is_shown_though_nobody_can_tell_what_the_cluster_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: Access) -> dict[str, Any]:
        raise LinkLost("Redis does not answer")

    monkeypatch.setattr(command, "inspect", nobody)
    assert command.unknown_scenarios(Access(Nats(), RedisSettings(), "operator", 1.0, ""), ["chat"]) == []


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
