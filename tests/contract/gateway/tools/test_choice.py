"""Which functions a model may call, and conversations with them, through the real openai client."""

from typing import Any

import pytest
from openai import AsyncOpenAI

from shared.messages import unpack_tokens
from shared.text import ByteTokenizer
from tests.contract.gateway.house import House
from tests.contract.gateway.tools.asking import ONE, OTHER, asked, says, streamed
from tests.contract.gateway.wire import HELLO

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_20_the_choice_decides_what_the_model_may_write(house: House, client: AsyncOpenAI) -> None:
    async def demanded(**more: Any) -> str | None:
        house.fleet.requests.clear()
        await client.chat.completions.create(**asked(**more))
        constraint = house.fleet.requests[0].sampling.constraint
        return constraint.text if constraint else None

    says(house, "plain")
    assert await demanded() is None
    assert await demanded(tool_choice="auto") is None
    required = await demanded(tool_choice="required") or ""
    assert "get_weather" in required
    assert "get_time" in required
    named = await demanded(tool_choice={"type": "function", "function": {"name": "get_time"}}) or ""
    assert "get_time" in named
    assert "get_weather" not in named
    some = {"mode": "required", "tools": [{"type": "function", "function": {"name": "get_time"}}]}
    assert await demanded(tool_choice={"type": "allowed_tools", "allowed_tools": some}) == named
    assert "TEXT" in (await demanded(parallel_tool_calls=False) or "")


async def test_20_without_choice_there_are_no_calls_and_text_is_text(house: House, client: AsyncOpenAI) -> None:
    says(house, *ONE)
    answer = await client.chat.completions.create(**asked(tool_choice="none"))
    assert answer.choices[0].message.content == "".join(ONE)
    prompt = ByteTokenizer().decode(unpack_tokens(house.fleet.requests[0].tokens))
    assert "get_weather" not in prompt


@pytest.mark.parametrize("stream", [True, False])
async def test_20_one_call_is_enough_where_the_client_says_so(house: House, client: AsyncOpenAI, stream: bool) -> None:  # noqa: FBT001
    says(house, *ONE, *OTHER, " and words")
    if stream:
        chunks = [chunk.choices[0] for chunk in await streamed(client, parallel_tool_calls=False)]
        assert {one.index for chunk in chunks for one in chunk.delta.tool_calls or []} == {0}
        assert not any(chunk.delta.content for chunk in chunks)
    else:
        answer = await client.chat.completions.create(**asked(parallel_tool_calls=False))
        assert len(answer.choices[0].message.tool_calls or []) == 1
        assert answer.choices[0].message.content is None


async def test_20_a_whole_conversation_with_a_function_goes_round(house: House, client: AsyncOpenAI) -> None:
    says(house, *ONE)
    first = (await client.chat.completions.create(**asked())).choices[0].message
    messages = [*HELLO, first, {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny"}]  # type: ignore[index]
    says(house, "It is sunny.")
    house.fleet.requests.clear()
    second = await client.chat.completions.create(**{**asked(), "messages": messages})
    assert second.choices[0].message.content == "It is sunny."
    prompt = ByteTokenizer().decode(unpack_tokens(house.fleet.requests[0].tokens))
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>' in prompt
    assert "Result of get_weather:\nsunny" in prompt


async def test_23_messages_in_all_their_forms_are_read(house: House, client: AsyncOpenAI) -> None:
    messages: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
        {"role": "user", "content": "Hi", "name": "ann"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "refusal": "Never.", "content": None},
        {"role": "user", "content": ""},
    ]
    await client.chat.completions.create(
        model="chat",
        messages=messages,
        max_tokens=1,
        user="u",
        safety_identifier="s",
        metadata={"a": "b"},
        store=True,
        modalities=["text"],
        service_tier="auto",
        prompt_cache_key="k",
        verbosity="medium",
        reasoning_effort="none",
        parallel_tool_calls=True,
    )
    prompt = ByteTokenizer().decode(unpack_tokens(house.fleet.requests[0].tokens))
    assert prompt == "system: Be\nkind.\nuser: Hi\nassistant: No.\nuser: Why?\nassistant: Never.\nuser: \nassistant: "
