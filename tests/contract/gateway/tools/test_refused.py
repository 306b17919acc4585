"""What cannot be honoured of functions, forms and messages is refused by name."""

import json
from typing import Any

import pytest

from tests.contract.gateway.house import House
from tests.contract.gateway.tools.asking import WEATHER, schema
from tests.contract.gateway.wire import HELLO, parts, post, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
