"""CPU per token of a decode worker's front after many streams, beside what it was after few.

Twenty thousand short streams come, step to their end and leave, and as many are kept as a worker ever keeps: what grows
with the number of those that are over would show in the last two thousand. The front is that of the unit test which
counts what is alive (`tests/unit/worker/test_uptime.py`). A pass of Python's garbage collector over what is kept falls
into every third two thousand.
"""

import asyncio
import gc
import sys
import time
from itertools import pairwise
from statistics import median
from typing import Final

from bench.table import Row
from shared.worker.keeping import MOST
from tests.unit.worker.uptime import LENGTH, Front

STREAMS: Final = 20_000
EACH: Final = 2_000
TURNS: Final = 3


def rows() -> list[Row]:
    """Measure."""
    return asyncio.run(_rows())


async def _rows() -> list[Row]:
    turns = [await _turn() for _ in range(TURNS)]
    least = [min(column) for column in zip(*(took for took, _ in turns), strict=True)]
    blocks = turns[0][1]
    half = len(least) // 2
    return [
        Row(_name(f"last {EACH}"), least[-1], "µs", f"the first {EACH}", least[0]),
        Row(_name("second half"), median(least[half:]), "µs", "the first half", median(least[:half])),
        Row(f"memory blocks more after the last {EACH}", blocks[-1], "blocks", f"after the first {EACH}", blocks[0]),
    ]


def _name(which: str) -> str:
    return f"a token of short streams, the {which} of {STREAMS}"


async def _turn() -> tuple[list[float], list[int]]:
    """Of each two thousand: microseconds per token, and how many blocks of memory more there were at their end."""
    marks: list[tuple[float, int]] = []

    def look(served: int) -> None:
        if served % EACH == 0:
            marks.append((time.process_time(), sys.getallocatedblocks()))

    front = Front(kept=MOST)
    await front.run(EACH, look)  # to be warm
    gc.freeze()  # as the services do
    await front.run(STREAMS, look)
    took = [(after - before) * 1e6 / (EACH * LENGTH) for (before, _), (after, _) in pairwise(marks)]
    return took, [after - before for (_, before), (_, after) in pairwise(marks)]
