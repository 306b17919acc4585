"""Which constraints are good, and which tokens may follow: over real tokenizers of both families, and over bytes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import BadRequest
from shared.messages import Constraint
from shared.text import ByteTokenizer, HubTokenizer, Tokenizer
from shared.text.grammar import MOST_TEXT, SHOWN_MESSAGE, check
from shared.text.matching import Grammars, Matcher, Rows
from tests.unit.text.vocabularies import byte_level, sentencepiece

SCHEMA = Constraint("json_schema", '{"type": "object", "properties": {"naïve": {"type": "string"}}}')


@pytest.fixture(params=["byte_level", "sentencepiece", "bytes"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    makers = {"byte_level": byte_level, "sentencepiece": sentencepiece}
    maker = makers.get(request.param)
    return ByteTokenizer() if maker is None else HubTokenizer(maker(tmp_path))


def row_of(matcher: Matcher) -> memoryview:
    row = memoryview(bytearray(matcher.row_bytes))
    matcher.write(row)
    return row


def allowed(matcher: Matcher, ends: tuple[int, ...] = (), barred: tuple[int, ...] = ()) -> set[int]:
    """Ids that may come now."""
    row = row_of(matcher)
    matcher.allow(row, ends, barred)
    return {token for token in range(8 * len(row)) if row[token >> 3] & (1 << (token & 7))}


def token(tokenizer: Tokenizer, name: str) -> int:
    """The special token of that name."""
    return next(one for one in range(tokenizer.vocabulary) if tokenizer.piece(one)[0] == name)


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("json_schema", '{"type": "objekt"}', "objekt"),
        ("json_schema", '{"type": ', "no JSON"),
        ("json_schema", "[1]", "object"),
        ("json_schema", "false", "object"),
        ("json_schema", '{}}, {"lark_grammar": "start: x"', "no JSON"),
        ("json_schema", '{"uniqueItems": true}', "uniqueItems"),
        ("json_schema", '{"not": {}, "x-guidance": {"lenient": true}}', "not"),
        ("json_schema", '{"$ref": "https://example.com/schema"}', "example.com"),
        ("json_schema", '{"items": ' * 3000 + "{}" + "}" * 3000, "recursion|deep"),
        ("regex", "a[b", "unclosed character class"),
        ("regex", "(?=a)b", "look-ahead"),
        ("regex", "\udc80", "Unicode"),
        ("regex", "a" * (MOST_TEXT + 1), f"{MOST_TEXT}"),
        ("lark", "", "Empty"),
        ("lark", "start: nothing", "nothing"),
        ("regex", r"[^\s\S]", "leads nowhere"),
        ("regex", "(a{1000}){1000}", "too complex"),
        ("json_schema", json.dumps({"type": "object", "properties": {f"n{n}": {} for n in range(500)}}), "too complex"),
        ("lark", "start: " + "(" * 500 + '"a"' + ")" * 500, "nested"),
    ],
)
def test_a_bad_constraint_is_refused_in_the_words_of_what_is_wrong(kind: str, text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why) as refused:
        check(Constraint(kind, text))  # type: ignore[arg-type]
    assert len(str(refused.value)) < SHOWN_MESSAGE + 100


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json_schema", "true"),
        ("json_schema", "{}"),
        ("json_schema", json.dumps({"enum": ["a/b", "c\nd", "\u2028"]})),
        ("json_schema", json.dumps({"$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"})),
        ("regex", "a/b\nc"),
        ("lark", 'start: TEXT? <|a_token|> %json {"type": "object"}\nTEXT: /[^<]+/'),
    ],
)
def test_a_good_constraint_passes(kind: str, text: str) -> None:
    check(Constraint(kind, text))  # type: ignore[arg-type]


def test_gateways_check_without_what_workers_need() -> None:
    code = "import sys, shared.text.grammar; sys.exit(sum(name in sys.modules for name in ('numpy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_tokenizers_own_words_are_followed_to_the_end(tokenizer: Tokenizer) -> None:
    text = '{"naïve": "日本 👩🏽\u200d🚀 \\n é"}'
    grammars = Grammars(tokenizer, tokenizer.vocabulary)
    matcher = grammars.matcher(SCHEMA, [])
    for one in tokenizer.encode(text, special=False):
        assert not matcher.finished
        assert one in allowed(matcher, ends=(1,))
        matcher.take(one)
    assert matcher.finished


def test_special_tokens_come_only_where_a_grammar_names_them(tokenizer: Tokenizer) -> None:
    bos, eos = token(tokenizer, "<bos>"), token(tokenizer, "<eos>")
    grammars = Grammars(tokenizer, tokenizer.vocabulary)
    for name in ("<bos>", f"<[{bos}]>"):
        lark = Constraint("lark", f'start: TEXT? {name} %json {{"type": "boolean"}}\nTEXT: /[^{{]+/')
        matcher = grammars.matcher(lark, [])
        assert bos in allowed(matcher)
        assert eos not in allowed(matcher)
        for one in [*tokenizer.encode("I call:", special=False), bos]:
            matcher.take(one)
        text = "".join(tokenizer.piece(one)[0] for one in allowed(matcher))
        assert set(text) <= set("truefals \n\r\t")
    anything = allowed(grammars.matcher(Constraint("regex", "(.|\n)*"), []))
    assert not {bos, eos} & anything
    with pytest.raises(BadRequest, match="unknown special token"):
        grammars.matcher(Constraint("lark", 'start: "a" <|nobody|>'), [])


def test_a_text_may_end_where_its_language_accepts_it(tokenizer: Tokenizer) -> None:
    eos = token(tokenizer, "<eos>")
    (a,) = tokenizer.encode("a", special=False)
    matcher = Grammars(tokenizer, tokenizer.vocabulary).matcher(Constraint("regex", "a|aaa+"), [])
    seen = []
    for _ in range(4):
        seen.append(eos in allowed(matcher, ends=(eos,)))
        matcher.take(a)
    assert seen == [False, True, False, True]


def test_bars_give_way_where_nothing_else_may_come() -> None:
    grammars = Grammars(ByteTokenizer(), 258)
    open_end = grammars.matcher(Constraint("regex", "a+"), [97])
    assert allowed(open_end, ends=(5,), barred=(5,)) == {97}
    assert allowed(open_end, ends=(5,), barred=(5, 97)) == {5, 97}
    assert allowed(grammars.matcher(Constraint("regex", "a"), [97]), ends=(5,), barred=(5,)) == {5}
    assert allowed(grammars.matcher(Constraint("regex", "a+"), []), ends=(5,), barred=(5,)) == {97}


def test_stop_tokens_of_any_number_do_no_harm() -> None:
    matcher = Grammars(ByteTokenizer(), 258).matcher(Constraint("regex", "a+"), [97])
    assert allowed(matcher, ends=(10**6, 258, 300), barred=(10**6,)) == {97}


def test_where_nothing_follows_and_nothing_ends_whatever_comes_is_no_part_of_the_text() -> None:
    matcher = Grammars(ByteTokenizer(), 258).matcher(Constraint("regex", "a"), [97])
    assert allowed(matcher) >= set(range(258))
    assert matcher.over


def test_a_model_with_fewer_tokens_than_its_tokenizer_is_told_where_it_cannot_go_on() -> None:
    grammars = Grammars(ByteTokenizer(), 199)  # no byte from 199 on, as 中 begins with
    with pytest.raises(BadRequest, match="none of the tokens"):
        allowed(grammars.matcher(Constraint("regex", "a中"), [97]))
    assert allowed(grammars.matcher(Constraint("regex", "é中|a"), [])) == {195, 97}


def test_a_model_with_more_tokens_than_its_tokenizer_never_draws_them(tokenizer: Tokenizer) -> None:
    matcher = Grammars(tokenizer, tokenizer.vocabulary + 100).matcher(Constraint("regex", "(.|\n)*"), [])
    assert max(allowed(matcher)) < tokenizer.vocabulary


def test_space_in_json_is_bounded() -> None:
    matcher = Grammars(ByteTokenizer(), 258).matcher(SCHEMA, list(b"{"))
    for _ in range(40):
        matcher.take(32)
    assert 32 not in allowed(matcher)


def test_tokens_outside_the_language_are_refused() -> None:
    grammars = Grammars(ByteTokenizer(), 258)
    with pytest.raises(BadRequest, match="generated"):
        grammars.matcher(SCHEMA, list(b"["))
    with pytest.raises(BadRequest, match="does not allow what was generated"):
        grammars.matcher(SCHEMA, []).take(91)


def test_rows_of_a_batch_are_those_of_each_alone(tokenizer: Tokenizer) -> None:
    grammars = Grammars(tokenizer, tokenizer.vocabulary)
    texts = ["", "{", '{"', '{"naïve": "x', '{"naïve": "x"']
    matchers = [grammars.matcher(SCHEMA, tokenizer.encode(text, special=False)) for text in texts]
    together = memoryview(bytearray(len(matchers) * matchers[0].row_bytes))
    Rows().write(matchers, together)
    assert bytes(together) == b"".join(bytes(row_of(matcher)) for matcher in matchers)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("text", ["<eos>a", "a<turn><bos>"])
def test_the_name_of_a_special_token_can_be_demanded_as_text(kind: str, text: str, tmp_path: Path) -> None:
    made = HubTokenizer((byte_level if kind == "byte_level" else sentencepiece)(tmp_path))
    matcher = Grammars(made, made.vocabulary).matcher(Constraint("json_schema", json.dumps({"const": text})), [])
    ids: list[int] = []
    while not matcher.finished:
        ids.append(min(allowed(matcher)))
        matcher.take(ids[-1])
    assert json.loads(made.decode(ids)) == text
