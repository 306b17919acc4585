"""A tiny model, and engines of several ranks that serve it, as processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shared.engine.torch_engine.ranks.engine import RankedEngine
from shared.engine.torch_engine.ranks.leader import RankedExecutor
from tests.engine_house import SIZES
from tests.processes import alive
from tests.shared_arena import SharedArena
from tests.tiny_models import edit, make


def tiny(directory: Path, variant: str = "gemma 3") -> Path:
    """No token ends a text of it."""
    make(variant, directory)
    edit(directory, eos_token_id=None, max_position_embeddings=1024)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


def pids(engine: RankedEngine) -> list[int]:
    """Of its followers."""
    assert engine._worker.runner is not None
    executor = engine._worker.runner._executor
    assert isinstance(executor, RankedExecutor)
    return executor._crew.pids


@asynccontextmanager
async def running(directory: Path, world: int = 2, **options: Any) -> AsyncIterator[RankedEngine]:
    """A started engine; afterwards nothing of it is left."""
    engine = RankedEngine(directory, {**SIZES, "tensor_parallel": world, **options})
    engine.stage(SharedArena.arena())
    await engine.start()
    followers = pids(engine)
    try:
        yield engine
    finally:
        async with asyncio.timeout(30):
            await engine.close()
        assert not any(alive(pid) for pid in followers)
        SharedArena.forget()
