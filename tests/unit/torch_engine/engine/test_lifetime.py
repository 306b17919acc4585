"""One life of an engine: what it starts as, who is told of its death, what closing it ends."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shared.engine.torch_engine.engine import TorchEngine
from shared.engine.torch_engine.runner import Runner
from shared.errors import (
    ConfigError,
    EngineFailed,
)
from tests.tiny_models import edit, make
from tests.torch_rig import buffer_for, sequence
from tests.unit.torch_engine.engine.running import OPTIONS, PROMPT, running
from tests.waiting import until


async def test_when_the_engine_dies_everyone_who_waits_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    engine = TorchEngine(model, OPTIONS)
    await engine.start()
    reader = asyncio.create_task(anext(engine.steps()))
    monkeypatch.setattr(Runner, "step", broken)
    with pytest.raises(EngineFailed, match="ZeroDivisionError") as death:
        await engine.prefill(sequence("a", PROMPT), buffer_for(engine.info, len(PROMPT)))
    assert death.value.fatal
    with pytest.raises(EngineFailed):
        await reader
    with pytest.raises(EngineFailed):
        await engine.insert(sequence("b", PROMPT), 6, buffer_for(engine.info, 6))
    await engine.release("a")
    await engine.close()
    await engine.close()


async def test_close_ends_the_steps_and_fails_what_waits(model: Path) -> None:
    engine = TorchEngine(model, {**OPTIONS, "prefill_chunk": 1})
    await engine.start()
    reader = asyncio.create_task(anext(engine.steps(), None))
    waiting = asyncio.create_task(engine.prefill(sequence("a", [7] * 100), buffer_for(engine.info, 100)))
    await until(lambda: engine.load().steps > 0, "a step ran")
    await engine.close()
    assert await reader is None
    with pytest.raises(EngineFailed, match="closed"):
        await waiting
    with pytest.raises(EngineFailed):
        await engine.prefill(sequence("b", PROMPT), buffer_for(engine.info, len(PROMPT)))


async def test_an_engine_that_never_started_can_be_closed(model: Path) -> None:
    engine = TorchEngine(model, OPTIONS)
    with pytest.raises(EngineFailed):
        _ = engine.info
    await engine.close()
    assert engine.load() == (0, 0, 0)


async def test_a_model_that_cannot_be_served_fails_the_start_with_the_reason(model: Path, tmp_path: Path) -> None:
    make("llama", tmp_path)
    edit(tmp_path, rope_parameters={"rope_type": "yarn", "factor": 2.0})
    for directory, options, reason in (
        (tmp_path, {}, "yarn"),
        (model, {"device": "cuda:7"}, "device"),
        (model, {"quantization": "fp8"}, "fp8"),
        (model, {"max_model_len": 9999}, "max_model_len"),
        (tmp_path / "nowhere", {}, "config.json"),
    ):
        engine = TorchEngine(directory, {**OPTIONS, **options})
        with pytest.raises(EngineFailed, match=reason) as failure:
            await engine.start()
        assert failure.value.fatal
        await engine.close()
    with pytest.raises(ConfigError):
        TorchEngine(model, {"no_such_option": 1})


async def test_fingerprints_agree_exactly_where_buffers_may_be_exchanged(model: Path, tmp_path: Path) -> None:
    async def fingerprint(directory: Path, **options: Any) -> str:
        async with running(directory, **options) as engine:
            return engine.info.fingerprint

    make("gemma 3", tmp_path / "same")
    make("gemma 3", tmp_path / "other", seed=1)
    base = await fingerprint(model)
    assert await fingerprint(tmp_path / "same") == base
    assert await fingerprint(model, num_blocks=77, max_num_seqs=3, prefill_chunk=5) == base
    others = [
        await fingerprint(tmp_path / "other"),
        await fingerprint(model, block_size=8),
        await fingerprint(model, dtype="bfloat16"),
        await fingerprint(model, quantization="int8"),
    ]
    assert len({base, *others}) == 5
