"""The gateway's HTTP surface, through the real openai client and raw connections.

Numbers in names are those of the OpenAI conformance list.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from shared.errors import Code
from shared.messages import Rejected, unpack_tokens
from tests.contract.gateway_house import WORDS, House, failed, open_house
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXT = "".join(WORDS)
HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)  # its thread is the module's, not the first test's
    nats, redis = nats_server.settings(prefix="gatewayhttp"), redis_server.settings()
    async with open_house(nats, redis, max_body_bytes=1_000_000, max_streams=32) as house:
        yield house


@pytest_asyncio.fixture(loop_scope="module")
async def house(one_house: House) -> AsyncIterator[House]:
    yield one_house
    one_house.fleet.calm()
    await one_house.empty()


@pytest_asyncio.fixture(loop_scope="module")
async def client(house: House) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key="any", max_retries=0, timeout=10) as made:
        yield made


async def raw(house: House, request: bytes, *, until: bytes = b"") -> bytes:
    """Send bytes on a connection of its own and read its answer to the end, or until some bytes have come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    try:
        writer.write(request)
        got = b""
        async with asyncio.timeout(10):
            while not (until and until in got):
                data = await reader.read(65536)
                if not data:
                    break
                got += data
        return got
    finally:
        writer.close()
        await writer.wait_closed()


async def collect(stream: Any, got: list[str]) -> None:
    async for chunk in stream:  # one by one: what came before an error is kept
        got.append(chunk.choices[0].delta.content or "")  # noqa: PERF401


def post(path: str, body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: x", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, body


# ---- streaming


async def test_1_to_7_a_streamed_chat_has_the_right_chunks_in_the_right_order(
    house: House, client: AsyncOpenAI
) -> None:
    stream = await client.chat.completions.create(
        model="chat", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1
    assert chunks[0].object == "chat.completion.chunk"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert sum(bool(c.choices) and c.choices[0].delta.role is not None for c in chunks) == 1
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert [c.choices[0].finish_reason for c in chunks if c.choices] == [None] * (len(WORDS) + 1) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(WORDS)
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 1  # type: ignore[union-attr]
    assert all(c.usage is None for c in chunks[:-1])
    assert unpack_tokens(house.fleet.requests[0].tokens)[0] == 256  # the template's BOS, once


async def test_1_and_7_the_bytes_of_a_stream_are_framed_and_end_at_once(house: House) -> None:
    body = json.dumps({"model": "chat", "messages": HELLO, "stream": True}).encode()
    status, headers, rest = parts(await raw(house, post("/v1/chat/completions", body)))
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers
    assert "content-encoding" not in headers
    assert headers["x-request-id"].startswith("req-")
    assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert b"\nid: chatcmpl-" in rest


async def test_11_an_http_1_0_client_gets_the_same_events_unchunked(house: House) -> None:
    body = json.dumps({"model": "chat", "messages": HELLO, "stream": True}).encode()
    status, headers, rest = parts(await raw(house, post("/v1/chat/completions", body, version="1.0")))
    assert status == 200
    assert "transfer-encoding" not in headers
    assert rest.endswith(b"data: [DONE]\n\n")
    events = [line[6:] for line in rest.decode().split("\n") if line.startswith("data: {")]
    assert "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in events) == TEXT


async def test_4_and_14_the_whole_answer_equals_the_streamed_one(house: House, client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="chat", messages=HELLO)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer._request_id


async def test_8_an_error_after_the_first_byte_is_an_event_without_done(house: House, client: AsyncOpenAI) -> None:
    house.fleet.fails_at[0, 3] = failed(Code.ENGINE_FAILED, retryable=False)
    stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
    got: list[str] = []
    with pytest.raises(openai.APIError) as error:
        await collect(stream, got)
    assert "".join(got) == "".join(WORDS[:3])
    assert error.value.code == "engine_failed"
    body = json.dumps({"model": "chat", "messages": HELLO, "stream": True}).encode()
    answer = await raw(house, post("/v1/chat/completions", body))
    assert b"[DONE]" not in answer
    assert b'data: {"error":' in answer


async def test_10_before_the_first_byte_an_error_has_its_own_status(house: House, client: AsyncOpenAI) -> None:
    house.fleet.rejects = Rejected("", 0, "", Code.CONTEXT_TOO_LONG, "too long for this worker", retryable=False)
    with pytest.raises(openai.BadRequestError) as error:
        await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
    assert error.value.code == "context_length_exceeded"


async def test_a_stream_goes_on_after_its_worker_failed_and_nothing_is_lost(house: House, client: AsyncOpenAI) -> None:
    house.fleet.fails_at[0, 4] = failed(Code.OVERLOADED, retryable=True)
    stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == TEXT
    first, second = house.fleet.requests
    assert second.attempt > first.attempt
    assert (second.prompt_tokens, second.generated) == (first.prompt_tokens, 4)
    assert unpack_tokens(second.tokens)[first.prompt_tokens :] == [0, 1, 2, 3]
    assert second.sampling == first.sampling


@pytest.mark.parametrize("phase", ["offered", "accepted", "streaming"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_12_a_client_that_leaves_is_cancelled_in_every_phase(
    house: House,
    phase: str,
    streamed: bool,  # noqa: FBT001
) -> None:
    if phase == "offered":
        house.fleet.accepts.clear()
    if phase == "accepted":
        house.fleet.may_speak.clear()
    if phase == "streaming":
        house.fleet.fails_at[0, 3] = failed(Code.OVERLOADED, retryable=True)
        house.fleet.rejects = None
    body = json.dumps({"model": "chat", "messages": HELLO, "stream": streamed, "n": 2}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(post("/v1/chat/completions", body))
    await house.until(lambda: len(house.fleet.requests) >= 2, "both offers")
    if phase == "streaming":
        house.fleet.accepts.clear()  # the next attempts stay unanswered, so the stream stands
        if streamed:
            await reader.readuntil(b"data: {")
    writer.transport.abort()
    await house.empty()
    house.fleet.accepts.set()
    await house.until(lambda: len({c.request_id for c in house.fleet.cancels}) == 2, "both cancellations")


async def test_13_a_client_that_does_not_read_is_cut_off_and_others_do_not_notice(
    house: House, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.contract.gateway_house.WORDS", ["x" * 100_000] * 200)
    body = json.dumps({"model": "chat", "messages": HELLO, "stream": True, "max_tokens": 200}).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(post("/v1/chat/completions", body))
    answer = await client.chat.completions.create(model="chat", messages=HELLO, max_tokens=200)
    assert len(answer.choices[0].message.content or "") == 20_000_000
    await house.empty()
    assert house.fleet.cancels
    writer.transport.abort()


# ---- sampling and forms


async def test_17_choices_are_independent_requests_and_the_prompt_counts_once(
    house: House, client: AsyncOpenAI
) -> None:
    answer = await client.chat.completions.create(model="chat", messages=HELLO, n=3, max_tokens=2, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"Once upon"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    assert answer.usage.prompt_tokens == house.fleet.requests[0].prompt_tokens
    assert sorted((r.sampling.seed, r.sampling.choice) for r in house.fleet.requests) == [(7, 0), (7, 1), (7, 2)]
    assert len({r.request_id for r in house.fleet.requests}) == 3


async def test_17_streamed_choices_each_have_one_role_and_one_ending(house: House, client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="chat", messages=HELLO, n=2, stream=True)
    chunks = [chunk.choices[0] async for chunk in stream]
    for index in (0, 1):
        mine = [choice for choice in chunks if choice.index == index]
        assert mine[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in mine) == TEXT
        assert [choice.finish_reason for choice in mine if choice.finish_reason] == ["stop"]
        assert mine[-1].finish_reason == "stop"


async def test_16_limits_are_kept_and_the_latter_wins(house: House, client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="chat", messages=HELLO, max_tokens=9, max_completion_tokens=1)
    assert answer.choices[0].message.content == WORDS[0]
    assert answer.choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError) as error:
        await client.chat.completions.create(model="chat", messages=HELLO, max_tokens=10_000_000)
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize("streamed", [True, False])
async def test_19_logprobs_of_a_chat_have_every_token(house: House, client: AsyncOpenAI, streamed: bool) -> None:  # noqa: FBT001
    asked: Any = {"model": "chat", "messages": HELLO, "logprobs": True, "top_logprobs": 2}
    if streamed:
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        entries = [e for c in chunks if c.choices[0].logprobs for e in c.choices[0].logprobs.content or []]
    else:
        answer = await client.chat.completions.create(**asked)
        entries = answer.choices[0].logprobs.content  # type: ignore[union-attr,assignment]
    assert [entry.token for entry in entries] == WORDS
    assert bytes(entries[4].bytes or []) == WORDS[4].encode()
    assert len(entries[0].top_logprobs) == 2


async def test_19_logprobs_of_a_completion_take_an_integer(house: House, client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="chat", prompt="hello", logprobs=1, max_tokens=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == WORDS[:3]
    assert logprobs.text_offset == [0, 4, 9]
    assert logprobs.top_logprobs == [{word: -0.5} for word in WORDS[:3]]


async def test_a_completion_takes_prompts_in_all_their_forms(house: House, client: AsyncOpenAI) -> None:
    for prompt, choices in (("a", 1), (["a", "b"], 2), ([97, 98], 1), ([[97], [98, 99], [100]], 3)):
        answer = await client.completions.create(model="chat", prompt=prompt, max_tokens=1)  # type: ignore[arg-type]
        assert [choice.text for choice in answer.choices] == [WORDS[0]] * choices
        assert answer.object == "text_completion"
    assert unpack_tokens(house.fleet.requests[-1].tokens) in ([97], [98, 99], [100])


async def test_a_streamed_completion_has_text_and_one_ending(house: House, client: AsyncOpenAI) -> None:
    stream = await client.completions.create(model="chat", prompt="hello", stream=True)
    chunks = [chunk.choices[0] async for chunk in stream]
    assert "".join(choice.text for choice in chunks) == TEXT
    assert [choice.finish_reason for choice in chunks][-1] == "stop"


async def test_every_parameter_arrives_at_the_worker(house: House, client: AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model="chat",
        messages=HELLO,
        temperature=0.5,
        top_p=0.9,
        presence_penalty=0.1,
        frequency_penalty=-0.2,
        logit_bias={"65": 3},
        seed=-5,
        stop=["END", "stop"],
        max_tokens=5,
        extra_body={
            "top_k": 7,
            "min_p": 0.05,
            "repetition_penalty": 1.1,
            "min_tokens": 2,
            "stop_token_ids": [66],
            "ignore_eos": True,
        },
    )
    request = house.fleet.requests[0]
    assert request.sampling.logit_bias == {65: 3.0}
    assert (request.sampling.top_k, request.sampling.min_p, request.sampling.repetition_penalty) == (7, 0.05, 1.1)
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.seed) == (0.5, 0.9, -5)
    assert (request.sampling.presence_penalty, request.sampling.frequency_penalty) == (0.1, -0.2)
    assert (request.stopping.stop, request.stopping.stop_token_ids) == (["END", "stop"], [66])
    assert (request.stopping.max_tokens, request.stopping.min_tokens, request.stopping.ignore_eos) == (5, 2, True)
    assert 0 < request.deadline_ms <= request.expires_ms


# ---- errors


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
    ("/v1/completions", b'{"model":"chat","prompt":["a"],"n":128,"best_of":128,"echo":true}', 400, "echo"),
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
            model="chat", messages=HELLO, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert tools.value.param == "tools"


async def test_24_25_a_full_gateway_says_429_and_when_to_come_back(house: House, client: AsyncOpenAI) -> None:
    house.fleet.accepts.clear()
    held = [asyncio.ensure_future(client.chat.completions.create(model="chat", messages=HELLO, n=16)) for _ in range(2)]
    await house.until(lambda: len(house.gateway._relay) == 32, "a full gateway")
    with pytest.raises(openai.RateLimitError) as full:
        await client.chat.completions.create(model="chat", messages=HELLO)
    assert full.value.type == "server_overloaded"
    assert 1 <= int(full.value.response.headers["retry-after"]) < 60
    assert full.value.response.headers["x-baton-reason"] == "server_overloaded"
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


# ---- the rest


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
    for path, word in (("/healthz", b"ok"), ("/readyz", b"ready"), ("/metrics", b"baton_gateway_frames_tokens_total")):
        status, _, body = parts(
            await raw(house, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        )
        assert status == 200
        assert word in body
    assert b'baton_gateway_requests_total{route="/v1/chat/completions",status="200"}' in body
    assert b'baton_gateway_time_to_first_token_seconds_count{scenario="chat"}' in body


async def test_a_long_prompt_is_tokenised_without_stopping_the_loop(house: House, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.completions.create(model="chat", prompt="x" * 200_000)
    assert error.value.code == "context_length_exceeded"
