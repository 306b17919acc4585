"""Grammars of calls: what they let a model write, seen token by token as an engine sees it."""

import itertools
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.api.structure import StructuredOutputs, of_outputs, settled
from services.gateway.tools.formats import ARGS_MISTRAL, CLOSE_HERMES, OPEN_HERMES, OPEN_MISTRAL, ToolFormat, choose
from services.gateway.tools.grammar import Function, calls_only, calls_or_text
from shared.errors import BadRequest
from shared.messages import Constraint
from shared.text import ByteTokenizer
from shared.text.matching import Grammars
from tests.unit.gateway.tools.reading import objects, read

SPECIAL = {256: "<eos>", 257: OPEN_MISTRAL, 258: ARGS_MISTRAL, 259: OPEN_HERMES, 260: CLOSE_HERMES}
IDS = {text: token for token, text in SPECIAL.items()}


class Bytes:
    """A byte for a token; `marked`: markers are special tokens too."""

    vocabulary = 261
    special = ()

    def __init__(self, *, marked: bool) -> None:
        self.ids = IDS if marked else {}

    def encode(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = []
        while text:
            marker = next((one for one in self.ids if text.startswith(one)), "")
            ids += [IDS[marker]] if marker else list(text[0].encode())
            text = text[len(marker) or 1 :]
        return ids

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.piece(token)[1] for token in ids).decode()

    def piece(self, token_id: int) -> tuple[str, bytes]:
        raw = SPECIAL[token_id].encode() if token_id in SPECIAL else bytes([token_id])
        return raw.decode("utf-8", "replace"), raw

    def shown(self, token_id: int) -> bytes:
        return b"" if token_id in SPECIAL else bytes([token_id])


TOKENIZERS = {marked: Bytes(marked=marked) for marked in (True, False)}
GRAMMARS = {marked: Grammars(tokenizer, Bytes.vocabulary) for marked, tokenizer in TOKENIZERS.items()}
BYTES = Grammars(ByteTokenizer(), ByteTokenizer.vocabulary)
PLAIN, MARKED = (lambda _: None), IDS.get
FORMATS: dict[str, ToolFormat] = {
    "hermes": choose("hermes", "", PLAIN),
    "hermes, special": choose("hermes", "", MARKED),
    "llama3": choose("llama3", "", PLAIN),
    "mistral": choose("mistral", "", PLAIN),
    "mistral, special": choose("mistral", "", MARKED),
    "mistral, named": choose("mistral", ARGS_MISTRAL, MARKED),
    "json": choose("json", "", PLAIN),
}
CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"city": {"enum": ["Paris", "Rome"]}},
}


def functions(**schemas: Any) -> list[Function]:
    return [Function(name, schema, strict=True, param=f"tools.{name}") for name, schema in schemas.items()]


TWO = functions(get_weather=CITY, f={"type": "object", "properties": {}, "additionalProperties": False})
ONE_CALL = [("get_weather", '{"city": "Paris", "days": 3}')]
TWO_CALLS = [*ONE_CALL, ("f", "{}")]
WRONG = [("get_weather", '{"city": "Berlin"}')]


def allows(form: ToolFormat, constraint: Constraint, text: str) -> bool:
    """Whether a model may write this text and end there."""
    inner = GRAMMARS[bool(form.special)].matcher(constraint, []).inner
    tokens = TOKENIZERS[bool(form.special)].encode(text, special=False)
    return inner.try_consume_tokens(tokens) == len(tokens) and inner.is_accepting()


@pytest.mark.parametrize("name", list(FORMATS))
def test_where_a_call_is_demanded_nothing_but_good_calls_can_be_written(name: str) -> None:
    form = FORMATS[name]
    many, single = (calls_only(form, TWO, single=one) for one in (False, True))
    assert allows(form, many, form.calls(ONE_CALL))
    assert allows(form, many, form.calls(TWO_CALLS))
    assert allows(form, single, form.calls(ONE_CALL))
    assert not allows(form, single, form.calls(TWO_CALLS))
    for text in ("", "Hello.", "Hello\n" + form.calls(ONE_CALL), form.calls(WRONG), form.calls([("other", "{}")])):
        assert not allows(form, many, text), text


@pytest.mark.parametrize("name", list(FORMATS))
def test_where_a_call_is_possible_any_words_are_and_every_call_is_good(name: str) -> None:
    form = FORMATS[name]
    many, single = (calls_or_text(form, TWO, single=one) for one in (False, True))
    for text in ("", "Hello.", "  a\n b [x] {}\n", form.calls(ONE_CALL), "Let me see:\n" + form.calls(ONE_CALL)):
        assert allows(form, many, text), text
        assert allows(form, single, text), text
    assert allows(form, many, form.calls(TWO_CALLS))
    assert not allows(form, single, form.calls(TWO_CALLS))
    for text in (form.calls(WRONG), "Let me see:\n" + form.calls(WRONG)):
        assert not allows(form, many, text), text


@pytest.mark.parametrize("name", list(FORMATS))
def test_with_a_form_for_the_answer_it_is_calls_or_that_form(name: str) -> None:
    form = FORMATS[name]
    schema = '{"type":"object","properties":{"x":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":"integer"}}}'
    constraint = calls_or_text(form, TWO, single=False, schema=schema)
    for text in ('{"x": 5}', '{"x":5}', form.calls(ONE_CALL), form.calls(TWO_CALLS)):
        assert allows(form, constraint, text), text
    for text in ('{"x": "five"}', "Hello.", form.calls(WRONG)):
        assert not allows(form, constraint, text), text
    # a weak model would write space for ever, here as where the form stands alone
    assert [allows(form, constraint, f'{{"x":{" " * count}5}}') for count in (40, 41)] == [True, False]
    anything = calls_or_text(form, TWO, single=False, schema="true")
    assert allows(form, anything, "[1]")


@pytest.mark.parametrize(("name", "single"), list(itertools.product(FORMATS, (True, False))))
def test_whatever_a_model_draws_is_read_back_as_calls(name: str, single: bool) -> None:  # noqa: FBT001
    form = FORMATS[name]
    constraint = calls_only(form, TWO, single=single)
    for seed in range(6):
        text = drawn(form, constraint, seed)
        words, calls = read(form, [text], single=single)
        assert words == ""
        assert calls, text
        for called, arguments in objects(calls):
            assert called == "f" or arguments["city"] in ("Paris", "Rome")


def drawn(form: ToolFormat, constraint: Constraint, seed: int, most: int = 400) -> str:
    """Draw tokens at random among those allowed; ends as soon as that is possible after a while."""
    tokenizer = TOKENIZERS[bool(form.special)]
    matcher, random_ = GRAMMARS[bool(form.special)].matcher(constraint, []), random.Random(seed)  # noqa: S311
    tokens: list[int] = []
    row = bytearray(matcher.row_bytes)
    while len(tokens) < most:
        matcher.write(memoryview(row))
        matcher.allow(memoryview(row), [256])
        bits = [token for token in range(Bytes.vocabulary) if row[token >> 3] >> (token & 7) & 1]
        if matcher.over or (256 in bits and (random_.random() < 0.5 or len(bits) == 1)):
            return tokenizer.decode(tokens)
        token = random_.choice([one for one in bits if one != 256])
        matcher.take(token)
        tokens.append(token)
    raise AssertionError(f"no end after {tokenizer.decode(tokens)!r}")


def test_a_strict_schema_that_cannot_be_held_to_is_refused_by_name() -> None:
    bad = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    with pytest.raises(BadRequest, match="not") as refusal:
        Function("f", bad, strict=True, param="tools[3].function.parameters")
    assert refusal.value.param == "tools[3].function.parameters"
    with pytest.raises(BadRequest, match="object"):
        Function("f", {"type": "string"}, strict=False, param="tools[0].function.parameters")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
        {"properties": {"a": {"$ref": "http://elsewhere/schema"}}},
        {"properties": {"a": {"type": "string", "pattern": "(?=x)"}}},
        {},
    ],
)
def test_a_schema_that_is_not_strict_holds_as_far_as_it_can(schema: dict[str, Any]) -> None:
    form = FORMATS["json"]
    made = [Function("f", schema, strict=False, param="p")]
    good = "{}" if "pattern" in str(schema) else json.dumps({"a": [1, 1]})
    assert allows(form, calls_only(form, made, single=False), form.calls([("f", good)]))
    assert not allows(form, calls_only(form, made, single=False), form.calls([("f", "[]")]))


@pytest.mark.parametrize(
    ("template", "name", "named"),
    [
        ("{{ '<tool_call>' }}", "hermes", False),
        ("{{ '[TOOL_CALLS]' }}", "mistral", False),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' }}", "mistral", True),
        ("{{ '<|python_tag|>' }}", "llama3", False),
        ("""{{ 'ipython' }}{{ '"parameters": ' }}""", "llama3", False),
        ("{{ messages }}", "json", False),
        ("", "json", False),
    ],
)
def test_the_format_is_recognised_by_the_template(template: str, name: str, named: bool) -> None:  # noqa: FBT001
    form = choose("auto", template, MARKED)
    assert (form.name, form.named) == (name, named)
    assert choose("hermes", template, PLAIN).name == "hermes"
    assert set(form.shown) == {IDS[m] for m in (form.opener, form.closer, ARGS_MISTRAL if named else "") if m in IDS}


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\x7f"\\\n/|'), min_size=1), min_size=1)
)
def test_every_word_of_a_choice_can_be_written_and_ends_the_text(words: list[str]) -> None:
    (demanded,) = of_outputs(StructuredOutputs(choice=words), "structured_outputs.")
    constraint = settled(demanded)
    for word in words:
        inner = BYTES.matcher(constraint, []).inner
        tokens = list(word.encode())
        assert inner.try_consume_tokens(tokens) == len(tokens)
        assert inner.is_accepting()
