"""What every engine promises of prompts beside decoding sequences, and of a prompt's KV that leaves as it grows."""

import asyncio

import pytest

from shared.engine import EngineInfo
from shared.messages import Stopping
from tests.engine_house import DEADLINE_S, OTHERS, PROMPT, House, assert_empty, buffer_for, extended, ids, sequence
from tests.engine_house import relay as relayed

SAMPLINGS = [{"temperature": 0.0}, {"seed": 11}, {"seed": 12, "top_p": 0.9, "presence_penalty": 0.5}]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "seeded", "seeded with a penalty"])
async def test_a_prompt_computed_and_decoded_in_one_engine_beside_others_brings_what_two_engines_bring(
    engines: House, sampling: dict[str, float]
) -> None:
    source, there, here = await engines.worker(), await engines.worker(), await engines.worker()
    wanted = sequence("both", PROMPT, **sampling)
    expected = ids(await relayed(source, there, wanted))
    others = [sequence(f"o{n}", tokens, stopping=Stopping(max_tokens=80)) for n, tokens in enumerate(OTHERS[:3])]
    for one in others:
        first, buffer = await source.prefill(one)
        await here.engine.insert(extended(one, first), len(one.tokens), buffer)
    assert here.engine.load().sequences == len(others)
    assert ids(await relayed(here, here, wanted)) == expected
    for one in others:
        async with asyncio.timeout(DEADLINE_S):
            await here.ending(one.key).over.wait()
        assert here.ending(one.key).tokens == ids(await relayed(source, there, one))[1:]
    assert_empty(here.engine)


async def test_prompts_and_decodes_come_and_go_in_one_engine_at_once(engines: House) -> None:
    source, here = await engines.worker(), await engines.worker()
    wanted = [sequence(f"w{n}", tokens, seed=n) for n, tokens in enumerate(OTHERS)]
    together = await asyncio.gather(*(relayed(here, here, one) for one in wanted))
    for one, sampled in zip(wanted, together, strict=True):
        assert ids(sampled) == await source.alone(one.tokens, 12, seed=one.sampling.seed)
    assert_empty(here.engine)


async def test_what_the_prefix_cache_has_is_counted_and_holds_nothing(engines: House) -> None:
    worker = await engines.worker(enable_prefix_cache=True)
    long = PROMPT * 3
    assert worker.engine.cached(long) == 0
    await worker.prefill(sequence("once", long))
    size = worker.engine.info.block_tokens
    assert worker.engine.cached(long) == (len(long) - 1) // size * size
    assert worker.engine.cached([*PROMPT, 1, 2, 3]) == len(PROMPT) // size * size
    assert worker.engine.cached([1, *long]) == 0
    assert_empty(worker.engine)
    none = await engines.worker(enable_prefix_cache=False)
    await none.prefill(sequence("once", long))
    assert none.engine.cached(long) == 0


# ---- KV that leaves as it grows --------------------------------------------------------------------------------------

GROWING = {"prefill_chunk": 100, "num_blocks": 400, "max_model_len": 1024}


def growing(engines: House) -> dict[str, int]:
    """A prompt of 1000 tokens takes several chunks in each engine."""
    if engines.kind == "vllm":
        pytest.skip("vLLM's KV leaves when the prompt is complete")
    return {name: value for name, value in GROWING.items() if engines.kind == "torch" or name != "prefill_chunk"}


async def test_a_growing_buffer_is_final_as_far_as_is_told_and_in_the_end_the_same(engines: House) -> None:
    worker = await engines.worker(**growing(engines), enable_prefix_cache=False)
    info, tokens = worker.engine.info, [token % 100 for token in range(1000)]
    first, whole = await worker.prefill(sequence("whole", tokens))
    buffer, told = buffer_for(worker.engine, len(tokens)), []
    parts: list[bytes] = []

    def grown(count: int) -> None:
        told.append(count)
        parts.append(bytes(buffer[: info.kv_bytes(count)]))

    async with asyncio.timeout(DEADLINE_S):
        answer = await worker.engine.prefill(sequence("grows", tokens), buffer, grown)
        await worker.engine.exported("grows")
        await worker.engine.release("grows")
    assert answer.first.token_id == first.token_id
    assert told
    assert told == sorted(set(told))
    assert told[-1] < len(tokens)
    assert all(count % info.block_tokens == 0 for count in told)
    assert bytes(buffer) == bytes(whole)
    for part in parts:
        assert bytes(whole[: len(part)]) == part
    assert_empty(worker.engine)


async def test_a_cached_beginning_of_a_growing_buffer_is_in_it_too(engines: House) -> None:
    worker = await engines.worker(**growing(engines), enable_prefix_cache=True)
    tokens = [token % 100 for token in range(1000)]
    _, whole = await worker.prefill(sequence("whole", tokens[:700]))
    buffer, told = buffer_for(worker.engine, len(tokens)), []
    async with asyncio.timeout(DEADLINE_S):
        answer = await worker.engine.prefill(sequence("grows", tokens), buffer, told.append)
        await worker.engine.exported("grows")
        await worker.engine.release("grows")
    assert answer.cached_tokens == worker.engine.info.block_tokens * (700 // worker.engine.info.block_tokens)
    same = kv_of_whole_blocks(worker.engine.info, 699)
    assert bytes(buffer[:same]) == bytes(whole[:same])
    plain = buffer_for(worker.engine, len(tokens))
    await worker.engine.prefill(sequence("again", tokens), plain)
    await worker.engine.exported("again")
    await worker.engine.release("again")
    assert bytes(plain) == bytes(buffer)
    assert_empty(worker.engine)


async def test_a_growing_prompt_that_is_released_leaves_its_buffer_alone(engines: House) -> None:
    slow = {"prefill_ms": [0, 0, 200], "kv_bytes_per_token": 1000} if engines.kind == "sim" else {}
    worker = await engines.worker(**growing(engines), **slow)
    buffer, told = buffer_for(worker.engine, 1000), asyncio.Event()
    seen: list[int] = []

    def grown(count: int) -> None:
        seen.append(count)
        told.set()

    running = asyncio.create_task(
        worker.engine.prefill(sequence("left", [5] * 1000), buffer, grown), name="growing prompt"
    )
    async with asyncio.timeout(DEADLINE_S):
        await told.wait()
        await worker.engine.release("left")
        await asyncio.gather(running, return_exceptions=True)
    count = len(seen)
    assert_empty(worker.engine)
    buffer[:] = bytes(len(buffer))
    await worker.prefill(sequence("next", PROMPT))
    assert not any(buffer)
    assert len(seen) == count


def kv_of_whole_blocks(info: EngineInfo, tokens: int) -> int:
    """Bytes of the blocks that so many tokens fill."""
    return tokens // info.block_tokens * info.block_bytes
