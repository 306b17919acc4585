"""How a sequence ends: stop tokens, the end of its text or of its context, no block left."""

from pathlib import Path
from typing import Any

import pytest

from shared.errors import (
    ContextTooLong,
    Overloaded,
)
from shared.messages import Finish, Stopping
from tests.torch_rig import sequence
from tests.unit.torch_engine.engine.running import PROMPT, finished, prefilled, relay, running


async def test_endings(model: Path) -> None:
    async with running(model) as a, running(model) as b:
        text = await relay(a, b, "x", PROMPT, max_tokens=8)
        last = text[4]
        assert last not in text[:4]
        stop = Stopping(max_tokens=8, stop_token_ids=[last])
        first, buffer = await prefilled(a, "s", PROMPT)
        await b.insert(sequence("s", [*PROMPT, first.token_id], len(PROMPT), stopping=stop), len(PROMPT), buffer)
        sampled = (await finished(b.steps(), "s"))["s"]
        assert [one.token_id for one in sampled] == text[1:5]
        assert (sampled[-1].finish, sampled[-1].stop_token) == (Finish.STOP, last)
        later = Stopping(max_tokens=8, stop_token_ids=[last], min_tokens=7)
        await b.insert(sequence("m", [*PROMPT, first.token_id], len(PROMPT), stopping=later), len(PROMPT), buffer)
        sampled = (await finished(b.steps(), "m"))["m"]
        assert last not in [one.token_id for one in sampled][:5]
        assert len(sampled) >= 6


async def test_an_end_of_sequence_token_ends_unless_ignored(model: Path) -> None:
    eos = 2
    forced: dict[str, Any] = {"logit_bias": {eos: 1000.0}}
    async with running(model) as engine:
        first, _ = await prefilled(engine, "a", PROMPT, **forced)
        assert (first.token_id, first.finish, first.stop_token) == (eos, Finish.STOP, eos)
        ignoring = Stopping(max_tokens=5, ignore_eos=True)
        first, _ = await prefilled(engine, "b", PROMPT, stopping=ignoring, **forced)
        assert (first.token_id, first.finish) == (eos, None)
        first, _ = await prefilled(engine, "c", PROMPT, stopping=Stopping(max_tokens=5, min_tokens=2), **forced)
        assert (first.token_id == eos, first.finish) == (False, None)
        first, _ = await prefilled(engine, "d", PROMPT, max_tokens=1)
        assert first.finish is Finish.LENGTH


async def test_the_end_of_the_context_ends_a_sequence_for_length(model: Path) -> None:
    async with running(model, max_model_len=12) as a, running(model, max_model_len=12) as b:
        text = await relay(a, b, "x", PROMPT, max_tokens=100)
        assert len(PROMPT) + len(text) == 12
        with pytest.raises(ContextTooLong):
            await prefilled(a, "long", [5] * 12)


async def test_out_of_blocks_the_youngest_fails_retryably_and_the_oldest_goes_on(model: Path) -> None:
    async with running(model) as a, running(model, num_blocks=8) as b:
        inserted = []
        for key in ("old", "young"):
            first, buffer = await prefilled(a, key, PROMPT)
            tokens = [*PROMPT, first.token_id]
            await b.insert(sequence(key, tokens, len(PROMPT), max_tokens=20), len(PROMPT), buffer)
            inserted.append(key)
        failed: dict[str, Exception] = {}
        ended: list[str] = []
        async for step in b.steps():
            failed.update(step.failed)
            ended += [sampled.key for sampled in step.sampled if sampled.finish]
            if ended:
                break
        assert ended == ["old"]
        assert list(failed) == ["young"]
        assert isinstance(failed["young"], Overloaded)
        assert failed["young"].retryable
