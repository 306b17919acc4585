"""Calls of functions, forms of the text and messages, through the real openai client.

Numbers in names are those of the OpenAI conformance list.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import nats
import openai
import pydantic
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from shared.errors import Code
from shared.messages import unpack_tokens
from shared.text import ByteTokenizer
from tests.contract.gateway.house import WORDS, House, failed, open_house
from tests.contract.gateway.wire import HELLO, TEXT, parts, post, raw
from tests.servers import NatsServer, RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME: Any = {"type": "function", "function": {"name": "get_time", "strict": False}}
BEFORE = ["Let me", " look.", "\n"]
ONE = ["<tool_", 'call>\n{"name": "get', '_weather", "argu', 'ments": {"ci', 'ty": "Par', 'is"}', "}\n</tool", "_call>"]
OTHER = ['\n<tool_call>{"name": "get_time", ', '"arguments": {}}', "</tool_call>"]
CALLS = [("get_weather", {"city": "Paris"}), ("get_time", {})]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_house(nats_server: NatsServer, redis_server: RedisServer) -> AsyncIterator[House]:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)  # its thread is the module's, not the first test's
    settings = nats_server.settings(prefix="gatewaytools")
    scenario = {"tool_format": "hermes"}
    async with open_house(settings, redis_server.settings(), scenario=scenario, max_streams=32) as house:
        yield house


def says(house: House, *words: str) -> None:
    house.fleet.words = lambda _: list(words)


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": HELLO, "tools": [WEATHER, TIME], **more}


async def streamed(client: AsyncOpenAI, **more: Any) -> list[Any]:
    return [chunk async for chunk in await client.chat.completions.create(**asked(**more), stream=True)]


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


class City(pydantic.BaseModel):
    """What a client's own parser makes of an answer."""

    name: str
    people: int


async def test_21_a_schema_reaches_the_worker_and_the_clients_parser(house: House, client: AsyncOpenAI) -> None:
    says(house, '{"name": "Par', 'is", "people"', ": 2102650}")
    answer = await client.chat.completions.parse(model="chat", messages=HELLO, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Paris", people=2_102_650)
    constraint = house.fleet.requests[0].sampling.constraint
    assert constraint is not None
    assert constraint.kind == "json_schema"
    assert json.loads(constraint.text)["required"] == ["name", "people"]
    await client.chat.completions.create(model="chat", messages=HELLO, response_format={"type": "json_object"})
    assert house.fleet.requests[1].sampling.constraint.text == '{"type":"object"}'  # type: ignore[union-attr]


async def test_21_truncated_json_shows_as_length(house: House, client: AsyncOpenAI) -> None:
    says(house, '{"name": "Par', 'is", "people"', ": 2102650}")
    with pytest.raises(openai.LengthFinishReasonError):
        await client.chat.completions.parse(model="chat", messages=HELLO, response_format=City, max_tokens=2)


def schema(**fields: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": fields}}


NAMED: Any = {"type": "function", "function": {"name": "nothing"}}
DEEP: Any = {"type": "object"}
for _ in range(200):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
BAD = [
    ({"response_format": schema(type="objekt")}, "response_format.json_schema.schema"),
    ({"response_format": schema(type="string", pattern="(")}, "response_format.json_schema.schema"),
    ({"response_format": schema(**{"$ref": "http://elsewhere/x"})}, "response_format.json_schema.schema"),
    ({"response_format": schema(**{"not": {}})}, "response_format.json_schema.schema"),
    ({"response_format": schema(description="x" * 70_000)}, "response_format.json_schema.schema"),
    ({"response_format": schema(**DEEP)}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.json_schema.schema"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}, "response_format.json_schema.name"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"guided_regex": "("}, "guided_regex"),
    ({"guided_json": "{"}, "guided_json"),
    ({"guided_json": {"type": 5}}, "guided_json"),
    ({"guided_choice": []}, "guided_choice"),
    ({"guided_grammar": "start: nowhere"}, "guided_grammar"),
    ({"guided_grammar": "root ::= ["}, "guided_grammar"),
    ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
    ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
    ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": NAMED}, "tool_choice"),
    ({"tools": [WEATHER, WEATHER]}, "tools"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]}, "tools[0].function.parameters"),
    ({"tools": [WEATHER], "guided_regex": "a"}, "guided_regex"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"reasoning_effort": "much"}, "reasoning_effort"),
    ({"verbosity": "high"}, "verbosity"),
    ({"modalities": ["text", "audio"]}, "modalities[1]"),
    ({"modalities": ["audio"]}, "modalities[0]"),
    ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
    ({"chat_template": "{{ 1 }}"}, "chat_template"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "no"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}]}, "messages[0].content[0].type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0].type",
    ),
    (
        {"messages": [{"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}]},
        "messages[0].function_call",
    ),
]


@pytest.mark.parametrize(("fields", "param"), BAD)
async def test_20_to_23_what_cannot_be_honoured_is_refused_by_name(
    house: House, fields: dict[str, Any], param: str
) -> None:
    body = json.dumps({"model": "chat", "messages": HELLO, **fields}).encode()
    status, _, rest = parts(await raw(house, post("/v1/chat/completions", body)))
    error = json.loads(rest)["error"]
    assert (status, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert not house.fleet.requests


async def test_21_a_bad_schema_is_refused_in_words_that_help(house: House, client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="objekt"):
        await client.chat.completions.create(model="chat", messages=HELLO, response_format=schema(type="objekt"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"guided_json": {"type": "object"}}, "json_schema", '{"type":"object"}'),
        ({"guided_json": '{"type": "array"}'}, "json_schema", '{"type": "array"}'),
        ({"guided_regex": "[ab]+"}, "regex", "[ab]+"),
        ({"guided_choice": ['say "a"', "b\n"]}, "lark", 'start: "say \\"a\\"" | "b\\n"'),
        ({"guided_grammar": 'start: "a"'}, "lark", 'start: "a"'),
        ({"structured_outputs": {"json": {}}}, "json_schema", "{}"),
        ({"structured_outputs": {"json_object": True}}, "json_schema", '{"type":"object"}'),
        ({"structured_outputs": {"choice": ["a"]}}, "lark", 'start: "a"'),
    ],
)
@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions"])
async def test_22_the_forms_of_other_servers_arrive(
    house: House, route: str, fields: dict[str, Any], kind: str, text: str
) -> None:
    prompt = {"prompt": "x"} if route == "/v1/completions" else {"messages": HELLO}
    status, _, _ = parts(await raw(house, post(route, json.dumps({"model": "chat", **prompt, **fields}).encode())))
    constraint = house.fleet.requests[0].sampling.constraint
    assert status == 200
    assert constraint is not None
    assert (constraint.kind, constraint.text) == (kind, text)


async def test_22_a_grammar_in_gbnf_is_rewritten(house: House, client: AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model="chat", messages=HELLO, extra_body={"guided_grammar": 'root ::= "a" | "b"'}
    )
    constraint = house.fleet.requests[0].sampling.constraint
    assert constraint is not None
    assert "start:" in constraint.text


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


async def over_nats(house: House, nats_server: NatsServer, **fields: Any) -> list[dict[str, Any]]:
    """Ask as a direct client of NATS does, and collect the replies up to the last one."""
    settings = nats_server.settings()
    client = await nats.connect(settings.url, user=settings.user, password=settings.password)
    replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inbox = client.new_inbox()

    async def keep(message: Any) -> None:
        replies.put_nowait(msgpack.unpackb(message.data))

    await client.subscribe(inbox, cb=keep)
    body = msgpack.packb({"v": 1, "messages": HELLO, "tools": [WEATHER, TIME], **fields})
    await client.publish(house.subjects.requests("chat"), body, reply=inbox)
    got: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while not got or not (got[-1].get("done") or "error" in got[-1]):
            got.append(await replies.get())
    await client.close()
    return got


async def test_20_over_nats_calls_come_in_maps(house: House, nats_server: NatsServer) -> None:
    says(house, *BEFORE, *ONE, *OTHER)
    _, *pieces, last = await over_nats(house, nats_server, stream=True, logprobs=True)
    assert "".join(piece["text"] for piece in pieces) == "Let me look."
    calls = [call for piece in pieces for call in piece.get("tool_calls", [])]
    for index, (name, arguments) in enumerate(CALLS):
        mine = [call["function"] for call in calls if call["index"] == index]
        assert mine[0]["name"] == name
        assert json.loads("".join(call["arguments"] for call in mine)) == arguments
    assert [e["token"] for piece in pieces for e in piece.get("logprobs") or []] == [*BEFORE, *ONE, *OTHER]
    assert last["finish_reason"] == "tool_calls"
    (whole,) = await over_nats(house, nats_server, n=2)
    assert whole["text"] == "Let me look."
    assert [call["function"]["name"] for call in whole["tool_calls"]] == ["get_weather", "get_time"]
    assert len(whole["tool_calls_of"]) == 2
    assert whole["finish_reasons"] == ["tool_calls", "tool_calls"]
    (refused,) = await over_nats(house, nats_server, tool_choice="sometimes")
    assert refused["error"]["param"] == "tool_choice"


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
