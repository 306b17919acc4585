"""Requests that are still being read when something comes between: bytes that are no HTTP, the gateway's own end."""

import asyncio
import json

import pytest

from services.gateway.access.caller import Caller
from tests.contract.gateway.house import House, open_house
from tests.contract.gateway.wire import HELLO, parts, post
from tests.servers import NatsServer, RedisServer

CHAT = "/v1/chat/completions"
ASKED = json.dumps({"model": "chat", "messages": HELLO, "max_tokens": 1}).encode()
CHUNKED = (
    post(CHAT, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked").replace(b"Connection: close", b"A: b")
)


async def begun(house: House, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send what is not a whole request, and wait until it is being read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(request)
    await house.until(lambda: house.gateway._desk.in_flight == 1, "the request")
    return reader, writer


async def rest(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    async with asyncio.timeout(5):
        return parts(await reader.read())


@pytest.mark.parametrize("chunk", [b"zz\r\n{}\r\n", b"-2\r\n{}\r\n", b"2\r\n{}xx0\r\n\r\n", b"f" * 17 + b"\r\n{}"])
async def test_a_chunk_that_is_none_is_refused_at_once_and_not_waited_for(
    nats_server: NatsServer, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, chunk: bytes
) -> None:
    nats, redis = nats_server.settings(prefix="badchunk"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-badchunk") as house:
        reader, writer = await begun(house, CHUNKED)
        writer.write(chunk)
        status, headers, body = await rest(reader)
        assert (status, headers["connection"]) == (400, "close")
        assert "the body is not valid HTTP" in json.loads(body)["error"]["message"]
        writer.close()
        bodies = house.gateway._http._bodies
        await house.until(lambda: (bodies.slow, bodies.held, house.gateway._http.connections) == (0, 0, 0), "nothing")
        assert house.gateway._http._door.crowd.counts.malformed == 1
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("waits_for", ["its body", "something else"])
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_request_that_waits_when_its_gateway_stops_is_told_so(
    nats_server: NatsServer,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    waits_for: str,
    at_once: bool,  # noqa: FBT001
) -> None:
    async def never(_key: str) -> Caller:
        await asyncio.Event().wait()
        raise AssertionError

    nats, redis = nats_server.settings(prefix="readstop"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-readstop") as house:
        house.ends_with = int(at_once)
        if waits_for == "something else":
            monkeypatch.setattr(house.gateway._desk, "identify", never)
        reader, writer = await begun(house, post(CHAT, ASKED)[:-5])
        house.stopping.signalled("SIGTERM")
        if at_once:
            await house.until(lambda: house.gateway._desk.draining, "the drain")
            house.stopping.signalled("SIGTERM")
        status, headers, body = await rest(reader)
        assert (status, json.loads(body)["error"]["code"]) == (503, "draining")
        assert headers["connection"] == "close"
        writer.close()
