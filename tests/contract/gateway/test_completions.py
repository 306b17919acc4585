"""Text completions and what all requests share: echo, best_of, usage on every chunk, a time of the client's own.

Numbers in names are those of the OpenAI conformance list.
"""

import asyncio
import json
import time
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.contract.gateway.house import WORDS, House
from tests.contract.gateway.wire import HELLO, TEXT, parts, post, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [("hello \u00e9", ["hello \u00e9"]), (["a", "b"], ["a", "b"]), ([[104, 105], [0xC3, 0xA9]], ["hi", "\u00e9"])],
)
async def test_17_echo_puts_each_prompt_before_its_text(
    house: House, client: AsyncOpenAI, prompt: Any, shown: list[str]
) -> None:
    answer = await client.completions.create(model="chat", prompt=prompt, echo=True, n=2)
    expected = [one + TEXT for one in shown for _ in range(2)]
    assert [choice.text for choice in answer.choices] == expected
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(WORDS) * len(expected)
    stream = await client.completions.create(model="chat", prompt=prompt, echo=True, n=2, stream=True)
    chunks = [chunk.choices[0] async for chunk in stream]
    for index, text in enumerate(expected):
        assert "".join(choice.text for choice in chunks if choice.index == index) == text


async def test_17_the_best_of_several_completions_are_kept_in_order(house: House, client: AsyncOpenAI) -> None:
    scores = [-3.0, -1.0, -2.0, -0.5]
    house.fleet.logprob = lambda request: scores[request.sampling.choice]
    house.fleet.words = lambda request: [f"{request.sampling.choice}", "!" * request.sampling.choice]
    answer = await client.completions.create(model="chat", prompt=["a", "b"], best_of=4, n=2)
    assert [choice.text for choice in answer.choices] == ["3!!!", "1!", "3!!!", "1!"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.logprobs for choice in answer.choices] == [None] * 4
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2 * 4 * 2  # what was generated counts, not what is shown
    shown = await client.completions.create(model="chat", prompt="a", best_of=2, logprobs=1)
    assert shown.choices[0].logprobs is not None
    assert shown.choices[0].logprobs.token_logprobs == [-1.0, -1.0]


async def test_17_what_cannot_be_honoured_is_a_clear_400(house: House, client: AsyncOpenAI) -> None:
    for fields, param in (
        ({"suffix": "end"}, "suffix"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"echo": True, "max_tokens": 0}, "max_tokens"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 128, "prompt": ["a", "b"]}, "n"),
    ):
        asked: Any = {"model": "chat", "prompt": "hello", **fields}
        with pytest.raises(openai.BadRequestError) as error:
            await client.completions.create(**asked)
        assert error.value.param == param


@pytest.mark.parametrize("also_at_the_end", [True, False])
async def test_6_every_chunk_has_the_usage_so_far_where_it_is_asked_for(
    house: House,
    client: AsyncOpenAI,
    also_at_the_end: bool,  # noqa: FBT001
) -> None:
    options: Any = {"continuous_usage_stats": True, "include_usage": also_at_the_end}
    stream = await client.chat.completions.create(
        model="chat", messages=HELLO, stream=True, stream_options=options, n=2
    )
    chunks = [chunk async for chunk in stream]
    prompt = house.fleet.requests[0].prompt_tokens
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usages) == len(chunks)
    assert {usage.prompt_tokens for usage in usages} == {prompt}
    counts = [usage.completion_tokens for usage in usages]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 2 * len(WORDS))
    assert all(usage.total_tokens == prompt + usage.completion_tokens for usage in usages)
    assert bool(chunks[-1].choices) is not also_at_the_end
    for index in (0, 1):
        mine = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in mine) == TEXT


async def test_6_usage_on_every_chunk_of_a_completion_and_with_logprobs(house: House, client: AsyncOpenAI) -> None:
    options: Any = {"continuous_usage_stats": True}
    for more in ({}, {"logprobs": 1}, {"echo": True}):
        asked: Any = {"model": "chat", "prompt": "hello", "max_tokens": 3, **more}
        chunks = [one async for one in await client.completions.create(**asked, stream=True, stream_options=options)]
        counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
        assert counts == [0] * ("echo" in more) + [1, 2, 3, 3]


TIMED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": HELLO}),
    ("/v1/completions", {"prompt": "hello"}),
    ("/v1/responses", {"input": "hello"}),
]


@pytest.mark.parametrize(("path", "fields"), TIMED)
@pytest.mark.parametrize("where", ["body", "header"])
async def test_a_request_ends_when_its_own_time_is_over(
    house: House, path: str, fields: dict[str, Any], where: str
) -> None:
    house.fleet.may_speak.clear()
    in_body, in_header = ({"timeout": 0.2}, ()) if where == "body" else ({"timeout": 500}, ("X-Baton-Timeout: 0.2",))
    body = json.dumps({"model": "chat", **fields, **in_body}).encode()
    began = time.time()
    status, _, answer = parts(await raw(house, post(path, body, *in_header)))
    assert (status, json.loads(answer)["error"]["type"]) == (504, "timeout")
    request = house.fleet.requests[0]
    assert request.deadline_ms == request.expires_ms  # the first token has no more time than the whole
    assert 0 <= request.expires_ms - began * 1000 < 20_000  # less than the scenario's own
    await house.empty()
    await house.until(lambda: bool(house.fleet.cancels), "the cancellation")


async def test_a_clients_time_never_exceeds_the_scenarios(house: House, client: AsyncOpenAI) -> None:
    await client.chat.completions.create(model="chat", messages=HELLO, extra_body={"timeout": 86_400})
    await client.chat.completions.create(model="chat", messages=HELLO)
    long, plain = (request.expires_ms for request in house.fleet.requests)
    assert long <= plain


async def test_a_stream_that_runs_out_of_its_time_ends_with_an_error(house: House, client: AsyncOpenAI) -> None:
    house.fleet.silent_at |= {(attempt, 3) for attempt in range(4)}
    stream = await client.chat.completions.create(
        model="chat", messages=HELLO, stream=True, extra_body={"timeout": 0.5}
    )
    got: list[str] = []

    async def read() -> None:
        async for chunk in stream:
            got.append(chunk.choices[0].delta.content or "")  # noqa: PERF401

    with pytest.raises(openai.APIError) as error:
        await asyncio.wait_for(read(), 10)
    assert error.value.code == "timeout"
    assert "".join(got) == "".join(WORDS[:3])


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", "1e9", ""])
async def test_a_time_that_is_none_is_refused_by_name(house: House, client: AsyncOpenAI, given: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.completions.create(model="chat", prompt="hello", extra_headers={"x-baton-timeout": given})
    assert error.value.param == "x-baton-timeout"
