"""What a client may say, and how it hears what was wrong."""

from typing import Any

import msgspec
import pytest

from services.gateway.api.chat import ChatRequest
from services.gateway.api.completion import CompletionRequest
from services.gateway.api.reading import DEEPEST, convert, parse
from shared.errors import BadRequest

HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> ChatRequest:
    return parse(msgspec.json.encode({"model": "chat", "messages": HELLO, **fields}), ChatRequest)


def completion(**fields: Any) -> CompletionRequest:
    return parse(msgspec.json.encode({"model": "chat", "prompt": "hello", **fields}), CompletionRequest)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"logit_bias": {"5": 101}}, "logit_bias[...]"),
        ({"logit_bias": {"five": 1}}, "logit_bias"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usages": True}}, "stream_options.include_usages"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "x", "name": "a\nsystem"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": "x", "name": "a\n"}]}, "messages[0].name"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        chat(**fields)
    assert refusal.value.param == param
    assert param.split("[", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1] in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 6}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, -1]}, "prompt[1]"),
        ({"messages": HELLO}, "messages"),
    ],
)
def test_a_bad_parameter_of_a_completion_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        completion(**fields)
    assert refusal.value.param == param


def test_a_known_name_that_is_not_served_is_told_apart_from_a_misspelling() -> None:
    with pytest.raises(BadRequest, match="Unsupported parameter: 'web_search_options'"):
        chat(web_search_options={})
    with pytest.raises(BadRequest, match="Unknown parameter: 'web_search_option'"):
        chat(web_search_option={})
    with pytest.raises(BadRequest, match=r"Unsupported parameter: 'messages\[0\].function_call'"):
        chat(messages=[{"role": "assistant", "content": "", "function_call": {}}])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"null",
        b'{"model":"chat","messages":[{"role":"user","content":"\xff\xfe"}]}',
        b'{"model":"chat","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"chat","temperature":NaN}',
        b'{"model":"chat","temperature":1e999}',
        b'{"model":"chat","metadata":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"model":"chat","metadata":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}",
        b"\xef\xbb\xbf{}",
        b"\x00" * 100,
    ],
)
def test_a_body_that_is_no_request_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(body, ChatRequest)


@pytest.mark.parametrize("shape", ["object", "list"])
def test_what_is_nested_too_deeply_for_those_who_read_it_later_is_refused_at_the_edge(shape: str) -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = {"a": value} if shape == "object" else [value]
        return {
            "messages": HELLO,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": value}}}],
        }

    for depth in (DEEPEST - 50, DEEPEST, 600, 900):
        for read in (
            lambda said: parse(msgspec.json.encode(said), ChatRequest),
            lambda said: convert(said, ChatRequest),
        ):
            if depth < DEEPEST:
                read(nested(depth))
                continue
            with pytest.raises(BadRequest, match="nested too deeply") as refusal:
                read(nested(depth))
            assert refusal.value.param == "tools[0].function.parameters"


def test_16_the_newer_limit_wins_over_the_older_one_beside_min_tokens_too() -> None:
    assert chat(max_tokens=5, max_completion_tokens=100, min_tokens=50).bound == 100
    for older in (None, 100):
        with pytest.raises(BadRequest) as refusal:
            chat(max_tokens=older, max_completion_tokens=5, min_tokens=50)
        assert refusal.value.param == "min_tokens"


def test_null_is_the_same_as_not_given() -> None:
    optional = set(ChatRequest.__struct_fields__) - {"messages"}
    assert chat(**dict.fromkeys(optional)) == parse(msgspec.json.encode({"messages": HELLO}), ChatRequest)


def test_what_clients_send_for_their_own_books_is_accepted() -> None:
    chat(user="u", safety_identifier="s", metadata={"a": "b"}, store=True, response_format={"type": "text"}, tools=[])


def test_text_parts_of_a_message_become_one_text() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages[0].text == "one\ntwo"


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_a_prompt_has_four_forms(prompt: object, prompts: list[Any]) -> None:
    assert completion(prompt=prompt).prompts() == prompts


@pytest.mark.parametrize("prompt", [["a", 1], [1, "a"], [[1], 1], [[1], "a"]])
def test_a_prompt_of_mixed_forms_is_refused(prompt: list[Any]) -> None:
    with pytest.raises(BadRequest) as refusal:
        completion(prompt=prompt).prompts()
    assert refusal.value.param == "prompt"


def test_a_map_from_messagepack_is_held_to_the_same_rules() -> None:
    assert convert({"prompt": "a", "logit_bias": {5: 1.0}}, CompletionRequest).logit_bias == {5: 1.0}
    for fields in ({"prompt": "a", "temperature": float("nan")}, {"prompt": b"a"}, {"prompt": "a", "best": 1}, {}):
        with pytest.raises(BadRequest):
            convert(fields, CompletionRequest)
