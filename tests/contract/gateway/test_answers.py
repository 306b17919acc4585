"""Parameters and forms of requests and answers, through the real openai client.

Numbers in names are those of the OpenAI conformance list.
"""

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from shared.messages import unpack_tokens
from tests.contract.gateway.house import WORDS, House
from tests.contract.gateway.wire import HELLO, TEXT

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
