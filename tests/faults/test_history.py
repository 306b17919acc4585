"""The checker finds what is wrong: each bad history, made by hand, is named. And the oracle is a real run's text."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.client import Answer, Event
from tests.faults.cluster import cluster
from tests.faults.history import Entry, History, check
from tests.faults.oracle import reference

TEXT = "the whole answer"
PROMPT_TOKENS = 5


def good() -> Answer:
    """What a request gets where nothing goes wrong."""
    return Answer(
        status=200,
        request_id="cmpl-1",
        events=[Event(float(n), f"cmpl-1:{n}", letter) for n, letter in enumerate(TEXT)],
        finishes=[(0, "length")],
        usage={"prompt_tokens": PROMPT_TOKENS, "completion_tokens": len(TEXT)},
        dones=1,
    )


def history(answer: Answer | None) -> History:
    return History([Entry("one", TEXT, PROMPT_TOKENS, answer)])


def renumbered(events: list[Event]) -> list[Event]:
    return [event._replace(id=f"cmpl-1:{n}") for n, event in enumerate(events)]


def lost(answer: Answer) -> None:
    del answer.events[3]


def lost_and_renumbered(answer: Answer) -> None:
    answer.events = renumbered(answer.events[:3] + answer.events[4:])


def repeated(answer: Answer) -> None:
    answer.events.insert(4, answer.events[3])


def swapped(answer: Answer) -> None:
    answer.events[3], answer.events[4] = answer.events[4], answer.events[3]


def swapped_text(answer: Answer) -> None:
    swapped(answer)
    answer.events = renumbered(answer.events)


def short_finish(answer: Answer) -> None:
    del answer.events[-1]


def short_and_counted_so(answer: Answer) -> None:
    del answer.events[-1]
    answer.usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": len(TEXT) - 1}


def longer(answer: Answer) -> None:
    answer.events.append(Event(99.0, f"cmpl-1:{len(TEXT)}", "!"))


def finished_twice(answer: Answer) -> None:
    answer.finishes.append((0, "length"))


def finished_and_failed(answer: Answer) -> None:
    answer.errors.append({"code": "worker_lost"})


def failed_twice(answer: Answer) -> None:
    answer.finishes.clear()
    answer.errors += [{"code": "worker_lost"}, {"code": "worker_lost"}]


def done_without_ending(answer: Answer) -> None:
    answer.finishes.clear()


def wrong_usage(answer: Answer) -> None:
    answer.usage = {"prompt_tokens": 2 * PROMPT_TOKENS, "completion_tokens": len(TEXT)}


def no_usage(answer: Answer) -> None:
    answer.usage = None


def wrong_before_it_failed(answer: Answer) -> None:
    answer.events = [answer.events[0], answer.events[1]._replace(text="X")]
    answer.finishes.clear()
    answer.errors.append({"code": "worker_lost"})


def another_reason(answer: Answer) -> None:
    answer.finishes = [(0, "stop")]


def without_id(answer: Answer) -> None:
    answer.events[3] = answer.events[3]._replace(id="")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lost, "token 4 came in place 3: lost before it"),
        (lost_and_renumbered, "wrong text from token 3"),
        (repeated, "token 3 came in place 4: repeated"),
        (swapped, "token 4 came in place 3"),
        (swapped_text, "wrong text from token 3"),
        (short_finish, "a clean finish with 15 of 16 tokens"),
        (short_and_counted_so, "a clean finish with 15 of 16 tokens"),
        (longer, "wrong text from token 16"),
        (finished_twice, "ended more than once"),
        (finished_and_failed, "ended more than once"),
        (failed_twice, "ended more than once"),
        (done_without_ending, "[DONE] without"),
        (wrong_usage, "usage says (10, 16)"),
        (no_usage, "usage says (None, None)"),
        (wrong_before_it_failed, "wrong text from token 1"),
        (another_reason, "finished for 'stop'"),
        (without_id, "an event without an index"),
    ],
)
def test_a_bad_history_is_named(spoil: Callable[[Answer], None], said: str) -> None:
    answer = good()
    spoil(answer)
    assert any(said in violation for violation in check(history(answer)))


def test_a_good_history_a_refusal_an_error_midway_and_a_broken_connection_are_in_order() -> None:
    assert check(history(good())) == []
    refused = Answer(status=503, errors=[{"code": "no_capacity"}])
    midway = good()
    midway.events, midway.finishes, midway.errors = midway.events[:4], [], [{"code": "worker_lost"}]
    broken = Answer(status=200, events=good().events[:4])
    for answer in (refused, midway, broken):
        assert check(history(answer)) == []
        assert len(history(answer).failed) == 1


def test_a_request_that_never_ended_and_a_name_given_twice_are_named() -> None:
    assert "vanished" in check(history(None))[0]
    twice = History([Entry("one", TEXT, PROMPT_TOKENS, good()), Entry("two", TEXT, PROMPT_TOKENS, good())])
    assert check(twice) == ["2 requests are called cmpl-1"]


async def test_a_run_without_faults_gets_the_oracles_text_and_leaves_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path, prefills=1, decodes=1) as fleet:
        history = History()
        for seed, prompt, temperature in ((7, "hello", 1.0), (8, "grüße", 0.0), (-3, "", 0.7)):
            await history.ask(fleet.url(), prompt or "x" * 700, 150, seed=seed, temperature=temperature)
        assert check(history) == []
        assert history.failed == []
        assert history.entries[0].answer is not None
        assert history.entries[0].answer.text != reference("hello", 150, seed=8), "the seed counts"
        await fleet.quiet()
