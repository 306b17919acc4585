"""A model over two GPUs: the tokens of one, and an end within seconds when a rank dies or hangs.

Needs no more than torch, numpy, msgspec, msgpack, xxhash and safetensors: the model is written here.
"""

import asyncio
import json
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from shared.engine import Alternatives, Sequence
from shared.engine.torch_engine.engine import TorchEngine
from shared.engine.torch_engine.ranks.engine import RankedEngine
from shared.engine.torch_engine.ranks.leader import RankedExecutor
from shared.errors import EngineFailed
from shared.kv.arena import Arena
from shared.messages import Health, Sampling, Stopping

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]

VOCABULARY, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, LAYERS = 1001, 512, 8, 4, 64, 1024, 4
CONFIG: dict[str, Any] = {
    "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}  # fmt: skip
OPTIONS: dict[str, Any] = {"device": "cuda", "num_blocks": 1024, "max_num_seqs": 16, "prefill_chunk": 256}
LENGTHS = (5, 16, 33, 100, 256, 257, 700)
NEW = 24
SOON_S = 15.0


@pytest.fixture(scope="module", params=[KV_HEADS, 1], ids=["shared KV heads", "one KV head"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, large enough that the likeliest token stands out."""
    directory = tmp_path_factory.mktemp("model")
    generator = torch.Generator().manual_seed(1)

    def weight(outputs: int, inputs: int, gain: float = 1.0) -> torch.Tensor:
        return torch.randn((outputs, inputs), generator=generator) * gain / math.sqrt(inputs)

    query, key = HEADS * HEAD_DIM, request.param * HEAD_DIM
    tensors = {
        "model.embed_tokens.weight": weight(VOCABULARY, HIDDEN, 20.0),
        "lm_head.weight": weight(VOCABULARY, HIDDEN, 6.0),
        "model.norm.weight": torch.ones(HIDDEN),
    }
    for number in range(LAYERS):
        layer = f"model.layers.{number}"
        tensors |= {
            f"{layer}.self_attn.q_proj.weight": weight(query, HIDDEN),
            f"{layer}.self_attn.k_proj.weight": weight(key, HIDDEN),
            f"{layer}.self_attn.v_proj.weight": weight(key, HIDDEN),
            f"{layer}.self_attn.o_proj.weight": weight(HIDDEN, query, 2.0),
            f"{layer}.mlp.gate_proj.weight": weight(INTERMEDIATE, HIDDEN),
            f"{layer}.mlp.up_proj.weight": weight(INTERMEDIATE, HIDDEN),
            f"{layer}.mlp.down_proj.weight": weight(HIDDEN, INTERMEDIATE, 2.0),
            f"{layer}.input_layernorm.weight": torch.ones(HIDDEN),
            f"{layer}.post_attention_layernorm.weight": torch.ones(HIDDEN),
        }
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({**CONFIG, "num_key_value_heads": request.param}))
    return directory


@asynccontextmanager
async def started(model: Path, ranks: int, arena: Arena, **options: Any) -> AsyncIterator[TorchEngine]:
    """An engine over so many GPUs; its end is bounded."""
    chosen = {**OPTIONS, **options}
    if ranks == 1:
        engine = TorchEngine(model, chosen)
    else:
        engine = RankedEngine(model, {**chosen, "tensor_parallel": ranks})
        engine.stage(arena)
    await engine.start()
    try:
        yield engine
    finally:
        begin = time.monotonic()
        await engine.close()
        assert time.monotonic() - begin < SOON_S


def prompt(number: int) -> list[int]:
    """Of one of the LENGTHS."""
    generator = torch.Generator().manual_seed(number)
    return torch.randint(VOCABULARY, (LENGTHS[number],), generator=generator).tolist()  # type: ignore[no-any-return]


async def texts(prefill: TorchEngine, decode: TorchEngine, arena: Arena) -> list[list[int]]:
    """All prompts, then all decoded in one batch: the greedy tokens of each."""
    sampling, stopping = Sampling(temperature=0.0, seed=0), Stopping(max_tokens=NEW)
    result: dict[str, list[int]] = {}
    for number in range(len(LENGTHS)):
        key, tokens = str(number), prompt(number)
        asked = Sequence(key, tokens, len(tokens), sampling, stopping)
        staging = arena.reserve(prefill.info.kv_bytes(len(tokens)))
        staging.view[:] = b"\xa5" * staging.nbytes
        first = (await prefill.prefill(asked, staging.view)).first.token_id
        await prefill.exported(key)
        await prefill.release(key)
        onward = Sequence(key, [*tokens, first], len(tokens), sampling, stopping)
        await decode.insert(onward, len(tokens), staging.view)
        staging.release()
        result[key] = [first]
    left = set(result)
    async for step in decode.steps():
        assert not step.failed
        for one in step.sampled:
            result[one.key].append(one.token_id)
            if one.finish is not None:
                left.remove(one.key)
        if not left:
            break
    return [result[str(number)] for number in range(len(LENGTHS))]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Without a plugin of pytest's."""
    asyncio.run(asyncio.wait_for(coroutine, 240))


def test_two_gpus_say_what_one_says_and_either_goes_on_where_the_other_stopped(model: Path) -> None:
    async def compare() -> None:
        arena = Arena(1 << 28, shared=True)
        async with (
            started(model, 1, arena, dtype="float32") as one,
            started(model, 2, arena, dtype="float32") as two,
        ):
            assert one.info.fingerprint == two.info.fingerprint
            expected = await texts(one, one, arena)
            assert len({tuple(text) for text in expected}) == len(LENGTHS)
            assert await texts(two, two, arena) == expected
            assert await texts(one, two, arena) == expected
            assert await texts(two, one, arena) == expected
            assert len(two.devices) >= 2
            assert two.probe()[0] is not Health.FAILED
        arena.close()

    run(compare())


def test_in_bfloat16_two_gpus_find_the_same_likelihoods_as_one(model: Path) -> None:
    async def likelihoods(ranks: int, arena: Arena) -> list[Alternatives]:
        sampling, stopping = Sampling(temperature=0.0, seed=0, logprobs=5), Stopping(max_tokens=NEW)
        found = []
        async with started(model, ranks, arena, dtype="bfloat16") as engine:
            for number, length in enumerate(LENGTHS):
                staging = arena.reserve(engine.info.kv_bytes(length))
                asked = Sequence(str(number), prompt(number), length, sampling, stopping)
                alternatives = (await engine.prefill(asked, staging.view)).first.alternatives
                assert alternatives is not None
                found.append(alternatives)
                await engine.exported(str(number))
                await engine.release(str(number))
                staging.release()
        return found

    async def compare() -> None:
        arena = Arena(1 << 28, shared=True)
        one, two = await likelihoods(1, arena), await likelihoods(2, arena)
        for mine, theirs in zip(one, two, strict=True):
            assert abs(mine.top[0][1] - theirs.top[0][1]) < 0.3
            assert {token for token, _ in mine.top[:2]} & {token for token, _ in theirs.top}
        arena.close()

    run(compare())


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_dies_or_hangs_in_a_step_ends_the_engine_soon(model: Path, blow: signal.Signals) -> None:
    async def hurt() -> None:
        arena = Arena(1 << 28, shared=True)
        async with started(model, 2, arena, rank_timeout_s=5) as engine:
            tokens = prompt(3)
            asked = Sequence("a", tokens, len(tokens), Sampling(temperature=0.0, seed=0), Stopping(max_tokens=3000))
            staging = arena.reserve(engine.info.kv_bytes(len(tokens)))
            first = (await engine.prefill(asked, staging.view)).first.token_id
            await engine.exported("a")
            await engine.release("a")
            onward = Sequence("a", [*tokens, first], len(tokens), asked.sampling, asked.stopping)
            await engine.insert(onward, len(tokens), staging.view)
            steps = engine.steps()
            for _ in range(20):
                await anext(steps)
            os.kill(follower_of(engine), blow)
            with pytest.raises(EngineFailed, match=r"rank 1 has ended|has not ended within 5 s") as death:
                await asyncio.wait_for(last_of(steps), SOON_S)
            assert death.value.fatal
        staging.release()
        arena.close()

    run(hurt())


async def last_of(steps: Any) -> None:
    """Read them to their end."""
    async for _ in steps:
        pass


def follower_of(engine: TorchEngine) -> int:
    """Its process."""
    assert engine._worker.runner is not None
    executor = engine._worker.runner._executor
    assert isinstance(executor, RankedExecutor)
    return executor._crew.pids[0]
