"""Calls of functions in answers, through the real openai client. Numbers are those of the OpenAI conformance list."""

import json
from typing import Any

import pytest
from openai import AsyncOpenAI

from shared.errors import Code
from tests.contract.gateway.house import WORDS, House, failed
from tests.contract.gateway.tools.asking import BEFORE, CALLS, ONE, OTHER, asked, says, streamed
from tests.contract.gateway.wire import HELLO, TEXT

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_20_a_whole_answer_with_calls_has_them_and_no_content(house: House, client: AsyncOpenAI) -> None:
    says(house, *ONE, *OTHER)
    answer = await client.chat.completions.create(**asked())
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls: Any = choice.message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == CALLS
    assert {call.type for call in calls} == {"function"}
    assert len({call.id for call in calls}) == 2
    assert all(call.id.startswith("call_") for call in calls)


async def test_20_deltas_of_calls_have_the_form_that_clients_join(house: House, client: AsyncOpenAI) -> None:
    says(house, *BEFORE, *ONE, *OTHER)
    chunks = [chunk.choices[0] for chunk in await streamed(client)]
    assert chunks[0].delta.role == "assistant"
    assert chunks[0].delta.content is None
    assert "".join(chunk.delta.content or "" for chunk in chunks) == "Let me look."
    deltas = [one for chunk in chunks for one in chunk.delta.tool_calls or []]
    for index, (name, arguments) in enumerate(CALLS):
        first, *later = [one for one in deltas if one.index == index]
        assert (first.type, first.function.name) == ("function", name)
        assert first.id
        assert [(one.id, one.type, one.function.name) for one in later] == [(None, None, None)] * len(later)
        assert json.loads("".join(one.function.arguments for one in (first, *later))) == arguments
    assert len([one for one in deltas if one.index == 0]) > 2  # piece by piece, as the model wrote them
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["tool_calls"]


async def test_20_the_openai_clients_own_stream_helper_joins_the_calls(house: House, client: AsyncOpenAI) -> None:
    says(house, *ONE, *OTHER)
    seen = []
    async with client.chat.completions.stream(**asked()) as stream:
        async for event in stream:
            if event.type == "tool_calls.function.arguments.done":
                seen += [(event.name, json.loads(event.arguments))]
        final = await stream.get_final_completion()
    assert seen == CALLS
    assert final.choices[0].message.content is None
    assert [call.function.name for call in final.choices[0].message.tool_calls or []] == ["get_weather", "get_time"]


async def test_20_choices_find_their_calls_apart(house: House, client: AsyncOpenAI) -> None:
    house.fleet.words = lambda request: [*ONE] if request.sampling.choice else WORDS
    answer = await client.chat.completions.create(**asked(n=2))
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "tool_calls"]
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].message.tool_calls is None
    chunks = [chunk.choices[0] for chunk in await streamed(client, n=2)]
    mine = [one.function for chunk in chunks if chunk.index == 1 for one in chunk.delta.tool_calls or []]
    assert json.loads("".join(one.arguments for one in mine)) == {"city": "Paris"}
    assert "".join(chunk.delta.content or "" for chunk in chunks if chunk.index == 0) == TEXT


@pytest.mark.parametrize("stream", [True, False])
async def test_20_logprobs_come_with_words_and_calls(house: House, client: AsyncOpenAI, stream: bool) -> None:  # noqa: FBT001
    words = [*BEFORE, *ONE]
    says(house, *words)
    if stream:
        chunks = [chunk.choices[0] for chunk in await streamed(client, logprobs=True)]
        entries = [entry for one in chunks if one.logprobs for entry in one.logprobs.content]
    else:
        answer = await client.chat.completions.create(**asked(logprobs=True))
        entries = answer.choices[0].logprobs.content  # type: ignore[union-attr,assignment]
    assert [entry.token for entry in entries] == words


@pytest.mark.parametrize("stream", [True, False])
async def test_20_a_call_that_is_cut_off_shows_as_length(house: House, client: AsyncOpenAI, stream: bool) -> None:  # noqa: FBT001
    says(house, *ONE)
    if stream:
        chunks = [chunk.choices[0] for chunk in await streamed(client, max_tokens=5)]
        reason = chunks[-1].finish_reason
        arguments = "".join(one.function.arguments for chunk in chunks for one in chunk.delta.tool_calls or [])
    else:
        choice = (await client.chat.completions.create(**asked(max_tokens=5))).choices[0]
        reason, arguments = choice.finish_reason, choice.message.tool_calls[0].function.arguments  # type: ignore[index,union-attr]
    assert (reason, arguments) == ("length", '{"city": "Par')


async def test_20_text_that_is_no_call_is_content_and_never_lost(house: House, client: AsyncOpenAI) -> None:
    for text in ('<tool_call>{"name": 5}</tool_call>', "a <tool_ca", "plain", '  {"name": "get_time"}\n'):
        says(house, *text)
        answer = await client.chat.completions.create(**asked())
        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (text, "stop")
        assert answer.choices[0].message.tool_calls is None
        chunks = [chunk.choices[0] for chunk in await streamed(client)]
        assert "".join(chunk.delta.content or "" for chunk in chunks) == text
        assert chunks[-1].finish_reason == "stop"


async def test_20_calls_survive_their_worker(house: House, client: AsyncOpenAI) -> None:
    says(house, *ONE)
    house.fleet.fails_at[0, 4] = failed(Code.WORKER_LOST, retryable=True)
    chunks = [chunk.choices[0] for chunk in await streamed(client)]
    pieces = [one.function for chunk in chunks for one in chunk.delta.tool_calls or []]
    assert [one.name for one in pieces if one.name] == ["get_weather"]
    assert json.loads("".join(one.arguments for one in pieces)) == {"city": "Paris"}
    assert chunks[-1].finish_reason == "tool_calls"


async def test_20_usage_on_every_chunk_counts_calls_too(house: House, client: AsyncOpenAI) -> None:
    says(house, *BEFORE, *ONE)
    more: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = await streamed(client, stream_options=more)
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == len(BEFORE) + len(ONE)
    assert any(one.choices and one.choices[0].delta.tool_calls for one in chunks)


async def test_requests_without_functions_have_no_parser(house: House, client: AsyncOpenAI) -> None:
    says(house, *ONE)
    answer = await client.chat.completions.create(model="chat", messages=HELLO)
    assert answer.choices[0].message.content == "".join(ONE)
    chunks = [
        chunk.choices[0]
        async for chunk in await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
    ]
    assert chunks[0].delta.content == ""
    assert "".join(chunk.delta.content or "" for chunk in chunks) == "".join(ONE)
