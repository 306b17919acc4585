"""Crowds that mean no good: while they last, a stream gets every token and a new request its answer.

On uvloop, as in production. The crowds are processes of their own.
"""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest
from openai import AsyncOpenAI

from tests.contract.gateway.crowds import Crowd
from tests.contract.gateway.house import House, open_house
from tests.contract.gateway.loops import on_uvloop
from tests.contract.gateway.wire import HELLO, TEXT
from tests.servers import NatsServer, RedisServer

MANY = 10_000
FILES_FOR_MANY = 10_500


@asynccontextmanager
async def streaming_through(house: House, client: AsyncOpenAI) -> AsyncIterator[None]:
    """A stream begins before what happens inside, and ends after it, whole; meanwhile others come and go."""
    house.fleet.may_speak.clear()
    stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
    yield
    house.fleet.may_speak.set()
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == TEXT
    again = await client.chat.completions.create(model="chat", messages=HELLO)
    assert again.choices[0].message.content == TEXT


async def seen(crowd: Crowd, name: str, least: int) -> dict[str, int]:
    """Wait until the crowd has seen something so often."""
    async with asyncio.timeout(60):
        while (found := await asyncio.to_thread(crowd.look))[name] < least:  # noqa: ASYNC110  another process
            await asyncio.sleep(0.05)
    return found


async def connections(house: House, count: int) -> None:
    await house.until(lambda: house.gateway._http.connections == count, f"{count} connections", within_s=30)


async def idle_connections(nats_server: NatsServer, redis_server: RedisServer, count: int) -> None:
    nats, redis = nats_server.settings(prefix=f"idle{count}"), redis_server.settings()
    bounds = {"max_connections": count + 50, "max_connections_per_peer": count + 50, "keep_alive_s": 600.0}
    async with (
        open_house(nats, redis, instance="gateway-idle", **bounds) as house,
        AsyncOpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0, timeout=20) as client,
    ):
        await client.models.list()
        own = psutil.Process()
        before = own.memory_info().rss
        async with streaming_through(house, client):
            with Crowd(house.port, "idle", count) as crowd:
                found = await seen(crowd, "answered", count)
                assert found["open"] == count
                each = (own.memory_info().rss - before) / count
                print(f"\n{count} idle connections: {each / 1024:.1f} KiB of the gateway's memory each")  # noqa: T201
                assert each < 64 * 1024
                assert (await client.models.list()).data
        await house.until(lambda: house.gateway._http.connections < 10, "the crowd is gone", within_s=30)


@on_uvloop
async def test_five_hundred_idle_connections_leave_a_stream_untouched(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    await idle_connections(nats_server, redis_server, 500)


@pytest.mark.long
@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < FILES_FOR_MANY, reason=f"needs {FILES_FOR_MANY} open files"
)
@on_uvloop
async def test_ten_thousand_idle_connections_leave_a_stream_untouched(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    await idle_connections(nats_server, redis_server, MANY)


@pytest.mark.parametrize("kind", ["silent", "heads", "bodies"])
@on_uvloop
async def test_a_crowd_of_slow_clients_is_let_go_and_a_stream_is_untouched(
    nats_server: NatsServer, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("services.gateway.http.bodies.GRACE_S", 1.0)
    nats, redis = nats_server.settings(prefix=f"slow{kind}"), redis_server.settings()
    bounds = {"head_timeout_s": 1.0, "body_timeout_s": 2.0, "max_connections": 2000, "max_connections_per_peer": 2000}
    async with (
        open_house(nats, redis, instance=f"gateway-{kind}", max_streams=64, **bounds) as house,
        AsyncOpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0, timeout=20) as client,
    ):
        async with streaming_through(house, client):
            with Crowd(house.port, kind, 500) as crowd:
                await house.until(lambda: house.gateway._http.connections > 100, "the crowd", within_s=30)
                house.fleet.may_speak.set()
                answer = await client.chat.completions.create(model="chat", messages=HELLO)
                assert answer.choices[0].message.content == TEXT
                await seen(crowd, "closed", 500)
        await house.empty()


@on_uvloop
async def test_connections_above_the_bound_are_turned_away_with_a_reason_and_streams_go_on(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="bound"), redis_server.settings()
    async with (
        open_house(nats, redis, instance="gateway-bound", max_connections=100, max_connections_per_peer=60) as house,
        AsyncOpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0, timeout=20) as client,
    ):
        async with streaming_through(house, client):
            await client.models.list()  # a second connection, kept by the client
            counts = house.gateway._http._door.crowd.counts
            with Crowd(house.port, "idle", 300) as crowd:
                found = await seen(crowd, "closed", 242)
                assert found["open"] == 58
                assert found["refused"] > 0  # those that could be told were told
                assert counts.refused_peer == 242
                assert (await client.models.list()).data
            await connections(house, 2)
        peers = house.gateway._http._door.crowd
        assert sum(peers._by_peer.values()) == peers.size


@on_uvloop
async def test_a_flood_of_connections_leaves_a_stream_untouched(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="flood"), redis_server.settings()
    async with (
        open_house(nats, redis, instance="gateway-flood") as house,
        AsyncOpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0, timeout=20) as client,
    ):
        async with streaming_through(house, client):
            counts = house.gateway._http._door.crowd.counts
            with Crowd(house.port, "flood", 1):
                await house.until(lambda: counts.connections > 2000, "a flood", within_s=30)
                assert (await client.models.list()).data
        await house.until(lambda: house.gateway._http.connections <= 2, "nobody of the flood is left", within_s=30)


@on_uvloop
async def test_a_client_that_takes_nothing_of_a_whole_answer_is_cut_off(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="unread"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-unread", send_timeout_s=0.5) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1024)
        writer.transport.pause_reading()
        counts = house.gateway._http._door.crowd.counts
        while counts.readers_cut == 0:  # ends with the test's time at the latest
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 4)
            await asyncio.sleep(0.05)
        writer.transport.abort()
        assert reader is not None
        await connections(house, 0)
