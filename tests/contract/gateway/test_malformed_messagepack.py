"""Malformed MessagePack from direct NATS clients: an error reply each time, never silence, and the gateway lives on."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from tests.contract.gateway.corpora import GOOD, MESSAGEPACK, MESSAGEPACK_SPICES, PACKED, chance, mutated
from tests.contract.gateway.direct import replies_to
from tests.contract.gateway.house import WORDS, House, open_house
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOGETHER = 32
OURS = {"internal_error", "server_error", "engine_failed", "no_capacity", "worker_lost"}
"""Codes that would blame the server."""
WRONG: list[Any] = [
    None, True, -1, 0, 2**63, -(2**63), 0.5, float("nan"), float("inf"), "", "x", b"", b"x", [], [None], [[]], {},
    {1: 2}, {"a": b"b"}, msgpack.ExtType(5, b"x"), msgpack.Timestamp(1), ["x"] * 300,
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    settings = nats_server.settings(prefix="badpack")
    async with open_house(settings, redis_server.settings(), access_log="off") as made:
        yield made
        await made.empty()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(house: House, nats_server: NatsServer) -> AsyncIterator[Client]:
    settings = nats_server.settings()
    made = await nats.connect(settings.url, user=settings.user, password=settings.password)
    yield made
    await made.close()


async def ask(house: House, client: Client, data: bytes) -> dict[str, Any]:
    """Send bytes; the last reply, which must come."""
    return (await replies_to(house, client, data))[-1]


async def all_of(house: House, client: Client, requests: list[bytes]) -> list[str]:
    """Send many, some at a time; the error code of each, empty for an answer."""
    codes = []
    for first in range(0, len(requests), TOGETHER):
        some = requests[first : first + TOGETHER]
        got = await asyncio.gather(*(ask(house, client, data) for data in some))
        for data, reply in zip(some, got, strict=True):
            error = reply.get("error", {"code": "", "message": "none"})
            assert error["code"] not in OURS, (data[:500], error)
            assert error["message"], data[:500]
            codes.append(error["code"])
    return codes


async def serves(house: House, client: Client) -> None:
    assert (await ask(house, client, PACKED))["text"] == "".join(WORDS[:2])
    await house.empty()


async def test_every_malformed_message_gets_an_error_reply(house: House, client: Client) -> None:
    codes = await all_of(house, client, list(MESSAGEPACK.values()))
    for name, code in zip(MESSAGEPACK, codes, strict=True):
        assert code in ("malformed_message", "bad_request", "context_length_exceeded"), (name, code)
    await serves(house, client)


@pytest.mark.parametrize("shape", [CompletionRequest, ChatRequest])
async def test_every_field_takes_every_wrong_value(house: House, client: Client, shape: type) -> None:
    good: dict[str, Any] = GOOD if shape is CompletionRequest else {"messages": [{"role": "user", "content": "hello"}]}
    fields = {*shape.__struct_fields__, "v", "api_key", "unknown"} - {"timeout"}  # which may rightly be missed
    requests = [msgpack.packb({**good, field: value}) for field in sorted(fields) for value in WRONG]
    codes = await all_of(house, client, requests)
    assert {"", "bad_request"} <= set(codes)
    await serves(house, client)


async def test_schemas_that_json_cannot_say_are_refused(house: House, client: Client) -> None:
    ask_for = {"messages": [{"role": "user", "content": "hello"}], "tool_choice": "required"}
    requests = []
    for wrong in ({"a": b""}, {"a": b"x"}, {"a": {b"key": 1}}, {"a": msgpack.Timestamp(1)}):
        function = {"name": "f", "parameters": wrong}
        requests.append(msgpack.packb({**ask_for, "tools": [{"type": "function", "function": function}]}))
    assert await all_of(house, client, requests) == ["bad_request"] * 4
    await serves(house, client)


async def fuzz(house: House, client: Client, seed: int, times: int) -> None:
    draw = chance(seed)
    codes = await all_of(house, client, [mutated(PACKED, draw, MESSAGEPACK_SPICES) for _ in range(times)])
    assert {"", "bad_request", "malformed_message"} <= set(codes)
    await serves(house, client)


async def test_good_messages_with_a_few_bytes_changed_always_get_a_reply(house: House, client: Client) -> None:
    await fuzz(house, client, seed=20261101, times=1_000)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_very_many_changed_messages_always_get_a_reply(house: House, client: Client) -> None:
    await fuzz(house, client, seed=secrets.randbits(32), times=50_000)
