"""How prompts take their time in the sim engine: in lanes, and in pieces where somebody waits for their KV."""

import asyncio
import heapq
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from shared.engine.sim_engine.held import Held

PIECE_TOKENS: Final = 512
"""Of a growing prompt, computed in one piece, as other engines do."""

T = TypeVar("T")


class Lanes:
    """So many prompts at a time, in the order of arrival; 0: all side by side."""

    def __init__(self, number: int) -> None:
        self._through = [0.0] * number  # heap: when each of the prompts at a time is through

    def book(self, now: float, seconds: float) -> float:
        """When a prompt that takes so long is through. One that is given up keeps its time: it is spent."""
        if not self._through:
            return now + seconds
        until = max(now, self._through[0]) + seconds
        heapq.heapreplace(self._through, until)
        return until


def pieces(cached: int, total: int, block_tokens: int) -> Iterator[tuple[int, float]]:
    """(tokens, share of the time): where the pieces of a prompt end, the last one left out. Whole blocks."""
    size = max(1, PIECE_TOKENS // block_tokens) * block_tokens
    for stop in range(cached + size, total, size):
        yield stop, (stop - cached) / (total - cached)


async def pass_time(held: Held, until: float) -> None:
    """Return at that time, or when the sequence is released."""
    try:
        async with asyncio.timeout_at(until):
            await held.gone.wait()
    except TimeoutError:
        pass


async def pass_step(due: float | None, closed: asyncio.Event) -> None:
    """Return when a step is due (None: at once, but let others run), or when the engine is closed."""
    if due is None:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout_at(due):
            await closed.wait()
    except TimeoutError:
        pass


async def maybe_in_thread(large: bool, work: Callable[[], T]) -> T:  # noqa: FBT001
    """Do the work, in a thread when it is large enough to hold up the loop."""
    return await asyncio.to_thread(work) if large else work()
