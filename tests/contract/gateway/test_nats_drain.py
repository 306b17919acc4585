"""Direct NATS clients while their gateway stops: each gets its reply, whatever its request waits for."""

import asyncio

import msgpack
import nats
import pytest

from services.gateway.access.caller import Caller
from tests.contract.gateway.house import open_house
from tests.servers import NatsServer, RedisServer


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_request_that_waits_for_something_else_is_told_that_its_gateway_stops(
    nats_server: NatsServer,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    at_once: bool,  # noqa: FBT001
) -> None:
    async def never(_key: str) -> Caller:
        await asyncio.Event().wait()
        raise AssertionError

    prefix = f"natsdrain{at_once:d}"
    settings = nats_server.settings(prefix=prefix)
    async with (
        await nats.connect(settings.url, user=settings.user, password=settings.password) as client,
        open_house(settings, redis_server.settings(), instance=f"gateway-{prefix}") as house,
    ):
        house.ends_with = int(at_once)
        monkeypatch.setattr(house.gateway._desk, "identify", never)
        request = client.request(house.subjects.requests("chat"), msgpack.packb({"prompt": "hello"}), timeout=10)
        reply = asyncio.ensure_future(request)
        await house.until(lambda: house.gateway._desk.in_flight == 1, "the request")
        house.stopping.signalled("SIGTERM")
        if at_once:
            await house.until(lambda: house.gateway._desk.draining, "the drain")
            house.stopping.signalled("SIGTERM")
        error = msgpack.unpackb((await reply).data)["error"]
        assert (error["code"], error["retryable"]) == ("draining", True)
