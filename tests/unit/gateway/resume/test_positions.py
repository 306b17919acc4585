"""Positions in a stream: what events say is what can be read back, and nothing else can."""

import pytest

from services.gateway.answers.positions import Mark, Marks, Position, read_event_id, read_positions, units
from services.gateway.answers.skipping import SkippingChoice
from services.gateway.tools.said import CallPiece
from shared.errors import BadRequest
from shared.messages import Finish, Logprobs, TokenLogprob

CALL = "chatcmpl-" + "ab" * 16
WORDS = "some words "
ARGUMENTS = ('{"a":1}', '{"b":[2,3]}')


class Shown:
    """Writes down what is shown."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.pieces: list[CallPiece] = []
        self.logprobs: list[Logprobs] = []
        self.passed = 0
        self.reason: Finish | None = None

    def resume_at(self, seen: Position) -> None: ...

    def pass_over(self, logprobs: Logprobs) -> None:
        self.passed += 1

    def text(self, index: int, text: str) -> None:
        self.texts.append(text)

    def token(self, index: int, text: str, logprobs: Logprobs | None) -> None:
        self.texts.append(text)
        if logprobs is not None:
            self.logprobs.append(logprobs)

    def calls(self, index: int, text: str, calls: list[CallPiece]) -> None:
        self.texts.append(text)
        self.pieces += calls

    def finish(self, reason: Finish) -> None:
        self.reason = reason


def test_what_an_event_says_of_its_choices_is_read_back() -> None:
    marks = Marks(exact=True)
    first, second, third = marks.open(), marks.open(), marks.open()
    mark = Mark(exact=True)
    assert marks.put(first, mark.show(4, 10, 2)) == b"4.10.2,-,-"
    assert marks.put(second, Mark(exact=False).show(7, 3, 0)) == b"4.10.2,7,-"
    said = marks.put(third, b"end").decode()
    assert read_event_id(f"{CALL}:{said}") == (
        CALL,
        [Position(4, 10, 2), Position(7), Position(over=True)],
    )


def test_a_mark_goes_on_counting_where_a_client_was() -> None:
    mark = Mark(exact=True)
    assert mark.resume(Position(4, 10, 2)) == b"4.10.2"
    assert mark.show(5, 3, 1) == b"5.13.3"


@pytest.mark.parametrize(
    "text", ["", ":3", "chatcmpl-1:3", f"{CALL}", f"{CALL}:", f"{CALL}:-1", f"{CALL}:3.4", f"{CALL}:a", f"{CALL}:3,,4",
             f"{CALL}:{'9' * 30}", f"{CALL}:" + ",".join(["1"] * 129), f"x{CALL}:3", f"{CALL}\n:3"],
)  # fmt: skip
def test_what_no_event_said_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        read_event_id(text)
    with pytest.raises(BadRequest):
        read_positions("1;2")


@pytest.mark.parametrize("cut", range(40))
def test_however_text_and_calls_are_cut_again_what_was_seen_is_not_shown_and_the_rest_is(cut: int) -> None:
    def pieces(of_words: int, of_arguments: int) -> list[tuple[str, list[CallPiece]]]:
        """The same words and calls, cut differently."""
        made: list[tuple[str, list[CallPiece]]] = [
            (WORDS[start : start + of_words], []) for start in range(0, len(WORDS), of_words)
        ]
        for index, arguments in enumerate(ARGUMENTS):
            parts = [arguments[k : k + of_arguments] for k in range(0, len(arguments), of_arguments)]
            made.append(("", [CallPiece(index, f"id{index}", "f", parts[0])]))
            made += [("", [CallPiece(index, arguments=part)]) for part in parts[1:]]
        return made

    total = sum(units(text, calls) for text, calls in pieces(3, 2))
    seen = min(cut, total)
    before, after = Shown(), Shown()
    left = seen
    for text, calls in pieces(1, 1):  # what the client saw, a unit at a time
        if left < units(text, calls):
            break
        left -= units(text, calls)
        before.calls(0, text, calls)
    sink = SkippingChoice(after, Position(9, seen - left, 0))
    for text, calls in pieces(4, 3):
        sink.calls(0, text, calls)
    words = "".join(before.texts) + "".join(after.texts)
    assert words == WORDS
    for index, arguments in enumerate(ARGUMENTS):
        mine = [one for one in before.pieces + after.pieces if one.index == index]
        assert "".join(one.arguments for one in mine) == arguments
        assert sum(one.name is not None for one in mine) == 1


def test_tokens_with_logprobs_are_passed_over_once_each_and_count_for_places() -> None:
    shown = Shown()
    sink = SkippingChoice(shown, Position(1))
    entries = [Logprobs(0, TokenLogprob(n, -1.0, "x", b"x"), []) for n in range(4)]
    for index, entry in enumerate(entries):
        sink.token(index, f"t{index}", entry)
    assert shown.passed == 2
    assert shown.logprobs == entries[2:]
    assert "".join(shown.texts) == "t2t3"


def test_an_ending_that_was_seen_is_not_shown_again() -> None:
    shown = Shown()
    sink = SkippingChoice(shown, Position(over=True))
    sink.text(0, "a")
    sink.finish(Finish.STOP)
    assert (shown.texts, shown.reason) == ([], None)
