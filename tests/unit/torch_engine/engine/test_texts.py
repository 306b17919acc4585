"""The text of a sequence is its own: across engines, after a replay, among others, from the cache; its logprobs."""

import asyncio
from pathlib import Path

from shared.engine.torch_engine.engine import TorchEngine
from tests.torch_rig import buffer_for, sequence
from tests.unit.torch_engine.engine.running import PROMPT, finished, prefilled, relay, running


async def test_a_text_crosses_engines_and_a_replay_at_any_point_continues_it(model: Path) -> None:
    async with running(model) as a, running(model) as b:
        assert a.info == b.info
        for sampling in (
            {},
            {"temperature": 1.0, "seed": 11},
            {"temperature": 0.8, "seed": 3, "frequency_penalty": 0.5},
        ):
            whole = await relay(a, b, "whole", PROMPT, max_tokens=12, **sampling)
            assert len(whole) == 12
            for cut in (1, 5, 11):
                continued = [*PROMPT, *whole[:cut]]
                rest = await relay(a, b, "rest", continued, prompt_tokens=len(PROMPT), max_tokens=12, **sampling)
                assert rest == whole[cut:], (sampling, cut)


async def test_many_sequences_at_once_get_the_texts_they_get_alone(model: Path) -> None:
    prompts = {str(n): [3 + (n * 31 + i * 7) % 190 for i in range(1 + 5 * n)] for n in range(6)}
    async with running(model, num_blocks=120) as a, running(model, num_blocks=120) as b:
        alone = {key: await relay(a, b, key, tokens, max_tokens=9) for key, tokens in prompts.items()}
        firsts = await asyncio.gather(*(prefilled(a, key, tokens) for key, tokens in prompts.items()))
        together = {key: [first.token_id] for key, (first, _) in zip(prompts, firsts, strict=True)}
        for (key, tokens), (first, buffer) in zip(prompts.items(), firsts, strict=True):
            await b.insert(sequence(key, [*tokens, first.token_id], len(tokens), max_tokens=9), len(tokens), buffer)
        for key, sampled in (await finished(b.steps(), *prompts)).items():
            together[key] += [one.token_id for one in sampled]
    assert together == alone


async def test_a_repeated_prompt_is_found_in_the_cache_and_gives_the_same_first_token(engine: TorchEngine) -> None:
    tokens = PROMPT * 3
    buffer = buffer_for(engine.info, len(tokens))
    answers = []
    for key in "ab":
        answers.append(await engine.prefill(sequence(key, tokens), buffer))
        await engine.exported(key)
        await engine.release(key)
    assert [answer.cached_tokens for answer in answers] == [0, 20]
    assert answers[0].first.token_id == answers[1].first.token_id


async def test_the_exported_buffer_holds_nothing_beyond_the_sequence(engine: TorchEngine) -> None:
    await prefilled(engine, "other", [9] * 40)
    _, buffer = await prefilled(engine, "mine", PROMPT)  # 7 tokens: the last of 8 places is unused
    layers, width = 4, 2 * 24 * 4
    plane = 4 * width
    start = engine.info.block_bytes
    for part in range(layers * 2):
        end = start + (part + 1) * plane
        assert bytes(buffer[end - width : end]) == bytes(width)


async def test_logprobs_come_with_the_tokens(engine: TorchEngine) -> None:
    first, _ = await prefilled(engine, "a", PROMPT, logprobs=3)
    assert first.alternatives is not None
    assert first.alternatives.top[0] == (first.token_id, first.alternatives.logprob)
    assert len(first.alternatives.top) == 3
