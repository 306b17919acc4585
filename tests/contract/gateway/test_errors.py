"""Errors over HTTP: objects, statuses, headers, and a gateway that lives on.

Numbers in names are those of the OpenAI conformance list.
"""

import asyncio
import json

import openai
import pytest
from openai import AsyncOpenAI

from shared.errors import Code
from shared.messages import Rejected
from tests.contract.gateway.house import House
from tests.contract.gateway.wire import HELLO, TEXT, parts, post, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")


BAD = [
    ("/v1/chat/completions", b"{", 400, None),
    ("/v1/chat/completions", b'{"model":"chat"}', 400, "messages"),
    ("/v1/chat/completions", b'{"messages":[{"role":"user","content":"x"}]}', 400, "model"),
    ("/v1/chat/completions", b'{"model":"other","messages":[{"role":"user","content":"x"}]}', 404, "model"),
    ("/v1/chat/completions", b'{"model":"chat/other","messages":[{"role":"user","content":"x"}]}', 404, "model"),
    ("/v1/chat/completions", b'{"model":"chat","messages":[{"role":"user","content":"\xff"}]}', 400, None),
    ("/v1/chat/completions", b'{"model":"chat","messages":' + b"[" * 100_000, 400, "messages[0]"),
    ("/v1/chat/completions", b'{"model":"chat","metadata":{"a":' + b"[" * 100_000, 400, None),
    ("/v1/chat/completions", b'{"model":"chat","temperature":NaN,"messages":[]}', 400, None),
    ("/v1/completions", b'{"model":"chat","prompt":"x","logit_bias":{"999999":1}}', 400, "logit_bias"),
    ("/v1/completions", b'{"model":"chat","prompt":[999999]}', 400, "prompt"),
    ("/v1/completions", b'{"model":"chat","prompt":["a"],"logprobs":1,"echo":true}', 400, "echo"),
    ("/tokenize", b'{"model":"chat"}', 400, "prompt"),
    ("/detokenize", b'{"model":"chat","tokens":[999999]}', 400, "tokens"),
    ("/nowhere", b"{}", 404, None),
    ("/v1/models", b"{}", 405, None),
]


@pytest.mark.parametrize(("path", "body", "status", "param"), BAD)
async def test_every_error_is_an_error_object_with_a_request_id(
    house: House, path: str, body: bytes, status: int, param: str | None
) -> None:
    got, headers, rest = parts(await raw(house, post(path, body, "X-Request-Id: mine-7")))
    error = json.loads(rest)["error"]
    assert (got, error["param"]) == (status, param)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert headers["content-type"].startswith("application/json")
    assert headers["x-request-id"] == "mine-7"


async def test_a_body_that_is_too_large_is_refused_before_all_of_it_has_come(house: House) -> None:
    head = post("/v1/chat/completions", b"")[:-2].replace(b"Content-Length: 0", b"Content-Length: 100000000")
    got = await raw(house, head + b"\r\n" + b"x" * 1000, until=b'"code"')
    status, _, body = parts(got)
    assert status == 413
    assert b"1000000 bytes" in body
    chunked = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    got = await raw(house, chunked + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 32, until=b'"code"')
    assert parts(got)[0] == 413


async def test_what_is_not_http_gets_an_error_object_and_the_gateway_lives(house: House, client: AsyncOpenAI) -> None:
    for nonsense in (b"\x00\xff" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"):
        status, _, body = parts(await raw(house, nonsense, until=b"}}"))
        assert status == 400
        assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert (await client.models.list()).data


async def test_errors_map_to_the_clients_exceptions(house: House, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="nothing", messages=HELLO)
    assert missing.value.code == "model_not_found"
    assert missing.value.request_id
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model="chat", messages=HELLO, temperature=9)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as tools:
        await client.chat.completions.create(
            model="chat", messages=HELLO, tools=[{"type": "custom", "custom": {"name": "f"}}]
        )
    assert tools.value.param == "tools[0].type"


async def test_24_25_a_full_gateway_says_429_and_when_to_come_back(house: House, client: AsyncOpenAI) -> None:
    house.fleet.accepts.clear()
    held = [asyncio.ensure_future(client.chat.completions.create(model="chat", messages=HELLO, n=16)) for _ in range(2)]
    await house.until(lambda: len(house.gateway._relay) == 32, "a full gateway")
    with pytest.raises(openai.RateLimitError) as full:
        await client.chat.completions.create(model="chat", messages=HELLO)
    assert full.value.type == "server_overloaded"
    assert 1 <= int(full.value.response.headers["retry-after"]) < 60
    assert full.value.response.headers["x-baton-reason"] == "gateway_full"
    house.fleet.accepts.set()
    for answer in await asyncio.gather(*held):
        assert answer.choices[0].message.content == TEXT


async def test_24_without_workers_it_says_503(house: House, client: AsyncOpenAI) -> None:
    house.fleet.present = False
    await house.until(lambda: bool(house.gateway.why_not_ready()), "not ready")
    with pytest.raises(openai.InternalServerError) as absent:
        await client.with_options(timeout=30).chat.completions.create(model="chat", messages=HELLO)
    assert absent.value.status_code == 503
    assert 1 <= int(absent.value.response.headers["retry-after"]) < 60
    assert parts(await raw(house, b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))[0] == 503
    assert (await client.models.list()).data  # works while workers are down
    house.fleet.present = True
    await house.until(lambda: not house.gateway.why_not_ready(), "ready again")


async def test_28_a_clients_own_error_is_not_tried_again_and_says_nothing_against_the_worker(
    house: House, client: AsyncOpenAI
) -> None:
    house.fleet.rejects = Rejected("", 0, "", Code.CONTEXT_TOO_LONG, "too long for this worker", retryable=False)
    for _ in range(5):
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="chat", messages=HELLO)
    assert len(house.fleet.requests) == 5
    house.fleet.rejects = None
    answer = await client.chat.completions.create(model="chat", messages=HELLO)
    assert answer.choices[0].message.content == TEXT
