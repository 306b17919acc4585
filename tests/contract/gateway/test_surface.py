"""Models, tokens, health, metrics, traces, drain: the rest of the HTTP surface.

Numbers in names are those of the OpenAI conformance list.
"""

import json

import openai
import pytest
from openai import AsyncOpenAI

from tests.contract.gateway.house import WORDS, House, open_house
from tests.contract.gateway.wire import HELLO, TEXT, parts, post, raw
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_31_http_in_its_less_common_forms_is_understood(house: House) -> None:
    body = json.dumps({"model": "chat", "messages": HELLO, "max_tokens": 1}).encode()
    url = "/v1/chat/completions"
    charset = await raw(house, post(url, body, "Content-Type: application/json; charset=utf-8"))
    assert parts(charset)[0] == 200
    expecting = await raw(house, post(url, body, "Expect: 100-continue"))
    assert expecting.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
    head = f"POST {url} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert parts(await raw(house, head + chunks))[0] == 200
    status, _, rest = parts(await raw(house, b"HEAD /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    assert (status, rest) == (200, b"")
    too_much = post(url, b"", "Expect: 100-continue").replace(b"Content-Length: 0", b"Content-Length: 100000000")
    assert (await raw(house, too_much, until=b"}}")).startswith(b"HTTP/1.1 413")  # so that the body is never sent
    twice = b'{"model":"no","model":"chat","messages":[{"role":"user","content":"x"}],"max_tokens":1}'
    assert parts(await raw(house, post(url, twice)))[0] == 200  # the last of duplicate keys counts


async def test_33_a_callers_trace_goes_on_to_the_worker(house: House, client: AsyncOpenAI) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    await client.chat.completions.create(
        model="chat", messages=HELLO, max_tokens=1, extra_headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    )
    assert trace in house.fleet.headers[0]["traceparent"]


async def test_34_a_draining_gateway_finishes_its_streams_and_takes_nothing_new(
    nats_server: NatsServer, redis_server: RedisServer
) -> None:
    nats, redis = nats_server.settings(prefix="gatewaydrain"), redis_server.settings()
    async with open_house(nats, redis, instance="gateway-2") as house:
        async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0, timeout=10) as client:
            house.fleet.may_speak.clear()
            stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
            house.stopping.ask("the test wants it")
            await house.until(lambda: house.gateway._desk.draining, "the drain")
            assert "draining" in house.gateway.why_not_ready()
            with pytest.raises(openai.InternalServerError) as refused:
                await client.chat.completions.create(model="chat", messages=HELLO)
            assert (refused.value.status_code, refused.value.code) == (503, "draining")
            assert refused.value.response.headers["retry-after"]
            house.fleet.may_speak.set()
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == TEXT
        assert await house.life == 0


async def test_30_models_are_listed_and_found(house: House, client: AsyncOpenAI) -> None:
    listed = (await client.models.list()).data
    assert [(m.id, m.object, m.owned_by) for m in listed] == [("chat", "model", "baton")]
    assert (await client.models.retrieve("chat")).id == "chat"
    assert (await client.models.retrieve("chat/sim")).id == "chat"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nothing")


async def test_the_scenario_header_wins_over_the_model(house: House, client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="gpt-9", messages=HELLO, max_tokens=1, extra_headers={"x-baton-scenario": "chat"}
    )
    assert answer.choices[0].message.content == WORDS[0]
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="chat", messages=HELLO, extra_headers={"x-baton-scenario": "no"})


async def test_tokens_come_and_go(house: House) -> None:
    _, _, body = parts(await raw(house, post("/tokenize", json.dumps({"model": "chat", "prompt": "h\u00e9"}).encode())))
    assert json.loads(body)["tokens"] == [256, 104, 0xC3, 0xA9]
    _, _, body = parts(await raw(house, post("/detokenize", b'{"model":"chat","tokens":[104,195,169]}')))
    assert json.loads(body) == {"prompt": "h\u00e9"}


async def test_health_and_metrics_are_served(house: House, client: AsyncOpenAI) -> None:
    await client.chat.completions.create(model="chat", messages=HELLO)
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="chat", messages=[])
    for path, word in (("/healthz", b"ok"), ("/readyz", b"ready"), ("/metrics", b"baton_gateway_frames_tokens_total")):
        status, _, body = parts(
            await raw(house, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        )
        assert status == 200
        assert word in body
    assert b'baton_gateway_refusals_total{code="bad_request"}' in body
    assert b'baton_gateway_requests_total{route="/v1/chat/completions",status="200"}' in body
    assert b'gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name="chat"' in body


async def test_a_long_prompt_is_tokenised_without_stopping_the_loop(house: House, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.completions.create(model="chat", prompt="x" * 200_000)
    assert error.value.code == "context_length_exceeded"
