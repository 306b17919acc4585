"""A gateway behind a proxy: whom its access log names, and whose connections it bounds."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

from tests.contract.gateway.house import House, open_house
from tests.contract.gateway.wire import parts, raw
from tests.servers import NatsServer, RedisServer


def get(*headers: str, close: bool = True) -> bytes:
    lines = ["GET /v1/models HTTP/1.1", "Host: x", *(["Connection: close"] if close else []), *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def crowd(house: House, stack: AsyncExitStack, count: int) -> list[int]:
    """Open connections that stay open; the status that each gets."""
    statuses = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        stack.callback(writer.close)
        writer.write(get(close=False))
        statuses.append(int((await reader.readuntil(b"\r\n")).split()[1]))
    return statuses


async def test_the_access_log_names_who_stands_behind_a_trusted_proxy_and_believes_nobody_else(
    nats_server: NatsServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "access.log"
    nats, redis = nats_server.settings(prefix="proxied"), redis_server.settings()
    proxies = ("127.0.0.0/8", "192.0.2.0/24")
    async with open_house(nats, redis, instance="gateway-proxied", access_log=str(file)) as house:
        sent = [
            ("X-Forwarded-For: 198.51.100.1, 203.0.113.9, 192.0.2.5",),
            ("X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 203.0.113.10:4711"),
            ('Forwarded: for="[2001:db8::17]:4711";proto=https',),
            ("X-Forwarded-For: \xe9\xff, , unknown", "Forwarded: for=203.0.113.9"),
            (),
        ]
        for believed in (proxies, ()):
            assert await house.reload(trusted_proxies=believed) == []
            for headers in sent:
                assert parts(await raw(house, get(*headers)))[0] == 200
        await house.reload()  # writes what is pending
        clients = [json.loads(line)["client"] for line in file.read_text().splitlines()]
        here = "127.0.0.1"
        assert clients == ["203.0.113.9", "203.0.113.10", "2001:db8::17", here, here, *[here] * 5]


async def test_connections_of_a_trusted_proxy_are_bounded_with_all_others_and_not_as_one_clients(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="proxybound"), redis_server.settings()
    bounds = {"max_connections": 6, "max_connections_per_peer": 2, "trusted_proxies": ("127.0.0.1",)}
    async with open_house(nats, redis, instance="gateway-proxybound", **bounds) as house:
        counts = house.gateway._http._door.crowd.counts
        async with AsyncExitStack() as stack:
            assert await crowd(house, stack, 7) == [200] * 6 + [429]
            assert (counts.refused_full, counts.refused_peer) == (1, 0)
        await house.until(lambda: house.gateway._http.connections == 0, "all have left")
        assert await house.reload(trusted_proxies=()) == []
        async with AsyncExitStack() as stack:
            assert await crowd(house, stack, 3) == [200, 200, 429]
            assert (counts.refused_full, counts.refused_peer) == (1, 1)
        await house.until(lambda: house.gateway._http.connections == 0, "all have left")
        assert not house.gateway._http._door.crowd._by_peer
