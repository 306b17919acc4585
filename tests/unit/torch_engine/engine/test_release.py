"""Letting go: a release in every state, a cancelled prefill, a reader that is slow."""

import asyncio
from pathlib import Path

import pytest

from shared.engine.torch_engine.worker import UNREAD_STEPS
from shared.errors import (
    Cancelled,
)
from tests.torch_rig import buffer_for, sequence
from tests.unit.torch_engine.engine.running import PROMPT, finished, prefilled, running
from tests.waiting import until


async def test_release_is_allowed_in_every_state_and_lets_go_of_the_buffer(model: Path) -> None:
    async with running(model, prefill_chunk=1) as engine:
        await engine.release("never heard of")
        raw = bytearray(engine.info.kv_bytes(100))
        waiting = asyncio.create_task(engine.prefill(sequence("a", [7] * 100), memoryview(raw)))
        await until(lambda: engine.load().steps > 0, "a step ran")
        exporting = asyncio.create_task(engine.exported("a"))
        await asyncio.sleep(0)
        await asyncio.gather(engine.release("a"), engine.release("a"))
        for task in (waiting, exporting):
            with pytest.raises(Cancelled):
                await task
        with pytest.raises(Cancelled):
            await engine.exported("a")
        del waiting, exporting, task
        raw.extend(b"resizing works only when no view is left")
        answer = await engine.prefill(sequence("b", PROMPT), buffer_for(engine.info, len(PROMPT)))
        await engine.release("b")  # exported or not
        assert answer.first.key == "b"


async def test_a_cancelled_prefill_leaves_nothing(model: Path) -> None:
    async with running(model, prefill_chunk=1) as engine:
        task = asyncio.create_task(engine.prefill(sequence("a", [7] * 100), buffer_for(engine.info, 100)))
        await until(lambda: engine.load().steps > 0, "a step ran")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.load().sequences == 0
        await prefilled(engine, "a", PROMPT)


async def test_a_released_decode_brings_no_more_tokens(model: Path) -> None:
    async with running(model) as engine:
        first, buffer = await prefilled(engine, "a", PROMPT)
        tokens = [*PROMPT, first.token_id]
        for key in "ab":
            await engine.insert(sequence(key, tokens, len(PROMPT), max_tokens=60), len(PROMPT), buffer)
        await engine.release("a")
        while engine._unread:
            engine._unread.popleft()
        sampled = await finished(engine.steps(), "b")
        assert set(sampled) == {"b"}


async def test_a_slow_reader_pauses_the_engine_and_loses_nothing(model: Path) -> None:
    async with running(model, num_blocks=400) as engine:
        first, buffer = await prefilled(engine, "a", [5])
        prompts = [("a", 200), ("b", 200)]
        for key, n in prompts:
            await engine.insert(sequence(key, [5, first.token_id], 1, max_tokens=n), 1, buffer)
            await until(lambda: engine.load().steps > 150, "150 steps ran")
        await until(lambda: len(engine._unread) == UNREAD_STEPS, "the unread steps reached their bound")
        steps = engine.load().steps
        await asyncio.sleep(0.05)
        assert engine.load().steps == steps
        sampled = await finished(engine.steps(), "a", "b")
        assert [len(sampled[key]) for key in "ab"] == [199, 199]
