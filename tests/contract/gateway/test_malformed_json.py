"""Malformed JSON, and every field of every request with values of every wrong kind: a 4xx that says so, never a 5xx."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from services.gateway.http.openapi import document
from tests.contract.gateway.corpora import BODY, JSON, JSON_SPICES, chance, mutated
from tests.contract.gateway.house import House, open_house
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "secret-key"
TOGETHER = 32
GOOD: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": json.loads(BODY),
    "/v1/completions": {"model": "chat", "prompt": "hello", "max_tokens": 2},
    "/v1/responses": {"model": "chat", "input": "hello", "max_output_tokens": 2},
    "/v1/moderations": {"input": "hello"},
    "/tokenize": {"model": "chat", "prompt": "hello"},
    "/detokenize": {"model": "chat", "tokens": [97]},
}
WRONG: list[Any] = [
    True, 0, -1, 1, 2**31, 2**53, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, -1e308, "", "x", "\x00", "\u2028",
    "\U0001f469\u200d" * 200, "y" * 5_000, [], [[]], [None], [1, "x"], [{}], {}, {"a": 1}, {"": {}}, {"type": "text"},
    {"type": "function"}, {"type": "json_schema"}, {"5": 1}, {"-1": 1e9}, "resp_1", "chat/other", ["x"] * 300,
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    nats, redis = nats_server.settings(prefix="badjson"), redis_server.settings()
    async with open_house(nats, redis, max_body_bytes=1_000_000, access_log="off", api_keys=(KEY,)) as made:
        yield made
        await made.empty()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(house: House) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(house.url, timeout=aiohttp.ClientTimeout(30)) as made:
        yield made


async def send(session: aiohttp.ClientSession, path: str, body: bytes) -> tuple[int, Any]:
    """Post a body; the status, and the answer where it is JSON."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    async with session.post(path, data=body, headers=headers) as answer:
        whole = await answer.read()
        streamed = answer.content_type == "text/event-stream"
        return answer.status, whole if streamed else json.loads(whole)


def judge(sent: object, status: int, said: Any) -> None:
    """A success, or an error object that names no fault of the server's."""
    assert status == 200 or 400 <= status < 500, f"{sent!r}: {status} {said}"
    if status != 200:
        assert set(said["error"]) == {"message", "type", "param", "code"}, sent
        assert said["error"]["message"], sent


async def all_of(session: aiohttp.ClientSession, requests: list[tuple[str, bytes]]) -> list[int]:
    """Send many, some at a time, and judge each answer."""
    statuses = []
    for first in range(0, len(requests), TOGETHER):
        some = requests[first : first + TOGETHER]
        got = await asyncio.gather(*(send(session, *one) for one in some))
        for (path, body), (status, said) in zip(some, got, strict=True):
            judge((path, body[:2_000]), status, said)
            statuses.append(status)
    return statuses


async def serves(house: House, session: aiohttp.ClientSession) -> None:
    for path, good in GOOD.items():
        if path == "/v1/moderations":
            continue  # no moderator is configured
        assert (await send(session, path, json.dumps(good).encode()))[0] == 200
    await house.empty()


@pytest.mark.parametrize("path", GOOD)
async def test_a_body_that_is_no_request_is_a_400_on_every_route(
    house: House, session: aiohttp.ClientSession, path: str
) -> None:
    statuses = await all_of(session, [(path, body) for body in JSON.values()])
    tolerated = {"a control character", "a key twice, badly", "a schema that holds itself"}
    for name, status in zip(JSON, statuses, strict=True):
        assert status in (400, 404, 413) or name in tolerated, (name, status)
    await serves(house, session)


@pytest.mark.parametrize("path", GOOD)
async def test_every_field_takes_every_wrong_value_without_a_fault_of_the_servers(
    house: House, session: aiohttp.ClientSession, path: str
) -> None:
    described = document()
    name = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    fields = set(described["components"]["schemas"][name.rsplit("/", 1)[1]]["properties"]) - {"timeout"}
    fields |= {"unknown", "messages", "model", "\u00e9\x00"}
    requests = [
        (path, json.dumps({**GOOD[path], field: value, **more}).encode())
        for field in sorted(fields)
        for value in WRONG
        for more in ({}, {"stream": True})
        if not more or (path.startswith("/v1/") and field != "stream" and value in (True, 1, "x", [], {}))
    ]
    statuses = await all_of(session, requests)
    assert 400 in statuses
    await serves(house, session)


async def test_a_deadline_may_be_missed_but_breaks_nothing(house: House, session: aiohttp.ClientSession) -> None:
    for value in [*WRONG, 1e-9, 0.001]:
        status, said = await send(
            session, "/v1/completions", json.dumps({**GOOD["/v1/completions"], "timeout": value}).encode()
        )
        assert status in (200, 400, 429, 504), (value, said)


@pytest.mark.parametrize("key", ["", "\xff\xfe", "\xed\xa0\x80", "x" * 5_000, "a b", "\t", "%00"])
async def test_a_strange_key_is_a_401(house: House, key: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    head = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\r\n"
    writer.write(head.encode("latin-1"))
    got = await asyncio.wait_for(reader.read(), 10)
    assert got.startswith(b"HTTP/1.1 401"), got[:200]
    writer.close()


async def fuzz(house: House, session: aiohttp.ClientSession, seed: int, times: int) -> None:
    draw = chance(seed)
    goods = [(path, json.dumps(good).encode()) for path, good in GOOD.items()]
    requests = []
    for _ in range(times):
        path, good = draw.choice(goods)
        requests.append((path, mutated(good, draw, JSON_SPICES)))
    statuses = await all_of(session, requests)
    assert {200, 400} <= set(statuses)  # some are still good
    await serves(house, session)


async def test_good_bodies_with_a_few_bytes_changed_get_no_5xx(house: House, session: aiohttp.ClientSession) -> None:
    await fuzz(house, session, seed=20261101, times=1_500)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_very_many_changed_bodies_get_no_5xx(house: House, session: aiohttp.ClientSession) -> None:
    await fuzz(house, session, seed=secrets.randbits(32), times=60_000)
