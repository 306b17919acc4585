"""A long prompt whose KV leaves while it is computed: what of the transfer is left once the prompt is through.

16k tokens with the KV of Gemma 3 270M, by the sim engine, whose prompts take their time and fill the buffer piece by
piece, as the torch engine's chunks do; by TCP, as every growing buffer goes. Measured from the moment at which the
buffer is complete until the other process has confirmed it, against the same prompt pushed when it is complete. In
turns; of each the best round counts.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Final

from bench.kv_handoff_far import SETTINGS, Far, Push
from bench.table import Row
from shared.engine import Sequence
from shared.engine.sim_engine.engine import SimEngine
from shared.kv.arena import Arena, Range
from shared.kv.growth import Growing, Tail
from shared.kv.layout import KvLayout
from shared.kv.sender import Sender
from shared.messages import KvGrant, Sampling, Stopping
from shared.models import resolve

LAYOUT: Final = KvLayout("bench", "bfloat16", layers=18, kv_heads=1, head_dim=256, block_tokens=16)
TOKENS: Final = 16384
TOKENS_PER_S: Final = 10_000
ROUNDS: Final = 4
OPTIONS: Final[dict[str, object]] = {
    "kv_bytes_per_token": LAYOUT.token_bytes,
    "block_size": LAYOUT.block_tokens,
    "prefill_ms": [0.0, 1000 / TOKENS_PER_S, 0.0],
}


def rows() -> list[Row]:
    """Run it."""
    left, whole = asyncio.run(_measured())
    return [Row("hand-off tcp, 16k tokens, left of it after the prompt", left, "ms", "pushed after it", whole)]


async def _measured() -> tuple[float, float]:
    arena = Arena(LAYOUT.buffer_bytes(TOKENS))
    sender, engine = Sender(arena, SETTINGS), SimEngine(resolve("sim", "sim", {}), OPTIONS)
    await engine.start()
    staging = arena.reserve(arena.size)
    left, whole = [], []
    with Far(LAYOUT, TOKENS) as far:
        for number in _keys():
            whole.append(await _after(engine, sender, far, staging, f"whole {number}"))
            left.append(await _meanwhile(engine, sender, far, staging, f"growing {number}"))
    await sender.close()
    await engine.close()
    staging.release()
    arena.close()
    return min(left[1:]) * 1e3, min(whole[1:]) * 1e3


def _keys() -> Iterator[int]:
    yield from range(ROUNDS + 1)  # the first one warms all that is measured


async def _after(engine: SimEngine, sender: Sender, far: Far, staging: Range, key: str) -> float:
    await engine.prefill(_prompt(key), staging.view)
    await engine.exported(key)
    grant = await asyncio.to_thread(far.grant, Push("tcp", staging.nbytes, 0))
    started = time.perf_counter()
    await sender.push(staging, grant)
    seconds = time.perf_counter() - started
    await _end(engine, far, key)
    return seconds


async def _meanwhile(engine: SimEngine, sender: Sender, far: Far, staging: Range, key: str) -> float:
    growing = Growing(staging)
    grant: KvGrant = await asyncio.to_thread(far.grant, Push("tcp", growing.nbytes, 0))
    pushing = asyncio.create_task(sender.push_growing(growing, grant))
    grow = lambda tokens: growing.grow(LAYOUT.buffer_bytes(tokens))  # noqa: E731  as an engine calls it
    prefilled = await engine.prefill(_prompt(key), staging.view, grow)
    await engine.exported(key)
    started = time.perf_counter()
    growing.complete(Tail(prefilled.first.token_id, prefilled.cached_tokens))
    await pushing
    seconds = time.perf_counter() - started
    await _end(engine, far, key)
    return seconds


async def _end(engine: SimEngine, far: Far, key: str) -> None:
    await engine.release(key)
    await asyncio.to_thread(far.taken_in_s)


def _prompt(key: str) -> Sequence:
    return Sequence(key, [5] * TOKENS, TOKENS, Sampling(), Stopping(max_tokens=1))
