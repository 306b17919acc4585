"""Streams that are over at a worker: kept for a while, within bounds, and told as far as one message holds."""

from shared.messages import (
    Claimed,
    Finish,
    Finished,
    Logprobs,
    Request,
    Sampling,
    Stopping,
    TokenLogprob,
    pack_tokens,
    unpack_tokens,
)
from shared.worker.keeping import Keeping
from shared.worker.progress import Progress

END = Finished(1, 0, Finish.LENGTH, 3, 2)


def progress(name: str = "r1", attempt: int = 0, *, memo: bytes = b"t", tokens: int = 3) -> Progress:
    request = Request(name, attempt, "g", 1, pack_tokens([7, 8, 100]), 2, Sampling(), Stopping(9), 0, 0, memo, "acme")
    ids = list(range(200, 200 + tokens))
    logprobs = [Logprobs(k, TokenLogprob(one, -1.0, "x", b"x"), []) for k, one in enumerate(ids)]
    return Progress(request, ids, [f"<{one}>" for one in ids], logprobs, END)


def test_what_is_told_ends_with_all_that_was_made() -> None:
    told = progress().claimed("d1")
    assert isinstance(told, Claimed)
    assert unpack_tokens(told.request.tokens) == [7, 8, 100, 200, 201, 202]
    assert told.texts == ["<200>", "<201>", "<202>"]
    assert told.ended == END


def test_what_does_not_fit_is_left_out_from_the_end_and_then_it_has_not_ended() -> None:
    told = progress().claimed("d1", 1)
    assert unpack_tokens(told.request.tokens) == [7, 8, 100, 200]
    assert (told.texts, [one.entry for one in told.logprobs], told.ended) == (["<200>"], [0], None)


def test_the_newest_attempt_is_kept_until_its_time_is_over() -> None:
    keeping = Keeping(10.0)
    keeping.put(progress(attempt=1), 0.0)
    keeping.put(progress(attempt=0), 1.0)
    kept = keeping.get("r1", 9.0)
    assert kept is not None
    assert kept.request.attempt == 1
    assert keeping.get("r1", 10.0) is None
    assert (len(keeping), keeping.held_bytes) == (0, 0)


def test_what_nobody_can_ask_for_is_not_kept() -> None:
    keeping = Keeping(10.0)
    keeping.put(progress(memo=b""), 0.0)
    assert len(keeping) == 0
    off = Keeping(0.0)
    off.put(progress(), 0.0)
    assert len(off) == 0


def test_number_and_bytes_are_bounded_and_the_oldest_goes_first() -> None:
    keeping = Keeping(10.0, most=2)
    for name in "abc":
        keeping.put(progress(name), 0.0)
    assert [keeping.get(name, 0.0) is not None for name in "abc"] == [False, True, True]
    small = Keeping(10.0, most_bytes=progress().size * 2)
    for name in "abc":
        small.put(progress(name), 0.0)
    assert len(small) == 2
    assert small.held_bytes <= progress().size * 2
