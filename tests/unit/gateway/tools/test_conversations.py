"""Conversations with functions, as chat templates of the common families read them.

The templates are written in the manner of theirs; what they insist on is the same.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from services.gateway.api.chat import ChatRequest
from services.gateway.api.reading import parse
from services.gateway.api.tokens import TokenizeRequest
from services.gateway.prompts.plans import plan_chat
from services.gateway.prompts.prompter import Prompter
from shared.errors import BadRequest, ContextTooLong
from shared.messages import unpack_tokens
from shared.models import ModelSpec
from shared.models.transcript import TEMPLATE as TRANSCRIPT
from shared.text import ByteTokenizer

QWEN = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '<tools>' }}{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}{{- '\\n</tools><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant' }}{%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
{%- for tool_call in message.tool_calls %}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}{{- tool_call.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif not (message.role == 'system' and loop.first and tools) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""
LLAMA = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role in ('tool', 'ipython') %}
{{- '<|ipython|>' }}{%- if message.content is mapping %}{{- message.content | tojson }}
{%- else %}{{- message.content }}{%- endif %}{{- '<|eot_id|>' }}
{%- elif 'tool_calls' in message %}
{%- if message.tool_calls | length != 1 %}{{- raise_exception('only one call at once') }}{%- endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|assistant|>{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}<|eot_id|>' }}
{%- else %}
{{- '<|' + message.role + '|>' }}
{%- if tools is not none and message.role == 'user' %}
{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\\n' }}{%- endfor %}
{%- endif %}
{{- message.content | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""
MISTRAL = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if tools is not none and loop.last %}{{- '[AVAILABLE_TOOLS]' }}{{- tools | tojson }}{{- '[/AVAILABLE_TOOLS]' }}
{%- endif %}
{{- '[INST]' + message['content'] + '[/INST]' }}
{%- elif message.tool_calls is defined and message.tool_calls is not none %}
{{- '[TOOL_CALLS][' }}
{%- for call in message.tool_calls %}
{%- set out = call.function | tojson %}{{- out[:-1] }}
{%- if not call.id is defined or call.id | length != 9 %}{{- raise_exception('ids have 9 characters') }}{%- endif %}
{{- ', "id": "' + call.id + '"}' }}{%- if not loop.last %}{{- ', ' }}{%- endif %}
{%- endfor %}{{- ']' + eos_token }}
{%- elif message.role == 'tool' %}
{%- if message.tool_call_id | length != 9 %}{{- raise_exception('ids have 9 characters') }}{%- endif %}
{{- '[TOOL_RESULTS]{"content": ' + message.content | string + ', "call_id": "' + message.tool_call_id + '"}' }}
{{- '[/TOOL_RESULTS]' }}
{%- else %}{{- message['content'] + eos_token }}
{%- endif %}
{%- endfor %}
"""
GEMMA = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{%- set first = messages[0].content + '\\n\\n' %}
{%- set rest = messages[1:] %}{%- else %}{%- set first = '' %}{%- set rest = messages %}{%- endif %}
{%- for message in rest %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate') }}{%- endif %}
{{- '<' + message.role + '>' + (first if loop.first else '') + message.content | trim + '</>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<model>' }}{%- endif %}
"""
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Caf\u00e9 weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL: Any = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
HISTORY: Any = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "now?"}]},
]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def prompter(threads: ThreadPoolExecutor, template: str, **more: Any) -> Prompter:
    spec = ModelSpec("m", None, 100_000, 256, frozenset({257}), template, None)
    return Prompter(replace(spec, **more), ByteTokenizer(), threads)


def chat(**fields: Any) -> ChatRequest:
    return parse(msgspec.json.encode({"messages": HISTORY, **fields}), ChatRequest)


async def rendered(made: Prompter, **fields: Any) -> str:
    plans = await plan_chat(chat(**fields), made)
    return made.tokenizer.decode(unpack_tokens(plans[0].prompt))


async def test_qwen_and_hermes_get_tools_calls_as_objects_and_results(threads: ThreadPoolExecutor) -> None:
    made = prompter(threads, QWEN)
    text = await rendered(made, tools=[TOOL])
    assert made.form.name == "hermes"
    assert text.startswith("<|im_start|>system\nBe kind.\n\n<tools>\n" + json.dumps(TOOL, ensure_ascii=False))
    assert '<|im_start|>assistant\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n' in text
    assert "<tool_response>\nsunny\n</tool_response>" in text
    assert text.endswith("user\nAnd\nnow?<|im_end|>\n<|im_start|>assistant\n")


async def test_llama_gets_tools_indented_and_calls_as_parameters(threads: ThreadPoolExecutor) -> None:
    made = prompter(threads, LLAMA)
    text = await rendered(made, tools=[TOOL])
    assert made.form.name == "llama3"
    assert '<|assistant|>{"name": "get_weather", "parameters": {"city": "Paris"}}<|eot_id|><|ipython|>sunny' in text
    assert json.dumps(TOOL, ensure_ascii=False, indent=4) in text
    two = [HISTORY[1], {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "b"}]}]
    with pytest.raises(BadRequest, match="only one call at once"):
        await rendered(made, messages=two, tools=[TOOL])


async def test_mistral_gets_ids_that_its_template_takes_the_same_for_call_and_result(
    threads: ThreadPoolExecutor,
) -> None:
    made = prompter(threads, MISTRAL)
    text = await rendered(made, messages=HISTORY[1:], tools=[TOOL])
    assert made.form.name == "mistral"
    call = json.loads(text.split("[TOOL_CALLS]")[1].split("<eos>")[0])[0]
    assert call["arguments"] == {"city": "Paris"}
    assert f'"call_id": "{call["id"]}"' in text
    assert len(call["id"]) == 9
    assert text.index("[AVAILABLE_TOOLS]") > text.index("[TOOL_RESULTS]")  # with the last message of the user's


@pytest.mark.parametrize("template", [GEMMA, TRANSCRIPT, ""])
async def test_a_template_without_functions_is_told_of_them_in_words(
    threads: ThreadPoolExecutor, template: str
) -> None:
    made = prompter(threads, template)
    text = await rendered(made, tools=[TOOL])
    assert made.form.name == "json"
    assert text.index("Be kind.") < text.index("You can call these functions")
    assert json.dumps(TOOL["function"], ensure_ascii=False) in text
    assert '{"name": "get_weather", "arguments": {"city":"Paris"}}' in text  # the call, as the model is to write it
    assert "Result of get_weather:\nsunny\n\nAnd\nnow?" in text  # one turn of the user's: roles alternate
    assert "You can call" not in await rendered(made, tools=[TOOL], tool_choice="none")


async def test_a_second_template_serves_conversations_with_functions(threads: ThreadPoolExecutor) -> None:
    made = prompter(threads, GEMMA, tool_template=QWEN)
    assert made.form.name == "hermes"
    assert "<tools>" in await rendered(made, tools=[TOOL])
    assert "<tool_response>" in await rendered(made)
    assert (await rendered(made, messages=HISTORY[:2])).startswith("<user>Be kind.")


async def test_only_the_allowed_functions_are_told(threads: ThreadPoolExecutor) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    some = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{**other}]}}
    text = await rendered(prompter(threads, QWEN), tools=[TOOL, other], tool_choice=some)
    assert '"other"' in text
    assert "Caf\u00e9" not in text


async def test_arguments_that_are_no_object_stay_as_they_were(threads: ThreadPoolExecutor) -> None:
    for arguments in ("{oops", "[1]", "", '"x"'):
        broken = [
            HISTORY[1],
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": arguments}}]},
        ]
        assert json.dumps(arguments) in await rendered(prompter(threads, QWEN), messages=broken)


async def test_the_last_message_can_be_continued(threads: ThreadPoolExecutor) -> None:
    said = [HISTORY[1], {"role": "assistant", "content": " It is sunny and "}]
    made = prompter(threads, QWEN)
    assert (await rendered(made, messages=said, continue_final_message=True)).endswith("assistant\n It is sunny and ")
    trimmed = await rendered(prompter(threads, GEMMA), messages=said, continue_final_message=True)
    assert trimmed.endswith("<assistant>It is sunny and")
    assert (await rendered(made, messages=said, add_generation_prompt=False)).endswith("sunny and <|im_end|>\n")
    shouting = prompter(threads, "{{ messages[-1].content | upper }}")
    with pytest.raises(BadRequest, match="cannot go on"):
        await rendered(shouting, messages=said, continue_final_message=True)


async def test_what_the_template_has_a_place_for_is_honoured_and_the_rest_refused_by_name(
    threads: ThreadPoolExecutor,
) -> None:
    qwen, gemma = prompter(threads, QWEN), prompter(threads, GEMMA)
    assert "<think>" in await rendered(qwen, reasoning_effort="none")
    assert "<think>" not in await rendered(qwen, reasoning_effort="high")
    assert await rendered(gemma, messages=HISTORY[:2], reasoning_effort="none", verbosity="medium")
    says = prompter(threads, "{{ reasoning_effort }} {{ verbosity }}")
    assert await rendered(says, messages=HISTORY[:2], reasoning_effort="low", verbosity="high") == "low high"
    for wish in ({"reasoning_effort": "low"}, {"verbosity": "low"}):
        with pytest.raises(BadRequest) as refusal:
            await rendered(gemma, messages=HISTORY[:2], **wish)
        assert refusal.value.param == next(iter(wish))


async def test_tokens_of_a_conversation_are_counted_with_its_functions(threads: ThreadPoolExecutor) -> None:
    made = prompter(threads, QWEN)
    fields = {"messages": HISTORY, "tools": [TOOL], "chat_template_kwargs": {"enable_thinking": False}}
    tokens = await made.count(parse(msgspec.json.encode(fields), TokenizeRequest))
    (plan,) = await plan_chat(chat(tools=[TOOL], reasoning_effort="none"), made)
    assert tokens == unpack_tokens(plan.prompt)
    without = parse(msgspec.json.encode({"messages": HISTORY, "add_generation_prompt": False}), TokenizeRequest)
    assert made.tokenizer.decode(await made.count(without)).endswith("now?<|im_end|>\n")
    with pytest.raises(BadRequest, match=r"chat_template_kwargs\.tools"):
        parse(msgspec.json.encode({"messages": HISTORY, "chat_template_kwargs": {"tools": []}}), TokenizeRequest)


async def test_long_arguments_count_as_a_long_prompt(threads: ThreadPoolExecutor) -> None:
    call = {**CALL, "function": {"name": "f", "arguments": json.dumps({"a": "x" * 20_000_000})}}
    with pytest.raises(ContextTooLong):
        await rendered(prompter(threads, QWEN), messages=[HISTORY[1], {"role": "assistant", "tool_calls": [call]}])


async def test_a_form_or_a_call_becomes_a_constraint_and_the_marks_are_shown(threads: ThreadPoolExecutor) -> None:
    made = prompter(threads, QWEN)

    async def constraint(**fields: Any) -> Any:
        (plan,) = await plan_chat(chat(**fields), made)
        return plan.sampling.constraint

    assert await constraint() is None
    assert await constraint(tools=[TOOL]) is None
    assert await constraint(tools=[TOOL], tool_choice="none") is None
    assert (await constraint(response_format={"type": "json_object"})).text == '{"type":"object"}'
    for demanding in (
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        {"parallel_tool_calls": False},
        {"response_format": {"type": "json_object"}},
    ):
        assert (await constraint(tools=[TOOL], **demanding)).kind == "lark"
    strict = {"type": "function", "function": {**TOOL["function"], "strict": True}}
    assert (await constraint(tools=[strict])).kind == "lark"
    for wrong, param in (
        ({"guided_regex": "a+"}, "guided_regex"),
        ({"tools": [{"type": "function", "function": {**TOOL["function"], "strict": True, "parameters": {"not": {}}}}]},
         "tools[0].function.parameters"),
    ):  # fmt: skip
        with pytest.raises(BadRequest) as refusal:
            await constraint(**{"tools": [TOOL], **wrong})
        assert refusal.value.param == param
    for unread in ({}, {"not": {}}):  # what cannot be held to is not read either, when there is so much of it
        schema = {"description": "x" * 60_000, **unread}
        many = [{"type": "function", "function": {"name": f"f{n}", "parameters": schema}} for n in (1, 2)]
        with pytest.raises(BadRequest, match="65536 are allowed"):
            await constraint(tools=many, tool_choice="required")
