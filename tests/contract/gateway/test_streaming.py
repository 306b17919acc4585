"""Streamed answers over HTTP, through the real openai client and raw connections.

Numbers in names are those of the OpenAI conformance list.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from services.gateway.journal import Journal
from shared.errors import Code
from shared.messages import Rejected, unpack_tokens
from tests.contract.gateway.house import WORDS, House, failed
from tests.contract.gateway.wire import HELLO, TEXT, parts, post, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def collect(stream: Any, got: list[str]) -> None:
    async for chunk in stream:  # one by one: what came before an error is kept
        got.append(chunk.choices[0].delta.content or "")  # noqa: PERF401


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


async def test_a_stream_that_stands_still_goes_on_with_another_attempt(house: House, client: AsyncOpenAI) -> None:
    house.fleet.silent_at.add((0, 4))
    answer = await client.chat.completions.create(model="chat", messages=HELLO, logprobs=True)
    assert answer.choices[0].message.content == TEXT
    assert [entry.token for entry in answer.choices[0].logprobs.content] == WORDS  # type: ignore[union-attr]
    assert [request.generated for request in house.fleet.requests] == [0, 4]
    await house.until(lambda: bool(house.fleet.cancels), "the silent attempt's cancellation")
    assert house.fleet.cancels[0].attempt == house.fleet.requests[0].attempt


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


async def test_13_a_client_that_reads_too_slowly_hears_why_its_stream_ends(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.contract.gateway.house.WORDS", ["x" * 100_000] * 200)
    body = json.dumps({"model": "chat", "messages": HELLO, "stream": True, "max_tokens": 200}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(post("/v1/chat/completions", body))
    await house.until(lambda: bool(house.fleet.cancels), "it is cut off")
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        got = b"".join([data async for data in _pieces(reader)])
    last = got[got.rindex(b"data: ") :]
    assert b"does not read its stream as fast as it is written" in last
    assert b"[DONE]" not in got
    assert got.endswith(b"0\r\n\r\n")
    await house.empty()
    writer.close()


async def _pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(65_536):
        yield data


def _cancelled(house: House) -> set[str]:
    return {one.request_id for one in house.fleet.cancels}


async def test_13_many_that_do_not_read_are_cut_off_and_others_do_not_notice(
    house: House, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.contract.gateway.house.WORDS", ["x" * 100_000] * 150)
    body = json.dumps({"model": "chat", "messages": HELLO, "stream": True, "max_tokens": 150}).encode()
    deaf = []
    for number in range(1, 5):
        _, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(post("/v1/chat/completions", body))
        deaf.append(writer)
        await house.until(lambda: len(_cancelled(house)) == number, "it is cut off")  # noqa: B023
    answer = await client.chat.completions.create(model="chat", messages=HELLO, max_tokens=150)
    assert len(answer.choices[0].message.content or "") == 15_000_000
    await house.empty()
    for writer in deaf:
        writer.transport.abort()


async def test_13_a_client_that_does_not_read_is_cut_off_and_others_do_not_notice(
    house: House, client: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.contract.gateway.house.WORDS", ["x" * 100_000] * 200)
    body = json.dumps({"model": "chat", "messages": HELLO, "stream": True, "max_tokens": 200}).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(post("/v1/chat/completions", body))
    answer = await client.chat.completions.create(model="chat", messages=HELLO, max_tokens=200)
    assert len(answer.choices[0].message.content or "") == 20_000_000
    await house.empty()
    assert house.fleet.cancels
    writer.transport.abort()


async def test_a_failure_inside_after_the_answer_has_begun_breaks_it_off(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Journal, "ended", broken)
    body = b'{"model":"chat","max_tokens":2,"stream":true,"messages":[{"role":"user","content":"x"}]}'
    answer = await raw(house, post("/v1/chat/completions", body))
    assert answer.count(b"HTTP/1.1") == 1
    assert not answer.endswith(b"0\r\n\r\n")  # it must not look whole
