"""Calls in a model's text: found in every format, however the text is cut; what is no call stays words."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.tools.json_text import JsonText
from tests.unit.gateway.tools.reading import FORMATS, objects, read

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=3)
CALLS = st.lists(st.tuples(st.sampled_from(["f", "g", "get_weather"]), ARGUMENTS), min_size=1, max_size=3)
WORDS = st.text(st.sampled_from('ab \n<>[]{}":,;/\\_tolcaTOLCA'), max_size=40)


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    """Some way to cut a text."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize("name", list(FORMATS))
@given(data=st.data(), calls=CALLS, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_any_cutting_of_any_calls_gives_these_calls(
    name: str,
    data: st.DataObject,
    calls: list[tuple[str, Any]],
    ascii_only: bool,  # noqa: FBT001
    indent: int | None,
) -> None:
    form = FORMATS[name]
    spelled = [(one, json.dumps(arguments, ensure_ascii=ascii_only, indent=indent)) for one, arguments in calls]
    before = data.draw(st.sampled_from(["", "Let me look.\n", "\n\n"]))
    text = before + form.calls(spelled)
    got = read(form, data.draw(cut(text)), eager=data.draw(st.booleans()))
    assert got == (before.strip(), spelled)
    assert objects(got[1]) == calls


@pytest.mark.parametrize("name", list(FORMATS))
@given(data=st.data())
def test_any_cutting_of_any_text_gives_the_same(name: str, data: st.DataObject) -> None:
    form = FORMATS[name]
    whole = form.calls([("f", '{"a": [1, "x}"]}'), ("g", "{}")])
    pieces = st.sampled_from([form.opener, form.closer, whole, whole[: len(whole) // 2], '{"name": "f"', "[ARGS]{}"])
    text = "".join(data.draw(st.lists(WORDS | pieces, max_size=6)))
    single, ended = data.draw(st.booleans()), data.draw(st.booleans())
    for eager in (True, False):
        expected = read(form, [text], eager=eager, single=single, cut=ended)
        assert read(form, data.draw(cut(text)), eager=eager, single=single, cut=ended) == expected
        assert read(form, list(text), eager=eager, single=single, cut=ended) == expected


@pytest.mark.parametrize("name", list(FORMATS))
@given(text=WORDS)
def test_text_without_calls_is_told_as_it_is(name: str, text: str) -> None:
    words, calls = read(FORMATS[name], list(text))
    assert (words, calls) == (text, [])


@given(value=ARGUMENTS, wrong=st.characters())
def test_what_was_let_through_is_always_the_beginning_of_valid_json(value: Any, wrong: str) -> None:
    text = json.dumps(value)
    scanner = JsonText()
    for place, character in enumerate(text):
        assert not scanner.done
        assert scanner.feed(character) == character, (text, place)
    assert scanner.done
    assert scanner.feed(wrong) is None


@given(text=st.text(st.sampled_from('{}[]":,.-+eE019\\ u\n\ttrufalsn'), max_size=24))
def test_json_is_complete_exactly_when_python_says_so(text: str) -> None:
    scanner = JsonText()
    body = "{" + text
    good = all(scanner.feed(character) is not None for character in body) and scanner.done
    try:
        json.loads(body, strict=False)
        expected = body[-1] == "}"
    except ValueError:
        expected = False
    assert good == expected


WEATHER = ("get_weather", '{"city": "Paris"}')


@pytest.mark.parametrize(
    ("name", "text", "words", "calls"),
    [
        # as models of each family write them
        ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>', "", [("f", '{"a": 1}')]),
        ("hermes", 'Hm.\n<tool_call>{"arguments": {}, "name": "f"}</tool_call>', "Hm.", [("f", "{}")]),
        ("hermes", '<tool_call>{"name": "f"}<tool_call>{"name": "g"}', "", [("f", "{}"), ("g", "{}")]),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", '{"a": 1}')]),
        ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', "", [("f", "{}")]),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "x\ny"}}', "", [("f", '{"a": "x\\u000ay"}')]),
        ("hermes", '<tool_call>{"name": "other", "arguments": {}}</tool_call>', "", [("other", "{}")]),
        ("llama3", '{"name": "get_weather", "parameters": {"city": "Paris"}}', "", [WEATHER]),
        ("llama3", '{"type": "function", "name": "f", "parameters": {}}', "", [("f", "{}")]),
        ("llama3", '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}', "", [("f", "{}"), ("g", "{}")]),
        ("llama3", 'Sure:\n{"name": "f", "parameters": {}}', "Sure:", [("f", "{}")]),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {}}, {"name": "g"}]', "", [("f", "{}"), ("g", "{}")]),
        ("mistral", 'Ok[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g{}', "Ok", [("f", '{"a": 1}'), ("g", "{}")]),
        ("mistral", '[TOOL_CALLS]f[CALL_ID]aB3dE6gH9[ARGS]{"a": 1}', "", [("f", '{"a": 1}')]),
        ("json", '[{"name": "f", "arguments": {}}]', "", [("f", "{}")]),
        # what looks like a call and is none
        ("hermes", "a <tool_call> b", "a <tool_call> b", []),
        ("hermes", '<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', []),
        ("hermes", '<tool_call>{"arguments": {}}</tool_call>', '<tool_call>{"arguments": {}}</tool_call>', []),
        ("hermes", "end <tool_ca", "end <tool_ca", []),
        ("mistral", "[TOOL_CALLS] what?", "[TOOL_CALLS] what?", []),
        ("mistral", "[TOOL_CALLS]f g{}", "[TOOL_CALLS]f g{}", []),
        ("json", '{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', []),
        ("json", '{"city": {"name": "f"}}', '{"city": {"name": "f"}}', []),
        ("json", "[a](b) {", "[a](b) {", []),
        ("llama3", '  {"name": "f", ', '  {"name": "f", ', []),
    ],
)
def test_calls_are_found_and_nothing_else_is(name: str, text: str, words: str, calls: list[tuple[str, str]]) -> None:
    for eager in (True, False):
        assert read(FORMATS[name], list(text), eager=eager) == (words, calls)


def test_a_call_is_told_while_it_grows() -> None:
    form = FORMATS["hermes"]
    words, calls = read(form, ['<tool_call>{"name": "f", "arguments": {"a": '], cut=True)
    assert (words, calls) == ("", [("f", '{"a": ')])


def test_a_call_that_breaks_off_is_words_where_nothing_of_it_was_told_yet() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"a": oops}}</tool_call> bye'
    assert read(FORMATS["hermes"], [text], eager=False) == (text, [])
    words, calls = read(FORMATS["hermes"], [text], eager=True)
    assert calls == [("f", '{"a": ')]
    assert words == "oops}}</tool_call> bye"  # the rest, so that nothing is lost


@pytest.mark.parametrize("name", list(FORMATS))
def test_where_one_call_is_wanted_the_rest_is_not_told(name: str) -> None:
    form = FORMATS[name]
    text = form.calls([WEATHER, ("f", "{}")]) + " and more"
    for chunks in ([text], list(text)):
        assert read(form, chunks, single=True) == ("", [WEATHER])


def test_ids_have_the_form_that_the_models_template_takes_back() -> None:
    from services.gateway.tools.parsers import open_parser

    def first(name: str) -> str:
        form = FORMATS[name]
        (said,) = open_parser(form, frozenset("f"), eager=True, single=False).feed(form.calls([("f", "{}")]))
        return said.calls[0].id or ""

    assert first("hermes").startswith("call_")
    assert len(first("mistral")) == 9
    assert first("mistral").isalnum()


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_model_that_writes_nothing_but_space_costs_no_more_per_token_in_the_end(name: str) -> None:
    from services.gateway.tools.parsers import open_parser

    parser = open_parser(FORMATS[name], frozenset("f"), eager=True, single=False)
    started = time.perf_counter()
    for _ in range(100_000):
        assert parser.feed(" " * 16) == []
    assert time.perf_counter() - started < 5, "each token copies all the space before it"
    (said,) = parser.feed("!")
    assert (len(said.text), said.calls) == (1_600_001, [])
