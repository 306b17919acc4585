"""The Responses API, through the real openai client: create, stream, and what is refused."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from shared.errors import Code
from tests.contract.gateway.house import WORDS, House, failed
from tests.contract.gateway.responding import WEATHER, events_of, prompt_of
from tests.contract.gateway.wire import TEXT, parts, post, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_response_has_one_message_with_the_text_and_its_usage(house: House, client: AsyncOpenAI) -> None:
    answer = await client.responses.create(
        model="chat", input="hello", instructions="be kind", metadata={"a": "b"}, user="u", temperature=0.5
    )
    assert answer.output_text == TEXT
    assert (answer.status, answer.object, answer.error, answer.incomplete_details) == (
        "completed",
        "response",
        None,
        None,
    )
    assert answer.id.startswith("resp_")
    (message,) = answer.output
    assert message.type == "message"
    assert (message.role, message.status, message.id[:4]) == ("assistant", "completed", "msg_")
    assert answer.usage is not None
    assert answer.usage.input_tokens == house.fleet.requests[0].prompt_tokens
    assert answer.usage.output_tokens == len(WORDS)
    assert answer.usage.total_tokens == answer.usage.input_tokens + len(WORDS)
    assert answer.usage.input_tokens_details.cached_tokens == 1
    assert (answer.instructions, answer.metadata, answer.temperature) == ("be kind", {"a": "b"}, 0.5)
    assert prompt_of(house) == "system: be kind\nuser: hello\nassistant: "
    assert answer._request_id


async def test_events_come_in_their_order_with_their_numbers(house: House, client: AsyncOpenAI) -> None:
    events = await events_of(client, input="hello")
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(WORDS),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == TEXT
    whole = await client.responses.create(model="chat", input="hello")
    assert events[-1].response.usage == whole.usage
    assert set(events[-1].response.to_dict()) == set(whole.to_dict())


async def test_the_clients_own_stream_helper_reads_it(house: House, client: AsyncOpenAI) -> None:
    async with client.responses.stream(model="chat", input="hello") as stream:
        snapshots = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert snapshots[-1] == TEXT
    assert final.output_text == TEXT


@pytest.mark.parametrize("streamed", [True, False])
async def test_what_reaches_its_limit_is_incomplete_and_says_why(
    house: House,
    client: AsyncOpenAI,
    streamed: bool,  # noqa: FBT001
) -> None:
    asked: Any = {"input": "hello", "max_output_tokens": 2}
    if streamed:
        last = (await events_of(client, **asked))[-1]
        assert last.type == "response.incomplete"
        answer = last.response
    else:
        answer = await client.responses.create(model="chat", **asked)
    assert (answer.status, answer.output_text) == ("incomplete", "Once upon")
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete"  # type: ignore[union-attr]


@pytest.mark.parametrize("streamed", [True, False])
async def test_19_logprobs_come_where_they_are_included(house: House, client: AsyncOpenAI, streamed: bool) -> None:  # noqa: FBT001
    asked: Any = {"input": "hello", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    if streamed:
        events = await events_of(client, **asked)
        pieces = [one for event in events if event.type == "response.output_text.delta" for one in event.logprobs]
        assert [one.token for one in pieces] == WORDS
        done = next(event for event in events if event.type == "response.output_text.done")
        assert [one.token for one in done.logprobs] == WORDS
        answer = events[-1].response  # type: ignore[union-attr]
    else:
        answer = await client.responses.create(model="chat", **asked)
    logprobs = answer.output[0].content[0].logprobs
    assert [one.token for one in logprobs] == WORDS
    assert bytes(logprobs[4].bytes) == WORDS[4].encode()
    assert len(logprobs[0].top_logprobs) == 2


async def test_a_conversation_comes_as_items_in_all_their_forms(house: House, client: AsyncOpenAI) -> None:
    first = await client.responses.create(model="chat", input="hi", max_output_tokens=1)
    conversation: Any = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]},
        *first.output,
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"type": "message", "role": "user", "content": "again", "status": "completed", "id": "msg_1"},
    ]
    answer = await client.responses.create(model="chat", input=conversation)
    assert answer.output_text == TEXT
    assert prompt_of(house) == (
        "system: be brief\nuser: one\ntwo\nassistant: Once\nassistant: no\nuser: again\nassistant: "
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"store": True}, "store"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 5}}}}, "text.format"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        (
            {
                "tools": [{**WEATHER, "strict": True, "parameters": {"type": "object", "not": {}}}],
                "tool_choice": "required",
            },
            "tools[0].parameters",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[0].call_id"),
        ({"max_tool_calls": 3}, "max_tool_calls"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 10_000_000}, "max_output_tokens"),
        ({"input": "x" * 100_000}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": "x", "output": "y"}]}, "input[0].output"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "reasoning"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"temperature": 9}, "temperature"),
    ],
)
async def test_what_is_not_served_is_refused_by_name(
    house: House, client: AsyncOpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        await client.responses.create(**{"model": "chat", "input": "hello", **fields})
    assert error.value.param == param
    assert not house.fleet.requests


async def test_null_is_the_same_as_not_given(house: House, client: AsyncOpenAI) -> None:
    nothing: Any = dict.fromkeys(["previous_response_id", "conversation", "store", "text", "reasoning", "metadata"])
    assert (await client.responses.create(model="chat", input="hello", **nothing)).output_text == TEXT


async def test_8_an_error_after_the_first_event_ends_the_stream_as_failed(house: House, client: AsyncOpenAI) -> None:
    house.fleet.fails_at[0, 3] = failed(Code.ENGINE_FAILED, retryable=False)
    events = await events_of(client, input="hello")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    error, last = events[-2:]
    assert error.type == "error"
    assert error.code == "engine_failed"
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert last.response.output_text == "".join(WORDS[:3])
    assert last.response.error is not None
    assert last.response.error.code == "server_error"


async def test_10_before_the_first_event_an_error_has_its_own_status(house: House, client: AsyncOpenAI) -> None:
    house.fleet.fails_at[0, 0] = failed(Code.ENGINE_FAILED, retryable=False)
    with pytest.raises(openai.APIStatusError) as error:
        await client.responses.create(model="chat", input="hello")
    assert error.value.status_code == 502
    with pytest.raises(openai.NotFoundError) as missing:
        await client.responses.create(model="nothing", input="hello", stream=True)
    assert missing.value.code == "model_not_found"


async def test_a_streamed_response_survives_its_worker(house: House, client: AsyncOpenAI) -> None:
    house.fleet.fails_at[0, 4] = failed(Code.WORKER_LOST, retryable=True)
    events = await events_of(client, input="hello")
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [request.generated for request in house.fleet.requests] == [0, 4]


async def test_21_a_form_of_the_text_becomes_a_constraint(house: House, client: AsyncOpenAI) -> None:
    class Person(BaseModel):
        name: str

    house.fleet.words = lambda request: ['{"name"', ': "Ada"}']
    parsed = await client.responses.parse(model="chat", input="who?", text_format=Person)
    assert parsed.output_parsed == Person(name="Ada")
    constraint = house.fleet.requests[-1].sampling.constraint
    assert constraint is not None
    assert (constraint.kind, json.loads(constraint.text)["required"]) == ("json_schema", ["name"])
    async with client.responses.stream(model="chat", input="who?", text_format=Person) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == Person(name="Ada")
    await client.responses.create(model="chat", input="who?", text={"format": {"type": "json_object"}})
    assert house.fleet.requests[-1].sampling.constraint is not None
    await client.responses.create(model="chat", input="who?", text={"format": {"type": "text"}})
    assert house.fleet.requests[-1].sampling.constraint is None


async def test_11_the_events_are_the_same_however_the_body_is_framed(house: House) -> None:
    body = json.dumps({"model": "chat", "input": "hello", "stream": True}).encode()
    _, _, plain = parts(await raw(house, post("/v1/responses", body, version="1.0")))
    blocks = [dict(line.split(b": ", 1) for line in block.split(b"\n")) for block in plain.strip().split(b"\n\n")]
    for number, block in enumerate(blocks):
        data = json.loads(block[b"data"])
        assert (data["type"].encode(), data["sequence_number"]) == (block[b"event"], number)
    call = json.loads(blocks[0][b"data"])["response"]["id"]
    assert [block[b"id"].decode() for block in blocks] == [f"{call}:{number}" for number in range(len(blocks))]
    assert sum(block[b"event"] == b"response.output_text.delta" for block in blocks) == len(WORDS)
    assert b"[DONE]" not in plain
