"""What vLLM's steps mean for the sequences that it computes for us, with outputs as its core sends them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shared.engine import EngineInfo, Sequence
from shared.engine.vllm_engine.book import ERROR, Book
from shared.engine.vllm_engine.held import Held
from shared.engine.vllm_engine.prefixes import Prefixes
from shared.errors import BadRequest, Cancelled, ContextTooLong, EngineFailed, KvRefused, Overloaded
from shared.messages import Finish, Sampling, Stopping

EOS = 9
INFO = EngineInfo("m", "f", 64, 16, 1024, 6, 3, frozenset({EOS}))
LENGTH = 1


def output(number: str, *tokens: int, finish: int | None = None, **more: Any) -> SimpleNamespace:
    fields = {"new_logprobs": None, "prefill_stats": None, "num_nans_in_logits": 0, **more}
    return SimpleNamespace(request_id=number, new_token_ids=list(tokens), finish_reason=finish, **fields)


def outputs(*some: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(outputs=list(some))


def book() -> Book:
    return Book(INFO, 100, Prefixes(6, 16))


def entered(made: Book, key: str = "a", *, prefills: bool = False, tokens: int = 20, **sampling: Any) -> Held:
    sequence = Sequence(key, [5] * tokens, tokens - 1, Sampling(**sampling), Stopping(max_tokens=8))
    held = made.enter(sequence, prefills=prefills)
    held.number = made.number(held)
    return held


async def test_a_step_is_the_tokens_of_all_sequences_in_it() -> None:
    made = book()
    one, two = entered(made, "a"), entered(made, "b")
    step, ended = made.take(outputs(output(one.number, 6), output(two.number, 7), output("unknown", 8)))
    assert [(got.key, got.token_id, got.finish) for got in step.sampled] == [("a", 6, None), ("b", 7, None)]
    assert ended == []
    assert made.load().steps == 1


async def test_the_token_that_ends_a_text_ends_the_sequence_and_what_follows_is_nobodys() -> None:
    made = book()
    held = entered(made)
    step, ended = made.take(outputs(output(held.number, EOS, 7, finish=0)))
    assert [(got.token_id, got.finish, got.stop_token) for got in step.sampled] == [(EOS, Finish.STOP, EOS)]
    assert ended == [held]
    made.leave(held)
    assert made.take(outputs(output(held.number, 7)))[0].sampled == []
    assert made.load()[:2] == (0, 6)


async def test_a_prompt_answers_with_its_first_token_and_what_was_cached() -> None:
    made = book()
    held = entered(made, prefills=True)
    stats = SimpleNamespace(num_local_cached_tokens=16, num_cached_tokens=99)
    step, ended = made.take(outputs(output(held.number, 7, finish=LENGTH, prefill_stats=stats)))
    assert step.sampled == []
    assert ended == []
    prefilled = held.first.result()
    assert (prefilled.first.token_id, prefilled.first.finish, prefilled.cached_tokens) == (7, None, 16)
    assert held.finished


async def test_a_prompt_that_is_exported_takes_no_place_any_more() -> None:
    made = book()
    held = entered(made, prefills=True)
    assert made.load()[:2] == (1, 4)
    held.exported = True
    assert made.load()[:2] == (0, 6)


async def test_logprobs_are_the_drawn_tokens_and_as_many_of_the_likeliest_as_were_asked_for() -> None:
    made = book()
    held = entered(made, logprobs=2)
    found = SimpleNamespace(
        logprob_token_ids=np.array([[7, 1, 2, 3]]), logprobs=np.array([[-1.5, -0.1, -0.2, -0.3]], np.float32)
    )
    step, _ = made.take(outputs(output(held.number, 7, new_logprobs=found)))
    (sampled,) = step.sampled
    assert sampled.alternatives is not None
    assert sampled.alternatives.logprob == pytest.approx(-1.5)
    assert sampled.alternatives.top == [(1, pytest.approx(-0.1)), (2, pytest.approx(-0.2))]


@pytest.mark.parametrize("nans", [0, 3])
async def test_what_vllm_could_not_compute_fails_that_sequence_alone(nans: int) -> None:
    made = book()
    bad, good = entered(made, "bad"), entered(made, "good")
    one = output(bad.number, 7, num_nans_in_logits=nans) if nans else output(bad.number, finish=ERROR)
    step, ended = made.take(outputs(one, output(good.number, 7)))
    ((key, error),) = step.failed
    assert key == "bad"
    assert isinstance(error, EngineFailed if nans else KvRefused)
    assert [got.key for got in step.sampled] == ["good"]
    assert ended == [bad]


async def test_the_samplers_trouble_fails_one_sequence_or_all() -> None:
    made = book()
    entered(made, "a")
    entered(made, "b")
    prompt = entered(made, "p", prefills=True)
    step, ended = made.fail("b", EngineFailed("no"))
    assert [key for key, _ in step.failed] == ["b"]
    made.leave(ended[0])
    step, ended = made.fail("", EngineFailed("no"))
    assert [key for key, _ in step.failed] == ["a"]
    with pytest.raises(EngineFailed):
        prompt.first.result()


async def test_what_was_released_is_not_told() -> None:
    made = book()
    held = entered(made)
    held.released = True
    step, ended = made.take(outputs(output(held.number, 7, finish=LENGTH)))
    assert (step.sampled, step.failed, ended) == ([], [], [])
    assert held.finished


async def test_places_and_blocks_are_given_out_once() -> None:
    made = book()
    entered(made, "a")
    with pytest.raises(BadRequest):
        entered(made, "a")
    with pytest.raises(ContextTooLong):
        entered(made, "long", tokens=64)
    entered(made, "b", tokens=40)
    with pytest.raises(Overloaded, match="KV blocks"):
        entered(made, "c", tokens=40)
    entered(made, "c", tokens=15)
    with pytest.raises(Overloaded, match="places"):
        entered(made, "d", tokens=2)


async def test_whoever_waits_for_a_prompt_that_is_released_is_told() -> None:
    made = book()
    held = entered(made, prefills=True)
    made.leave(held)
    with pytest.raises(Cancelled):
        await held.first


async def test_growing_texts_take_more_blocks() -> None:
    made = book()
    held = entered(made, tokens=16)
    assert made.load().free_blocks == 5
    made.take(outputs(output(held.number, 7)))
    assert made.load().free_blocks == 4
