"""Patterns: what is refused, why, and that nothing is slow."""

import time
from pathlib import Path

import pytest
import re2

from services.gateway.content.files import RuleFiles
from services.gateway.content.folding import Folder
from services.gateway.content.patterns import BadPattern, translate
from services.gateway.content.scanner import Scanner
from shared.config import ModeratorSettings
from shared.errors import ConfigError


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"(a)\1", "references back"),
        (r"a(?=b)", "look-ahead"),
        (r"(?<!x)a", "look-ahead and look-behind"),
        (r"a*", "empty text"),
        (r"(a", "unterminated"),
        (r"[z-a]", "range"),
        (r"a{2000}", "above 1000"),
        (r"(?m)^a", "line ends"),
        (r"(?-i:a)b", "flags"),
        (r"\Wa", "[^"),
        (r"a++b", "possessive"),
        ("a" * 501, "limit is 500"),
        (r"((a{900}){900})", "repetition"),
    ],
)
def test_what_cannot_be_matched_in_linear_time_is_refused_by_name(pattern: str, why: str) -> None:
    with pytest.raises(BadPattern, match=r".") as error:
        translate(pattern, Folder(), ignore_case=True)
    assert why in str(error.value)


def test_a_set_that_leaves_a_letter_out_leaves_it_out_as_rules_see_it_or_is_refused() -> None:
    bare = Folder(ignore_accents=True)
    for folder, pattern, text in ((bare, "a[^é]c", "aéc"), (bare, "a[^é1]c", "aec"), (Folder(), "a[^\uff22]c", "abc")):
        full = translate(pattern, folder, ignore_case=True).full
        assert not re2.search(full, folder.fold(text)[0])
        assert re2.search(full, folder.fold("azc")[0])
    for pattern in ("a[^é]c", "a[^é1]c"):
        with pytest.raises(BadPattern, match="two characters"):
            translate(pattern, Folder(), ignore_case=True)


def files(tmp_path: Path, patterns: str, **more: object) -> RuleFiles:
    (tmp_path / "patterns").write_text(patterns)
    return RuleFiles("m", ModeratorSettings(patterns={"p": str(tmp_path / "patterns")}, **more))  # type: ignore[arg-type]


def test_a_pattern_that_would_explode_elsewhere_costs_no_more_than_others(tmp_path: Path) -> None:
    rules = files(tmp_path, "(a+)+b\n(x|xx)+y\n([a-z]+)*[0-9]z\n")
    started = time.perf_counter()
    scanner = Scanner(rules)
    for _ in range(200):
        scanner.feed("aaaaaaaaaaxxxxxxxxxx" * 5)
    scanner.finish()
    assert scanner.match is None
    assert time.perf_counter() - started < 20, "a backtracking engine would not end at all"


def test_every_fault_of_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        files(tmp_path, "# fine\nok\n(\n\na*\n")
    assert len(error.value.faults) == 2
    assert f"{tmp_path}/patterns:3 cannot be used" in error.value.faults[0]
    assert f"{tmp_path}/patterns:5 cannot be used: it matches the empty text" in error.value.faults[1]
    for missing in ("words", "patterns"):
        with pytest.raises(ConfigError, match="cannot be read"):
            RuleFiles("m", ModeratorSettings(**{missing: {"c": str(tmp_path / "none")}}))
    with pytest.raises(ConfigError, match="hold no rule"):
        files(tmp_path, "# nothing\n")


def test_changed_files_are_read_again_and_broken_ones_leave_the_old_rules(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = files(tmp_path, "one\n")
    first = rules.rules
    assert not rules.refresh()
    (tmp_path / "patterns").write_text("one|two\n")
    assert rules.refresh()
    second = rules.rules
    assert second is not first
    (tmp_path / "patterns").write_text("one|(\n")
    assert not rules.refresh()
    assert not rules.refresh()
    assert rules.rules is second
    assert len([record for record in caplog.records if "not reloaded" in record.message]) == 1
    (tmp_path / "patterns").unlink()
    assert not rules.refresh()
    assert rules.rules is second


def test_many_words_are_found_whatever_automaton_they_are_in(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("\n".join(f"word{number}x" for number in range(25_000)))
    rules = RuleFiles("m", ModeratorSettings(words={"c": str(tmp_path / "words")}))
    for number in (0, 12_345, 24_999):
        scanner = Scanner(rules)
        text = f"here is word{number}x."
        assert sum(scanner.feed(letter) for letter in text if scanner.match is None) == 8
        assert scanner.match is not None
