"""Frames: columns in, bytes out, and nothing lost where one is split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine import Alternatives, Sampled
from shared.messages import Finish, Finished, Frame, Logprobs, Stopping, TokenLogprob, encode, encode_frame
from shared.worker.frames import split
from shared.worker.tokens import logprobs_of, show
from tests.unit.worker.scripted import Pieces, PlainText


def a_frame(entries: int, endings: int, logprobs: list[int]) -> Frame:
    numbers = list(range(entries))
    ended = [Finished(k, 0, Finish.STOP, 1, 1) for k in range(endings)]
    token = TokenLogprob(1, -0.1, "a", b"a")
    return Frame(
        "d1",
        (1, 1),
        numbers,
        [0] * entries,
        numbers,
        numbers,
        [str(k) for k in numbers],
        ended,
        [Logprobs(k, token, []) for k in logprobs if k < entries],
    )


@given(st.integers(0, 20), st.integers(0, 6), st.lists(st.integers(0, 19), unique=True).map(sorted))
def test_splitting_a_frame_loses_nothing_and_keeps_each_ending_after_its_tokens(
    entries: int, endings: int, logprobs: list[int]
) -> None:
    whole = a_frame(entries, endings, logprobs)
    pending, pieces = [whole], []
    while pending:
        frame = pending.pop(0)
        halves = split(frame)
        if halves is None:
            pieces.append(frame)
        else:
            pending[:0] = halves
    assert all(len(piece.ids) + len(piece.ended) <= 1 for piece in pieces)
    assert [k for piece in pieces for k in piece.ids] == whole.ids
    assert [e for piece in pieces for e in piece.ended] == whole.ended
    assert [piece.ids[one.entry] for piece in pieces for one in piece.logprobs] == [one.entry for one in whole.logprobs]
    last_token = max((i for i, piece in enumerate(pieces) if piece.ids), default=-1)
    assert all(i > last_token for i, piece in enumerate(pieces) if piece.ended)


@given(st.integers(0, 20), st.integers(0, 3), st.lists(st.integers(0, 19), unique=True).map(sorted))
def test_a_frames_bytes_are_those_of_any_message(entries: int, endings: int, logprobs: list[int]) -> None:
    frame = a_frame(entries, endings, logprobs)
    assert encode_frame(frame) == encode(frame)


def test_a_frame_that_cannot_be_said_leaves_nothing_in_the_next() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode_frame(Frame("d1", (1, 1), [1], [0], [0], [5], ["\ud800"]))
    assert encode_frame(a_frame(2, 1, [])) == encode(a_frame(2, 1, []))


def test_a_stop_token_ends_a_stream_and_releases_what_a_stop_string_held_back() -> None:
    text = PlainText(["abc"], [])
    assert show(text, Sampled("k", ord("a")), Stopping(9)).text == ""
    shown = show(text, Sampled("k", 7, Finish.STOP, stop_token=7), Stopping(9, stop_token_ids=[7]))
    assert (shown.text, shown.reason, shown.match) == ("a", Finish.STOP, 7)


def test_a_stop_string_wins_over_the_length_that_ends_with_the_same_token() -> None:
    text = PlainText(["ab"], [])
    show(text, Sampled("k", ord("a")), Stopping(2))
    shown = show(text, Sampled("k", ord("b"), Finish.LENGTH), Stopping(2))
    assert (shown.text, shown.reason, shown.match) == ("", Finish.STOP, "ab")


def test_a_length_ending_releases_held_text() -> None:
    shown = show(PlainText(["ab"], []), Sampled("k", ord("a"), Finish.LENGTH), Stopping(1))
    assert (shown.text, shown.reason, shown.match) == ("a", Finish.LENGTH, None)


def test_logprobs_carry_each_tokens_text_and_bytes() -> None:
    one = logprobs_of(Pieces(), 3, ord("a"), Alternatives(-0.5, [(ord("a"), -0.5), (ord("é"), -2.0)]))
    assert one == Logprobs(
        3,
        TokenLogprob(ord("a"), -0.5, "a", b"a"),
        [TokenLogprob(ord("a"), -0.5, "a", b"a"), TokenLogprob(ord("é"), -2.0, "é", "é".encode())],
    )
