"""What the engine refuses: bad sequences, KV that cannot be theirs, more than there is room for; it keeps nothing."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shared.engine.torch_engine.engine import TorchEngine
from shared.errors import (
    BadRequest,
    KvRefused,
    Overloaded,
)
from shared.messages import Stopping
from tests.torch_rig import buffer_for, sequence
from tests.unit.torch_engine.engine.running import PROMPT, finished, prefilled, running


async def test_what_cannot_be_served_is_refused_and_leaves_nothing(engine: TorchEngine) -> None:
    cases: list[tuple[list[int], int, dict[str, Any]]] = [
        ([], 0, {}),
        (PROMPT, 99, {}),
        ([5, 199], 0, {}),
        ([5, -1], 0, {}),
        (PROMPT, 0, {"logit_bias": {199: 1.0}}),
        (PROMPT, 0, {"stopping": Stopping(max_tokens=1, stop_token_ids=[4000])}),
        ([5] * 160, 0, {}),
    ]
    for tokens, prompt, kwargs in cases:
        with pytest.raises(BadRequest):
            await engine.prefill(sequence("bad", tokens, prompt, **kwargs), buffer_for(engine.info, len(tokens)))
    with pytest.raises(BadRequest, match="KV buffer"):
        await engine.prefill(sequence("bad", PROMPT), buffer_for(engine.info, len(PROMPT))[:-1])
    with pytest.raises(Overloaded):
        await asyncio.gather(*(prefilled(engine, str(n), [n + 5] * 60) for n in range(6)))
    for n in range(6):
        await engine.release(str(n))
    assert engine.load().free_blocks == engine.info.blocks


async def test_kv_that_cannot_be_the_sequences_is_refused(engine: TorchEngine) -> None:
    first, buffer = await prefilled(engine, "a", PROMPT)
    whole = sequence("a", [*PROMPT, first.token_id], len(PROMPT))
    for kv_tokens, view in ((6, buffer), (8, buffer), (0, buffer[:0]), (7, buffer[:-4])):
        with pytest.raises(KvRefused) as refusal:
            await engine.insert(whole, kv_tokens, view)
        assert refusal.value.reason == "length"
    assert engine.load().sequences == 0


async def test_a_full_batch_refuses_retryably(model: Path) -> None:
    async with running(model) as a, running(model, max_num_seqs=1) as b:
        first, buffer = await prefilled(a, "a", PROMPT)
        tokens = [*PROMPT, first.token_id]
        await b.insert(sequence("1", tokens, len(PROMPT), max_tokens=30), len(PROMPT), buffer)
        with pytest.raises(Overloaded):
            await b.insert(sequence("2", tokens, len(PROMPT)), len(PROMPT), buffer)
        with pytest.raises(BadRequest, match="already"):
            await b.insert(sequence("1", tokens, len(PROMPT)), len(PROMPT), buffer)
        await b.release("1")
        await b.insert(sequence("2", tokens, len(PROMPT), max_tokens=2), len(PROMPT), bytes_view(buffer))
        await finished(b.steps(), "2")


def bytes_view(buffer: memoryview) -> memoryview:
    return memoryview(bytes(buffer))  # read-only, as a mapped file may be
