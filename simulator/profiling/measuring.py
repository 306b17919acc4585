"""What an engine takes for prompts and for steps, measured as a worker would use it.

Owns the grid and the turns: rounds over the whole grid, so that a disturbance hits all points alike; the median counts.
Knows no formula.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from random import Random
from statistics import median
from typing import Final

from shared.engine import Engine, Sequence
from shared.kv.arena import Arena
from shared.messages import Sampling, Stopping

LENGTHS: Final = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384)
"""Tokens of prompts, as far as the engine's context and blocks go."""
BATCHES: Final = (1, 4, 16, 64, 256)
CONTEXTS: Final = (128, 1024, 4096, 8192)
"""Tokens of each sequence."""
WARM: Final = 3
STEPS: Final = 12
"""Steps of one point that count, after those that warm up."""
BESIDE: Final = 8
"""Prompts computed side by side, to see whether any is slower for it."""
LONGEST_S: Final = 120.0
"""One point is given up after so long."""
GREEDY: Final = Sampling(temperature=0.0)


@dataclass
class Measured:
    """Seconds, all of them: by (new, cached) tokens of a prompt, and by (batch, context of each) of a step."""

    prompts: defaultdict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    steps: defaultdict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    beside: list[float] = field(default_factory=list)  # so many prompts together, over one alone
    rounds: int = 0

    def medians(self, of: dict[tuple[int, int], list[float]]) -> dict[tuple[int, int], float]:
        """Of each point."""
        return {point: median(times) for point, times in sorted(of.items())}


class Measuring:
    """One engine that has started. `tokens`: ids that the model has."""

    def __init__(self, engine: Engine, arena: Arena, tokens: range = range(10, 200)) -> None:
        self._engine = engine
        self._arena = arena
        self._info = engine.info
        self._tokens = tokens
        self._rng = Random(1)  # the prompts say nothing
        self._numbers = count()
        self._moments: list[tuple[float, int]] = []  # of each step: when, and how many tokens
        self._stepped = asyncio.Event()

    async def run(self, seconds: float) -> Measured:
        """Measure in rounds for about so long, at least one; raises as engines do."""
        measured, until = Measured(), time.perf_counter() + seconds
        reader = asyncio.ensure_future(self._read())
        try:
            while not measured.rounds or time.perf_counter() < until:
                for new, cached in self.prompts():
                    if (took := await self._prompt(new, cached)) is not None:
                        measured.prompts[new, cached].append(took)
                for batch, context in self.steps():
                    measured.steps[batch, context] += await self._steps(batch, context)
                measured.beside.append(await self._beside())
                measured.rounds += 1
        finally:
            reader.cancel()
            await asyncio.wait([reader])
        return measured

    def prompts(self) -> Iterator[tuple[int, int]]:
        """The grid of prompts: each length alone, and the shorter ones behind what may be cached."""
        fit = [n for n in LENGTHS if self._fits(n, 1)]
        yield from ((n, 0) for n in fit)
        yield from ((n, fit[-1] - n) for n in fit[::2] if fit[-1] > 4 * n)

    def steps(self) -> Iterator[tuple[int, int]]:
        """The grid of steps."""
        for batch in BATCHES:
            if batch <= self._info.max_sequences:
                yield from ((batch, n) for n in CONTEXTS if self._fits(n, batch))

    def _fits(self, tokens: int, sequences: int) -> bool:
        longest = tokens + WARM + STEPS + 2
        room = self._info.kv_bytes(longest) <= self._arena.size
        return (
            room
            and longest < self._info.context
            and sequences * (self._info.blocks_for(longest) + 1) <= self._info.blocks
        )

    # ---- prompts

    def _sequence(self, tokens: list[int]) -> Sequence:
        stopping = Stopping(max_tokens=1 << 20, ignore_eos=True)
        return Sequence(f"m{next(self._numbers)}", tokens, len(tokens), GREEDY, stopping)

    def _drawn(self, number: int) -> list[int]:
        return self._rng.choices(self._tokens, k=number)

    @asynccontextmanager
    async def _prefilled(self, tokens: list[int]) -> AsyncIterator[tuple[float, int, int, memoryview]]:
        """Compute a prompt: seconds, cached tokens, the token sampled, and the buffer once it is complete."""
        staging = self._arena.reserve(self._info.kv_bytes(len(tokens)))
        sequence = self._sequence(tokens)
        try:
            began = time.perf_counter()
            found = await self._engine.prefill(sequence, staging.view)
            took = time.perf_counter() - began
            await self._engine.exported(sequence.key)
            await self._engine.release(sequence.key)
            yield took, found.cached_tokens, found.first.token_id, staging.view
        finally:
            await self._engine.release(sequence.key)
            staging.release()

    async def _prompt(self, new: int, cached: int) -> float | None:
        """Seconds of a prompt. None where what should be cached was not."""
        before = self._drawn(cached)
        if before:
            async with self._prefilled(before):
                pass
        async with self._prefilled(before + self._drawn(new)) as (took, found, _, _):
            return took if found + 2 * self._info.block_tokens >= cached else None

    async def _beside(self) -> float:
        """Time of some prompts together, over that of one."""
        together = min(BESIDE, self._info.max_sequences)
        length = next((n for n in (1024, 256, 64) if self._fits(n, together + 1)), 16)
        room = self._arena.size // max(1, self._info.kv_bytes(length))
        together = max(1, min(together, room))
        alone = await self._prompt(length, 0) or 1.0

        async def one() -> None:
            async with self._prefilled(self._drawn(length)):
                pass

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(together)))
        return (time.perf_counter() - began) / alone / together * BESIDE

    # ---- steps

    async def _read(self) -> None:
        async for step in self._engine.steps():
            self._moments.append((time.perf_counter(), len(step.sampled)))
            self._stepped.set()

    async def _steps(self, batch: int, context: int) -> list[float]:
        """Seconds of each step of a full batch. Every sequence is the same prompt: engines do not care."""
        tokens = self._drawn(context)
        keys = []
        try:
            async with self._prefilled(tokens) as (_, _, first, buffer), asyncio.timeout(LONGEST_S):
                for _ in range(batch):
                    sequence = self._sequence([*tokens, first])
                    keys.append(sequence.key)
                    await self._engine.insert(sequence, context, buffer)
                self._moments.clear()
                while len(self._moments) < WARM + STEPS + 1:
                    self._stepped.clear()
                    await self._stepped.wait()
        finally:
            for key in keys:
                await self._engine.release(key)
        moments = [at for at, sampled in self._moments if sampled == batch][WARM:]
        return [later - at for at, later in pairwise(moments)]
