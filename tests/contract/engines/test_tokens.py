"""What every engine promises of its tokens: alike on one engine or two, alone or in a batch, at once or continued."""

import asyncio

from shared.messages import Finish, Stopping
from tests.engine_house import OTHERS, PROMPT, House, assert_empty, ids, reason, relay, sequence


async def test_engines_of_one_model_may_exchange_buffers_and_those_of_another_layout_may_not(engines: House) -> None:
    first, second, other = await engines.worker(), await engines.worker(), await engines.worker(block_size=8)
    assert first.engine.info == second.engine.info
    assert first.engine.info.fingerprint != other.engine.info.fingerprint


async def test_a_sequence_that_was_handed_over_goes_on_as_if_it_had_stayed(engines: House) -> None:
    prefill, decode = await engines.worker(), await engines.worker()
    for number, tokens in enumerate([PROMPT, *OTHERS]):
        sampled = await relay(prefill, decode, sequence(str(number), tokens))
        assert ids(sampled) == await prefill.alone(tokens, 12)
        assert reason(sampled) is Finish.LENGTH
    for worker in (prefill, decode):
        assert_empty(worker.engine)


async def test_greedy_text_is_the_same_whatever_the_seed(engines: House) -> None:
    worker = await engines.worker()
    texts = [
        ids(await relay(worker, worker, sequence(f"s{seed}", PROMPT, temperature=0.0, seed=seed))) for seed in (1, 2)
    ]
    assert texts[0] == texts[1] == await worker.alone(PROMPT, 12, temperature=0.0)


async def test_seed_and_choice_each_change_the_text(engines: House) -> None:
    worker = await engines.worker()
    drawn = [{"seed": 1}, {"seed": 2}, {"seed": 1, "choice": 1}, {"seed": 1}]
    texts = [ids(await relay(worker, worker, sequence(f"s{n}", PROMPT, **one))) for n, one in enumerate(drawn)]
    assert texts[0] == texts[3]
    assert len({tuple(text) for text in texts}) == 3


async def test_a_continued_request_draws_the_tokens_it_would_have_drawn(engines: House) -> None:
    prefill, decode = await engines.worker(), await engines.worker()
    whole = ids(await relay(prefill, decode, sequence("whole", PROMPT)))
    for done in (1, 5, 11):
        again = sequence(f"after-{done}", PROMPT + whole[:done], len(PROMPT))
        assert ids(await relay(prefill, decode, again)) == whole[done:]


async def test_sequences_run_at_once_and_do_not_notice_each_other(engines: House) -> None:
    prefill, decode = await engines.worker(), await engines.worker(num_blocks=200)
    wanted = {f"s{number}": tokens for number, tokens in enumerate([PROMPT, *OTHERS])}
    together = await asyncio.gather(*(relay(prefill, decode, sequence(key, tokens)) for key, tokens in wanted.items()))
    for tokens, sampled in zip(wanted.values(), together, strict=True):
        assert ids(sampled) == await prefill.alone(tokens, 12)


async def test_one_token_is_all_that_prefill_needs_when_one_is_asked_for(engines: House) -> None:
    worker = await engines.worker()
    first, _ = await worker.prefill(sequence("one", PROMPT, stopping=Stopping(max_tokens=1)))
    assert first.finish is Finish.LENGTH
    assert first.stop_token is None
    assert_empty(worker.engine)


async def test_max_tokens_counts_what_earlier_attempts_generated(engines: House) -> None:
    worker = await engines.worker()
    whole = await worker.alone(PROMPT, 5)
    again = sequence("again", PROMPT + whole[:3], len(PROMPT), Stopping(max_tokens=5))
    sampled = await relay(worker, worker, again)
    assert ids(sampled) == whole[3:]
    assert reason(sampled) is Finish.LENGTH


def first_new(tokens: list[int], after: int) -> int:
    """The place of the first token from `after` on that did not come before."""
    return next(place for place in range(after, len(tokens)) if tokens[place] not in tokens[:place])


async def test_a_stop_token_ends_the_text_wherever_it_comes(engines: House) -> None:
    worker = await engines.worker()
    whole = await worker.alone(PROMPT, 12)
    for place in (0, first_new(whole, 4)):
        stopping = Stopping(max_tokens=12, stop_token_ids=[whole[place]])
        sampled = await relay(worker, worker, sequence(f"stop-{place}", PROMPT, stopping=stopping))
        assert ids(sampled) == whole[: place + 1]
        assert reason(sampled) is Finish.STOP
        assert sampled[-1].stop_token == whole[place]
    assert_empty(worker.engine)


async def test_the_end_of_sequence_token_ends_the_text_unless_it_is_to_be_ignored(engines: House) -> None:
    whole = await (await engines.worker(eos_ids=frozenset())).alone(PROMPT, 12)
    place = first_new(whole, 3)
    worker = await engines.worker(eos_ids=frozenset({whole[place]}))
    assert worker.engine.info.eos_ids == {whole[place]}
    ended = await relay(worker, worker, sequence("ended", PROMPT))
    assert ids(ended) == whole[: place + 1]
    assert (reason(ended), ended[-1].stop_token) == (Finish.STOP, whole[place])
    ignoring = Stopping(max_tokens=12, ignore_eos=True)
    assert ids(await relay(worker, worker, sequence("ignored", PROMPT, stopping=ignoring))) == whole


async def test_nothing_stops_the_text_before_min_tokens(engines: House) -> None:
    whole = await (await engines.worker(eos_ids=frozenset())).alone(PROMPT, 12)
    worker = await engines.worker(eos_ids=frozenset({whole[0]}))
    stopping = Stopping(max_tokens=12, min_tokens=6, stop_token_ids=[whole[1], whole[2]])
    sampled = await relay(worker, worker, sequence("least", PROMPT, stopping=stopping))
    assert len(sampled) >= 6
    assert not {whole[0], whole[1], whole[2]} & set(ids(sampled)[:6])


async def test_logprobs_come_with_each_token_that_asked_for_them(engines: House) -> None:
    worker = await engines.worker()
    asked, plain = await asyncio.gather(
        relay(worker, worker, sequence("asked", PROMPT, logprobs=3)), relay(worker, worker, sequence("plain", PROMPT))
    )
    assert ids(asked) == ids(plain)
    assert all(one.alternatives is None for one in plain)
    for one in asked:
        assert one.alternatives is not None
        values = [value for _, value in one.alternatives.top]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert max(values[0], one.alternatives.logprob) <= 0
    (only,) = await relay(worker, worker, sequence("0", PROMPT, stopping=Stopping(max_tokens=1), logprobs=0))
    assert only.alternatives is not None
    assert only.alternatives.top == []
