"""Started torch engines on a tiny model, and sequences taken from one to the next."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from shared.engine import Sampled, Step
from shared.engine.torch_engine.engine import TorchEngine
from tests.torch_rig import buffer_for, sequence

OPTIONS: dict[str, Any] = {"block_size": 4, "num_blocks": 40, "max_num_seqs": 8, "prefill_chunk": 16}
PROMPT = [5, 17, 33, 8, 90, 121, 64]


class running:  # noqa: N801
    """A started engine that holds nothing when it is left."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self._engine = TorchEngine(directory, {**OPTIONS, **options})

    async def __aenter__(self) -> TorchEngine:
        await self._engine.start()
        return self._engine

    async def __aexit__(self, *_: object) -> None:
        load, blocks = self._engine.load(), self._engine.info.blocks
        await self._engine.close()
        assert (load.sequences, load.free_blocks) == (0, blocks)


async def prefilled(engine: TorchEngine, key: str, tokens: list[int], **kwargs: Any) -> tuple[Sampled, memoryview]:
    """Run a prompt to the end of its export."""
    buffer = buffer_for(engine.info, len(tokens))
    answer = await engine.prefill(sequence(key, tokens, **kwargs), buffer)
    await engine.exported(key)
    await engine.release(key)
    return answer.first, buffer


async def finished(steps: AsyncIterator[Step], *keys: str) -> dict[str, list[Sampled]]:
    """Read until all keys have ended."""
    result: dict[str, list[Sampled]] = {key: [] for key in keys}
    left = set(keys)
    while left:
        step = await anext(steps)
        assert not step.failed
        for sampled in step.sampled:
            result.setdefault(sampled.key, []).append(sampled)
            if sampled.finish is not None:
                left.discard(sampled.key)
    return result


async def relay(a: TorchEngine, b: TorchEngine, key: str, tokens: list[int], **kwargs: Any) -> list[int]:
    """Prefill on one engine, decode on the other: all generated tokens."""
    first, buffer = await prefilled(a, key, tokens, **kwargs)
    if first.finish is not None:
        return [first.token_id]
    prompt = kwargs.pop("prompt_tokens", len(tokens))
    await b.insert(sequence(key, [*tokens, first.token_id], prompt, **kwargs), len(tokens), buffer)
    rest = (await finished(b.steps(), key))[key]
    return [first.token_id, *(sampled.token_id for sampled in rest)]
