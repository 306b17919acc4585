"""Malformed HTTP on raw connections: an error that says so, or a closed connection; never a 5xx, never a hang.

The gateway's own deadlines are short here, so that every connection is ended by it.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.gateway.corpora import BODY, CHAT, CHUNKED, HTTP, HTTP_SPICES, SIZED, chance, chunks, http, mutated
from tests.contract.gateway.house import House, open_house
from tests.contract.gateway.wire import parts, post, raw
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOGETHER = 160
DEADLINE_S = 30.0
TOLERATED = {"two spaces", "pipelined good and bad"}
"""HTTP lets a server read the one, and a good request comes before the other's bad one."""
GOOD = [
    http("GET /v1/models HTTP/1.1", "Host: x", "Accept: */*"),
    http(CHAT, "Host: x", "Content-Type: application/json", SIZED, body=BODY),
    http(CHAT, "Host: x", CHUNKED, body=chunks((b"%x" % len(BODY), BODY)) + b"0\r\n\r\n"),
    http(CHAT, "Host: x", SIZED, "Expect: 100-continue", body=BODY),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    nats, redis = nats_server.settings(prefix="badhttp"), redis_server.settings()
    short = {"head_timeout_s": 1.0, "body_timeout_s": 1.0, "keep_alive_s": 0.5}
    async with open_house(nats, redis, max_body_bytes=1_000_000, access_log="off", **short) as made:
        yield made
        await made.empty()


async def exchange(house: House, data: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes and read until the gateway ends the connection, which it must."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    got = b""
    try:
        async with asyncio.timeout(DEADLINE_S):
            try:
                writer.write(data)
                await writer.drain()
                if half_close:
                    writer.write_eof()
                while more := await reader.read(65_536):
                    got += more
            except ConnectionError:  # ended while we were still sending
                pass
    except TimeoutError:
        raise AssertionError(f"the gateway neither answers nor closes; it had sent {got[:500]!r}") from None
    finally:
        writer.transport.abort()
    return got


def answers(got: bytes) -> list[tuple[int, bytes]]:
    """Take apart what came: whole HTTP answers, one after another, and nothing else."""
    found = []
    while got:
        head, _, rest = got.partition(b"\r\n\r\n")
        status, headers, _ = parts(head + b"\r\n\r\n")
        if status == 100:
            got = rest
            continue
        size = int(headers["content-length"])
        assert len(rest) >= size, "an answer is cut"
        found.append((status, rest[:size]))
        got = rest[size:]
    return found


def judge(name: str, got: bytes) -> list[int]:
    """Every answer that is no success is an error object; none is a 5xx."""
    statuses = []
    for status, body in answers(got):
        assert status < 500, f"{name}: {status} {body!r}"
        if status >= 400:
            error = json.loads(body)["error"]
            assert set(error) == {"message", "type", "param", "code"}, name
            assert error["message"]
        statuses.append(status)
    return statuses


async def serves(house: House) -> None:
    """A good request is answered."""
    status, _, _ = parts(await raw(house, post("/v1/chat/completions", BODY)))
    assert status == 200


@pytest.mark.parametrize("half_close", [False, True])
async def test_every_malformed_request_is_refused_or_its_connection_closed(house: House, half_close: bool) -> None:  # noqa: FBT001
    got = await asyncio.gather(*(exchange(house, data, half_close=half_close) for data in HTTP.values()))
    for name, answer in zip(HTTP, got, strict=True):
        statuses = judge(name, answer)
        if name not in TOLERATED:
            assert all(status >= 400 for status in statuses), f"{name}: {statuses}"
    await serves(house)


SMUGGLING = [name for name, data in HTTP.items() if b"/smuggled" in data]


@pytest.mark.parametrize("name", SMUGGLING)
async def test_where_bodies_may_end_in_two_places_nothing_after_them_is_read(house: House, name: str) -> None:
    got = await exchange(house, HTTP[name])
    assert [status for status, _ in answers(got)] == [400], got[:300]
    assert b"smuggled" not in got


async def test_a_header_of_the_clients_never_becomes_one_of_ours(house: House) -> None:
    for given in ("a\tb", "a b", "x" * 129, "\xe9", ""):
        data = http("GET /v1/nothing HTTP/1.1", "Host: x", "Connection: close", f"X-Request-Id: {given}")
        _, headers, _ = parts(await exchange(house, data))
        assert headers["x-request-id"].startswith("req-")


async def fuzz(house: House, seed: int, times: int) -> None:
    draw = chance(seed)
    for _ in range(times // TOGETHER):
        sent = [mutated(draw.choice(GOOD), draw, HTTP_SPICES) for _ in range(TOGETHER)]
        got = await asyncio.gather(*(exchange(house, data) for data in sent))
        for data, answer in zip(sent, got, strict=True):
            judge(repr(data), answer)
    await serves(house)
    await house.empty()


async def test_good_requests_with_a_few_bytes_changed_get_no_5xx_and_no_hang(house: House) -> None:
    await fuzz(house, seed=20261101, times=320)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_very_many_changed_requests_get_no_5xx_and_no_hang(house: House) -> None:
    await fuzz(house, seed=secrets.randbits(32), times=16_000)
