"""Forms of the text and the words of other servers for them, through the real openai client."""

import json
from typing import Any

import openai
import pydantic
import pytest
from openai import AsyncOpenAI

from tests.contract.gateway.house import House
from tests.contract.gateway.tools.asking import says, schema
from tests.contract.gateway.wire import HELLO, parts, post, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
