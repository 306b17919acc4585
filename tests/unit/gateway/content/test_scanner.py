# ruff: noqa: RUF001  look-alikes are what these texts are about
"""The scanner: whatever the pieces, what goes out is the text before the first match of the whole."""

import re
import unicodedata

import pytest
import re2
from hypothesis import assume, given
from hypothesis import strategies as st

from services.gateway.content.folding import MOST, Folder, in_word, is_mark
from services.gateway.content.patterns import translate
from services.gateway.content.rules import Rules, compile_word
from services.gateway.content.scanner import Scanner

LETTERS = "abcx1- éé\u0301\u0323\u200bộôﬁßÉАбй가か\u3099バﾊﾞ\n\t\u00ad\U0001f469."
PATTERNS = [
    r"ab{1,3}c",
    r"\bab\b",
    r"\d{2}-\d{2}",
    r"(?:a|bc)+x",
    r"[a-c]{2,4}1",
    r"^ab",
    r"c$",
    r"x.{0,3}x",
    r"[а-я]б",
    r"fi|ss",
    r"é+a",
    r"a[^b]c",
    r"(?i:B)a(c|d)?\.",
]


class Held:
    """Rules that stay."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules


def streamed(rules: Rules, pieces: list[str]) -> tuple[str, bool]:
    """What goes out of a stream, and whether it was stopped."""
    scanner, text, out = Scanner(Held(rules)), "", 0
    for piece in pieces:
        text += piece
        out += scanner.feed(piece)
        if scanner.match:
            return text[:out], True
    out += scanner.finish()
    return text[:out], scanner.match is not None


def first(rules: Rules, words: list[str], sources: list[str], text: str, *, whole: bool) -> int | None:
    """Where the first match begins, found without any cleverness."""
    folder = rules.folder
    folded, starts = folder.fold(text)
    places = list(range(len(text))) if starts is None else starts
    found = []
    for word in words:
        for at in (hit.start() for hit in re.finditer(f"(?={re.escape(word)})", folded)):
            end = at + len(word)
            after, before = folded[end : end + 1], folded[at - 1 : at] if at else ""
            inside = (after and in_word(after) and in_word(word[-1])) or (
                before and in_word(before) and in_word(word[0])
            )
            if not (after and is_mark(after)) and not (whole and inside):
                found.append(at)
    for source in sources:
        hit = re2.search(translate(source, folder, ignore_case=True).full, folded)
        if hit:
            found.append(hit.start())
    return places[min(found)] if found else None


def rules_of(words: list[str], sources: list[str], *, whole: bool, window: int = 8, accents: bool = False) -> Rules:
    folder = Folder(ignore_accents=accents)
    made = [(translate(source, folder, ignore_case=True), "p") for source in sources]
    return Rules(dict.fromkeys(words, "w"), made, folder=folder, whole=whole, window=window)


@given(
    st.lists(st.text(LETTERS, min_size=1, max_size=5), max_size=4),
    st.lists(st.sampled_from(PATTERNS), max_size=3, unique=True),
    st.lists(st.text(LETTERS, max_size=6), max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_what_goes_out_is_the_text_before_the_first_match_however_it_is_cut(
    words: list[str],
    sources: list[str],
    pieces: list[str],
    whole: bool,  # noqa: FBT001
    accents: bool,  # noqa: FBT001
) -> None:
    folder = Folder(ignore_accents=accents)
    folded = [word for word in map(folder.word, words) if word and not is_mark(word[0])]
    bounded = [source for source in sources if translate(source, folder, ignore_case=True).width < 100]
    rules = rules_of(folded, bounded, whole=whole, accents=accents)
    text = "".join(pieces)
    at = first(rules, folded, bounded, text, whole=whole)
    assert streamed(rules, pieces) == ((text, False) if at is None else (text[:at], True))


@given(st.sampled_from(PATTERNS), st.data())
def test_every_beginning_of_a_match_is_held_back(source: str, data: st.DataObject) -> None:
    rules = rules_of([], [source], whole=False, window=4096)
    match = data.draw(st.from_regex(re.compile(source), fullmatch=True))
    folded = rules.folder.fold(match)[0]
    assume(re2.fullmatch(translate(source, rules.folder, ignore_case=True).full, folded))
    assert rules.patterns is not None
    for size in range(1, len(folded)):
        if rules.patterns.first(folded[:size], 0, final=True) is None:
            assert rules.patterns.pending(folded[:size], 0) == 0


def test_where_nothing_can_be_beginning_text_passes_at_once() -> None:
    rules = rules_of(["bad idea"], [r"\d{3}-\d{2}"], whole=True)
    scanner = Scanner(Held(rules))
    assert [scanner.feed(piece) for piece in ("All", " is", " well", ", b", "ut 12")] == [3, 3, 5, 2, 4]
    assert scanner.feed(" no.") == 6


def test_trivial_evasion_fails() -> None:
    rules = rules_of([compile_word("Bad Idea", Folder())], [], whole=True)
    for text in (
        "a BAD idea",
        "a b\u200ba\u00add i\ufeffdea",
        "a ｂａｄ\u2003ｉｄｅａ",
        "a bad\n\n   idea",
        "a b\u0336a\u0336d\u0336 idea",
        "a 𝐛𝐚𝐝 𝕚𝕕𝕖𝕒!",
    ):
        assert streamed(rules, list(text)) == ("a ", True), text
    assert streamed(rules, list("a bad ideal, abad idea")) == ("a bad ideal, abad idea", False)


@pytest.mark.parametrize("accents", [True, False])
@pytest.mark.parametrize("word", ["ộ", "ô\u0323", "ọ\u0302", "o\u0323\u0302", "o\u0302\u0323"])
def test_the_marks_of_a_letter_may_be_written_in_any_order_and_cut_anywhere(word: str, accents: bool) -> None:  # noqa: FBT001
    rules = rules_of([compile_word("cộng", Folder(ignore_accents=accents))], [], whole=True, accents=accents)
    assert streamed(rules, list(f"một c{word}ng hai")) == ("một ", True)
    assert streamed(rules, [f"một c{word}ng hai"]) == ("một ", True)
    assert streamed(rules, list(f"một c{word}n hai")) == (f"một c{word}n hai", False)


@given(st.text(st.sampled_from("aoộôé\u0301\u0302\u0323\u0327\u3099かが"), max_size=12))
def test_texts_that_are_equal_after_nfkc_are_equal_after_folding(text: str) -> None:
    folder = Folder()
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert folder.fold(unicodedata.normalize(form, text))[0] == folder.fold(text)[0]


def test_an_accent_makes_another_letter_unless_the_moderator_ignores_it() -> None:
    assert streamed(rules_of(["cafe"], [], whole=False), ["caf", "e\u0301"]) == ("cafe\u0301", False)
    assert streamed(rules_of(["cafe\u0301"], [], whole=False), ["caf", "é!"]) == ("", True)
    assert streamed(rules_of(["cafe"], [], whole=False, accents=True), ["caf", "é!"]) == ("", True)


def test_a_pattern_without_a_longest_match_is_caught_within_its_window() -> None:
    rules = rules_of([], [r"key=\w+;"], whole=False, window=16)
    assert streamed(rules, list("my key=abcdefgh; x")) == ("my ", True)
    out, stopped = streamed(rules, list("my key=" + "a" * 40 + "; x"))
    assert not stopped
    assert out == "my key=" + "a" * 40 + "; x"


def test_a_match_waits_for_an_earlier_one_that_may_still_come() -> None:
    rules = rules_of(["one two three", "two"], [r"x \d+ y"], whole=True)
    assert streamed(rules, ["say one", " two", " thr", "ee."]) == ("say ", True)
    assert streamed(rules, ["say one", " two", " thr", "ow."]) == ("say one ", True)
    assert streamed(rules, ["an x 1", "2 two", " y"]) == ("an x 12 ", True)
    scanner = Scanner(Held(rules))
    assert scanner.feed("say one two thr") == 4
    assert scanner.match is None


def test_whatever_characters_come_the_table_of_a_folder_stays_small() -> None:
    folder = Folder()
    everything = "".join(map(chr, range(0x80, 0x20000)))
    assert folder.fold(everything) == Folder().fold(everything)
    assert 0 < len(folder) <= MOST
    assert folder.fold("Ä\u200bB")[0] == "a\u0308b"
