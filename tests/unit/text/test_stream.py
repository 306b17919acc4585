"""The text of a stream equals the whole text, however it is cut into tokens and wherever it is taken up again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference

from shared.messages import Stopping
from shared.text import ByteTokenizer, ClockText, HubTokenizer, TextStream, Tokenizer
from tests.unit.text.vocabularies import CORPUS, byte_level, sentencepiece

EMOJI = "a 👨\u200d👩\u200d👧 日本 e\u0301 ไทย!"
BYTES = ByteTokenizer()
_made: dict[str, Path] = {}


@pytest.fixture(scope="module", params=["byte_level", "sentencepiece"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    maker = {"byte_level": byte_level, "sentencepiece": sentencepiece}[request.param]
    if request.param not in _made:
        _made[request.param] = maker(tmp_path_factory.mktemp("vocabularies"))
    return _made[request.param]


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> HubTokenizer:
    return HubTokenizer(path)


def stopping(stop: list[str], min_tokens: int = 0) -> Stopping:
    return Stopping(max_tokens=10**6, stop=stop, min_tokens=min_tokens)


def run(tokenizer: Tokenizer, ids: list[int], rules: Stopping) -> tuple[str, str | None]:
    """All that is shown, and the stop string that ended it."""
    stream = TextStream(tokenizer, rules, [])
    shown = ""
    for token in ids:
        shown += stream.push(token)
        if stream.matched is not None:
            return shown, stream.matched
    return shown + stream.flush(), stream.matched


def cut(text: str, stop: list[str]) -> tuple[str, str | None]:
    """The definition: read character by character until a stop string is complete; of several, the longest."""
    for end in range(len(text) + 1):
        complete = [one for one in stop if one and text[:end].endswith(one)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


def tokens_of(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Tokens as a model may bring them: text's own, cut anywhere, among any others."""
    texts = st.sampled_from([*CORPUS[:4], EMOJI]).map(lambda text: tokenizer.encode(text, special=False))
    pieces = st.tuples(texts, st.integers(0, 60), st.integers(0, 60)).map(
        lambda drawn: drawn[0][drawn[1] :][: drawn[2]]
    )
    noise = st.lists(st.integers(0, tokenizer.vocabulary), max_size=8)  # one past the end too
    return st.lists(pieces | noise, max_size=4).map(lambda parts: [token for part in parts for token in part])


STOPS = st.lists(
    st.sampled_from(
        ["ab", "abc", "o", "e\u0301", "\n", "\nUser:", "👩", "\u200d", "本語", "fox jumps", "aab", "\ufffd"]
    )
    | st.text("ab o", min_size=1, max_size=4),
    max_size=4,
)


@given(st.data())
def test_deltas_and_the_rest_are_the_whole_text_up_to_the_first_stop_string(
    tokenizer: HubTokenizer, data: st.DataObject
) -> None:
    ids = data.draw(tokens_of(tokenizer))
    stop = data.draw(STOPS)
    assert run(tokenizer, ids, stopping(stop)) == cut(tokenizer.decode(ids), stop)


@given(st.data())
def test_a_rebuilt_stream_goes_on_as_the_first_would_have(tokenizer: HubTokenizer, data: st.DataObject) -> None:
    ids = data.draw(tokens_of(tokenizer))
    rules = stopping(data.draw(STOPS), data.draw(st.integers(0, 5)))
    at = data.draw(st.integers(0, len(ids)))
    stream = TextStream(tokenizer, rules, [])
    for token in ids[:at]:
        stream.push(token)
    again = TextStream(tokenizer, rules, ids[:at])
    assert again.matched == stream.matched
    for token in ids[at:]:
        assert again.push(token) == stream.push(token)
        assert again.matched == stream.matched
    assert again.flush() == stream.flush()


@given(st.data())
def test_text_is_what_the_tokenizers_package_makes_of_all_tokens(
    tokenizer: HubTokenizer, path: Path, data: st.DataObject
) -> None:
    ids = [token for token in data.draw(tokens_of(tokenizer)) if token < tokenizer.vocabulary]
    reference = _reference(path).decode(ids, skip_special_tokens=True)
    if "\ufffd" in reference:  # the package counts the bytes of a broken run in its own way
        return
    assert run(tokenizer, ids, stopping([]))[0] == reference


_references: dict[Path, Reference] = {}


def _reference(path: Path) -> Reference:
    return _references.setdefault(path, Reference.from_file(str(path)))


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="<\u2581"), max_size=40)
)  # special tokens, and the spelling of a space
def test_encoding_and_decoding_give_the_text_back(tokenizer: HubTokenizer, text: str) -> None:
    for one in (tokenizer, BYTES):
        assert one.decode(one.encode(text, special=False)) == text


@given(st.data())
def test_special_tokens_that_are_wanted_show_their_names_among_any_others(
    tokenizer: HubTokenizer, data: st.DataObject
) -> None:
    special = [
        token for token in range(tokenizer.vocabulary) if tokenizer.piece(token)[1] and not tokenizer.shown(token)
    ]
    wanted = data.draw(st.lists(st.sampled_from([*special, tokenizer.vocabulary]), min_size=1))
    ids = data.draw(tokens_of(tokenizer) | st.lists(st.sampled_from(special), max_size=5))
    raw = b"".join(tokenizer.piece(token)[1] if token in wanted else tokenizer.shown(token) for token in ids)
    stream = TextStream(tokenizer, Stopping(max_tokens=99, shown_token_ids=wanted), [])
    assert "".join(map(stream.push, ids)) + stream.flush() == raw.decode("utf-8", "replace")


def test_the_table_of_texts_grows_no_further_than_the_vocabulary(tokenizer: HubTokenizer) -> None:
    for one in (tokenizer, ByteTokenizer()):
        for token in range(-5, one.vocabulary + 500):
            text = one.texts[token]
            assert text == one.decode([token]) or text is None
        assert len(one.texts) == one.vocabulary


class Pieces:
    """A vocabulary of texts."""

    def __init__(self, parts: list[str]) -> None:
        self.parts = parts
        self.texts = dict(enumerate(parts))

    def shown(self, token_id: int) -> bytes:
        return self.parts[token_id].encode()


@given(st.lists(st.text("ab", max_size=7), max_size=8), st.lists(st.text("ab", min_size=1, max_size=5), max_size=4))
def test_stop_strings_match_alike_however_the_text_is_cut(parts: list[str], stop: list[str]) -> None:
    assert run(Pieces(parts), list(range(len(parts))), stopping(stop)) == cut("".join(parts), stop)


def test_no_delta_holds_a_broken_character(tokenizer: HubTokenizer) -> None:
    for one in (tokenizer, BYTES):
        stream = TextStream(one, stopping([]), [])
        ids = one.encode(EMOJI, special=False)
        deltas = [stream.push(token) for token in ids]
        assert "\ufffd" not in "".join(deltas)
        assert "".join(deltas) + stream.flush() == EMOJI


def test_an_unfinished_character_shows_at_the_end_and_not_before() -> None:
    stream = TextStream(BYTES, stopping([]), [])
    assert [stream.push(byte) for byte in b"a\xf0\x9f\x91"] == ["a", "", "", ""]
    assert stream.flush() == "\ufffd"


@pytest.mark.parametrize(
    ("text", "stop", "shown", "match"),
    [
        ("one two", ["two"], "one ", "two"),
        ("two", ["two"], "", "two"),
        ("xabcx", ["ab", "abc"], "x", "ab"),
        ("xabcx", ["abc", "bc"], "x", "abc"),
        ("abcd", ["bcd", "c"], "ab", "c"),
        ("aaab", ["aab"], "a", "aab"),
        ("ab", ["abc"], "ab", None),
        ("日本語です", ["語"], "日本", "語"),
        ("x\nUser: y", ["\nUser:"], "x", "\nUser:"),
        ("same", ["", "m", "m"], "sa", "m"),
    ],
)
def test_the_first_complete_stop_string_ends_the_text(
    text: str, stop: list[str], shown: str, match: str | None
) -> None:
    assert run(BYTES, list(text.encode()), stopping(stop)) == (shown, match)


def test_what_may_become_a_stop_string_waits_until_it_cannot() -> None:
    stream = TextStream(BYTES, stopping(["abc"]), [])
    assert [stream.push(byte) for byte in b"xabab"] == ["x", "", "", "ab", ""]
    assert stream.push(ord("!")) == "ab!"
    assert stream.matched is None


def test_nothing_is_shown_after_a_match() -> None:
    stream = TextStream(BYTES, stopping(["b"]), list(b"ab"))
    assert stream.matched == "b"
    assert stream.push(ord("c")) == ""
    assert stream.flush() == ""


def test_a_stop_string_does_not_end_the_text_before_min_tokens() -> None:
    assert run(BYTES, list(b"ababab"), stopping(["ab"], min_tokens=3)) == ("ab", "ab")
    assert run(BYTES, list(b"ababab"), stopping(["ab"], min_tokens=7)) == ("ababab", None)


def test_a_long_stop_string_costs_no_more_than_its_length() -> None:
    stop = "a" * 100_000
    stream = TextStream(BYTES, stopping([stop]), [ord("a")] * 99_999)
    assert stream.push(ord("b")) == "a" * 99_999 + "b"


def test_clock_text_is_a_number_that_grows() -> None:
    clock = ClockText()
    first, second = clock.push(1), clock.push(1)
    assert first.startswith(" ")
    assert int(first) <= int(second)
    assert clock.flush() == ""
    assert clock.matched is None
