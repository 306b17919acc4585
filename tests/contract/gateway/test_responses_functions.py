"""Functions in the Responses API, through the real openai client."""

import json
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.contract.gateway.house import House
from tests.contract.gateway.responding import WEATHER, events_of, prompt_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


CALLS = ["Let me", " see. \n", '{"name": "wea', 'ther", "arguments": {"city"', ': "Par', 'is"}}', "\n",
         '{"name": "weather", "arguments": {"city": "Rome"}}']  # fmt: skip


@pytest.mark.parametrize("words", [CALLS, CALLS[2:]])
async def test_20_calls_of_functions_are_items_of_their_own(
    house: House, client: AsyncOpenAI, words: list[str]
) -> None:
    house.fleet.words = lambda request: words
    asked: Any = {"input": "hello", "tools": [WEATHER]}
    whole = await client.responses.create(model="chat", **asked)
    kinds = ["message"] * (words is CALLS) + ["function_call"] * 2
    assert [item.type for item in whole.output] == kinds
    assert whole.output_text == ("Let me see." if words is CALLS else "")
    calls = [item for item in whole.output if item.type == "function_call"]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("weather", {"city": "Paris"}),
        ("weather", {"city": "Rome"}),
    ]
    assert len({call.call_id for call in calls} | {call.id for call in calls}) == 4
    assert (whole.status, whole.tools[0].name, whole.tool_choice) == ("completed", "weather", "auto")  # type: ignore[union-attr]
    events = await events_of(client, **asked)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert [item.type for item in last.response.output] == kinds
    for place, item in enumerate(last.response.output):
        if item.type != "function_call":
            continue
        mine = [event for event in events if getattr(event, "item_id", None) == item.id]
        deltas = [event.delta for event in mine if event.type == "response.function_call_arguments.delta"]
        assert "".join(deltas) == item.arguments
        done = mine[-1]
        assert done.type == "response.function_call_arguments.done"
        assert (done.arguments, done.output_index) == (item.arguments, place)
    async with client.responses.stream(model="chat", **asked) as stream:
        final = await stream.get_final_response()
    assert [item.type for item in final.output] == kinds


async def test_20_what_a_function_returned_goes_back_to_the_model(house: House, client: AsyncOpenAI) -> None:
    house.fleet.words = lambda request: CALLS[2:6]
    first = await client.responses.create(model="chat", input="hello", tools=[WEATHER])
    (call,) = first.output
    assert call.type == "function_call"
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rainy"}
    question: Any = {"role": "user", "content": "hello"}
    house.fleet.words = lambda request: ["wet"]
    answer = await client.responses.create(model="chat", input=[question, *first.output, result], tools=[WEATHER])
    assert answer.output_text == "wet"
    prompt = prompt_of(house)
    assert '"weather"' in prompt
    assert prompt.index("Paris") < prompt.index("rainy")


async def test_a_call_that_is_cut_off_is_incomplete(house: House, client: AsyncOpenAI) -> None:
    house.fleet.words = lambda request: CALLS[2:]
    events = await events_of(client, input="hello", tools=[WEATHER], max_output_tokens=3)
    last = events[-1]
    assert last.type == "response.incomplete"
    (item,) = last.response.output
    assert item.type == "function_call"
    assert item.status == "incomplete"
