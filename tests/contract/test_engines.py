"""What every engine promises a worker: `shared.engine.Engine`, run against each of them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.engine import Engine
from shared.errors import BadRequest, BatonError, EngineFailed, KvRefused, Overloaded
from shared.messages import Finish, Stopping
from tests.engine_house import DEADLINE_S, House, Worker, buffer_for, extended, house, ids, reason, relay, sequence
from tests.waiting import until

PROMPT = [84, 104, 101, 32, 102, 111, 120, 32, 105, 115]
"""Ten tokens: two blocks and a half."""
OTHERS = [PROMPT[:1], PROMPT[:4], PROMPT[:5], PROMPT * 3, [101, *PROMPT], PROMPT[::-1]]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from tests.tiny_models import edit, make

    directory = tmp_path_factory.mktemp("tiny")
    make("gemma 3", directory)
    # no token ends a text unless a test says so; and room for more than the sizes that tests ask for
    edit(directory, eos_token_id=None, max_position_embeddings=1024)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


@pytest.fixture(params=["sim", "torch"])
async def engines(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    directory = request.getfixturevalue("tiny_model") if request.param == "torch" else None
    async with house(request.param, directory) as made:
        yield made


def assert_empty(engine: Engine) -> None:
    load = engine.load()
    assert (load.sequences, load.free_blocks) == (0, engine.info.blocks)


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


async def test_a_prompt_without_room_for_a_token_is_refused_and_leaves_nothing(engines: House) -> None:
    worker = await engines.worker(max_model_len=32)
    assert worker.engine.info.context == 32
    for length in (32, 33, 60):
        with pytest.raises(BadRequest):
            await worker.prefill(sequence("long", [5] * length))
    assert_empty(worker.engine)


async def test_the_context_ends_the_text_when_max_tokens_does_not(engines: House) -> None:
    worker = await engines.worker(max_model_len=32)
    sampled = await relay(worker, worker, sequence("on", PROMPT, stopping=Stopping(max_tokens=1000)))
    assert len(PROMPT) + len(sampled) == 32
    assert reason(sampled) is Finish.LENGTH
    (last,) = await relay(worker, worker, sequence("full", [5] * 31, stopping=Stopping(max_tokens=1000)))
    assert last.finish is Finish.LENGTH


async def test_what_finds_no_place_is_refused_as_overload_and_holds_nothing(engines: House) -> None:
    source = await engines.worker()
    worker = await engines.worker(reads=False, max_num_seqs=2, num_blocks=400, max_model_len=800)
    endless = [sequence(name, PROMPT, stopping=Stopping(max_tokens=700)) for name in ("a", "b", "c")]
    handed = [(extended(one, first), buffer) for one in endless for first, buffer in [await source.prefill(one)]]
    for one, buffer in handed[:2]:
        await worker.engine.insert(one, len(PROMPT), buffer)
    one, buffer = handed[2]
    with pytest.raises(Overloaded) as refused:
        await worker.engine.insert(one, len(PROMPT), buffer)
    assert refused.value.retryable
    with pytest.raises(Overloaded):
        await worker.engine.prefill(sequence("one more", PROMPT), buffer_for(worker.engine, len(PROMPT)))
    assert worker.engine.load().sequences == 2
    await worker.engine.release("a")
    await worker.engine.insert(one, len(PROMPT), buffer)  # the freed place is a place
    for key in "abc":
        await worker.engine.release(key)
    assert_empty(worker.engine)


async def test_what_finds_no_blocks_is_refused_as_overload_and_holds_nothing(engines: House) -> None:
    large = {"num_blocks": 100, "max_model_len": 400}  # more than an engine that nobody reads from can fill
    source, worker = await engines.worker(**large), await engines.worker(reads=False, **large)
    stopping = Stopping(max_tokens=380)
    small, big = sequence("small", PROMPT, stopping=stopping), sequence("big", PROMPT * 39, stopping=stopping)
    first, buffer = await source.prefill(small)
    await worker.engine.insert(extended(small, first), len(PROMPT), buffer)
    first, buffer = await source.prefill(big)
    with pytest.raises(Overloaded):
        await worker.engine.insert(extended(big, first), len(big.tokens), buffer)
    with pytest.raises(Overloaded):
        await worker.engine.prefill(big, buffer)
    assert worker.engine.load().sequences == 1
    await worker.engine.release("small")
    assert_empty(worker.engine)
    await worker.engine.insert(extended(big, first), len(big.tokens), buffer)


async def test_a_batch_that_outgrows_its_blocks_gives_up_its_youngest_and_finishes_the_others(engines: House) -> None:
    source, worker = await engines.worker(), await engines.worker(num_blocks=7, max_model_len=28)
    wanted = [sequence(name, PROMPT, seed=seed) for seed, name in enumerate(["old", "young"])]
    handed = [await source.prefill(one) for one in wanted]
    for one, (first, buffer) in zip(wanted, handed, strict=True):
        await worker.engine.insert(extended(one, first), len(PROMPT), buffer)
    async with asyncio.timeout(DEADLINE_S):
        await worker.ending("young").over.wait()
        await worker.ending("old").over.wait()
    lost = worker.ending("young")
    assert isinstance(lost.error, Overloaded)
    assert lost.error.retryable
    assert [handed[0][0].token_id, *worker.ending("old").tokens] == await source.alone(PROMPT, 12, seed=0)
    so_far = [handed[1][0].token_id, *lost.tokens]
    again = sequence("again", PROMPT + so_far, len(PROMPT), seed=1)
    assert so_far + ids(await relay(source, source, again)) == await source.alone(PROMPT, 12, seed=1)
    assert_empty(worker.engine)


async def test_a_buffer_that_cannot_be_the_sequences_is_refused(engines: House) -> None:
    worker = await engines.worker()
    wanted = sequence("odd", PROMPT)
    first, buffer = await worker.prefill(wanted)
    whole = extended(wanted, first)
    for kv_tokens, given in [
        (len(PROMPT), buffer[:-1]),
        (len(PROMPT), memoryview(bytes(buffer) + b"\0")),
        (len(PROMPT), buffer[:0]),
        (len(PROMPT) - 1, buffer[: worker.engine.info.kv_bytes(len(PROMPT) - 1)]),
        (len(PROMPT) + 1, buffer_for(worker.engine, len(PROMPT) + 1)),
    ]:
        with pytest.raises(KvRefused) as refused:
            await worker.engine.insert(whole, kv_tokens, given)
        assert refused.value.reason == "length"
    assert_empty(worker.engine)


async def test_a_key_is_held_once(engines: House) -> None:
    worker = await engines.worker()
    await worker.engine.prefill(sequence("twice", PROMPT), buffer_for(worker.engine, len(PROMPT)))
    with pytest.raises(BadRequest):
        await worker.engine.prefill(sequence("twice", PROMPT), buffer_for(worker.engine, len(PROMPT)))
    await worker.engine.exported("twice")
    await worker.engine.release("twice")
    assert_empty(worker.engine)


async def test_export_leaves_nothing_of_another_request_in_the_buffer(engines: House) -> None:
    worker = await engines.worker(enable_prefix_cache=False)
    buffers = []
    for rubbish in (b"\x00", b"\xff"):
        buffer = memoryview(bytearray(rubbish * worker.engine.info.kv_bytes(len(PROMPT))))
        await worker.engine.prefill(sequence("clean", PROMPT), buffer)
        await worker.engine.exported("clean")
        await worker.engine.release("clean")
        buffers.append(bytes(buffer))
    assert buffers[0] == buffers[1]


async def test_export_frees_the_blocks_before_the_key_is_released(engines: House) -> None:
    worker = await engines.worker()
    await worker.engine.prefill(sequence("gone", PROMPT), buffer_for(worker.engine, len(PROMPT)))
    await worker.engine.exported("gone")
    assert worker.engine.load().free_blocks == worker.engine.info.blocks
    await worker.engine.release("gone")
    assert_empty(worker.engine)


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
async def test_release_before_the_prompt_is_done_ends_the_prefill(engines: House, delay: int) -> None:
    worker = await engines.worker(**({"prefill_ms": [0, 0, 600_000]} if engines.kind == "sim" else {}))
    running = asyncio.create_task(
        worker.engine.prefill(sequence("early", [5] * 100), buffer_for(worker.engine, 100)), name="prefill"
    )
    for _ in range(delay + 1):
        await asyncio.sleep(0)
    await worker.engine.release("early")
    assert_empty(worker.engine)
    async with asyncio.timeout(DEADLINE_S):
        result = await asyncio.gather(running, return_exceptions=True)
    assert engines.kind == "torch" or isinstance(result[0], BatonError)  # the torch engine may have been quicker
    assert_empty(worker.engine)


async def test_a_cancelled_prefill_leaves_nothing(engines: House) -> None:
    worker = await engines.worker(**({"prefill_ms": [0, 0, 600_000]} if engines.kind == "sim" else {}))
    running = asyncio.create_task(
        worker.engine.prefill(sequence("left", [5] * 100), buffer_for(worker.engine, 100)), name="prefill"
    )
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await worker.engine.release("left")
    assert_empty(worker.engine)


@pytest.mark.parametrize("delay", [0, 1, 3])
async def test_release_during_the_export_leaves_the_buffer_alone_from_then_on(engines: House, delay: int) -> None:
    worker = await engines.worker(**({"kv_bytes_per_token": 100_000} if engines.kind == "sim" else {}))
    buffer = buffer_for(worker.engine, 100)
    await worker.engine.prefill(sequence("mid", [5] * 100), buffer)
    exporting = asyncio.create_task(worker.engine.exported("mid"), name="export")
    for _ in range(delay):
        await asyncio.sleep(0)
    await worker.engine.release("mid")
    assert_empty(worker.engine)
    buffer[:] = bytes(len(buffer))  # it is the next request's now
    await asyncio.gather(exporting, return_exceptions=True)
    await worker.prefill(sequence("next", PROMPT))
    assert not any(buffer)


async def test_release_while_decoding_ends_the_tokens(engines: House) -> None:
    worker = await engines.worker(**({"decode_step_ms": 1} if engines.kind == "sim" else {}))
    wanted = sequence("midway", PROMPT, stopping=Stopping(max_tokens=100))
    first, buffer = await worker.prefill(wanted)
    await worker.engine.insert(extended(wanted, first), len(PROMPT), buffer)
    await until(lambda: len(worker.ending("midway").sampled) > 1, "two tokens")
    await worker.engine.release("midway")
    assert_empty(worker.engine)
    steps = worker.engine.load().steps
    assert steps > 1
    after = await relay(worker, worker, sequence("after", PROMPT))
    assert ids(after) == await worker.alone(PROMPT, 12)
    assert not worker.ending("midway").over.is_set()
    assert worker.engine.load().steps > steps


async def test_release_of_what_is_not_held_is_fine_any_number_of_times(engines: House) -> None:
    worker = await engines.worker()
    await worker.engine.release("never heard of")
    wanted = sequence("done", PROMPT)
    await relay(worker, worker, wanted)
    for _ in range(2):
        await worker.engine.release("done")
    assert_empty(worker.engine)


async def test_export_of_what_is_not_held_is_an_error(engines: House) -> None:
    worker = await engines.worker()
    with pytest.raises(BatonError):
        await worker.engine.exported("never heard of")


async def test_close_ends_the_steps_and_whoever_waits(engines: House) -> None:
    worker = await engines.worker(**({"prefill_ms": [0, 0, 600_000]} if engines.kind == "sim" else {}))
    waiting = asyncio.create_task(
        worker.engine.prefill(sequence("waiting", [5] * 100), buffer_for(worker.engine, 100)), name="prefill"
    )
    await asyncio.sleep(0)
    await worker.close()  # awaits the reader of the steps
    await asyncio.wait([waiting], timeout=DEADLINE_S)
    assert waiting.done()
    assert waiting.exception() is None or isinstance(waiting.exception(), BatonError)
    for attempt in (worker.engine.prefill(sequence("late", PROMPT), buffer_for(worker.engine, len(PROMPT))),):
        with pytest.raises(EngineFailed):
            await attempt
    await worker.engine.close()


async def test_close_ends_a_running_batch(engines: House) -> None:
    worker: Worker = await engines.worker()
    wanted = sequence("endless", PROMPT, stopping=Stopping(max_tokens=100))
    first, buffer = await worker.prefill(wanted)
    await worker.engine.insert(extended(wanted, first), len(PROMPT), buffer)
    await worker.close()
