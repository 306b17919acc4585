"""The beginnings of a prompt, as marks by which it is known again.

A mark says nothing of the tokens to those who see it, and decides nothing but where a prompt goes.
"""

from typing import Final
from zlib import crc32

from shared.policy.affinity import MOST, boundary

BYTES: Final = 4
"""Of a token in a packed prompt."""


def prefix_of(prompt: bytes) -> tuple[int, ...]:
    """Mark each boundary within a packed prompt; the k-th mark is one of all tokens up to there."""
    marks: list[int] = []
    view, start, mark = memoryview(prompt), 0, 0
    for place in range(MOST):
        end = boundary(place) * BYTES
        if end > len(prompt):
            break
        mark = crc32(view[start:end], mark)
        marks.append(mark)
        start = end
    return tuple(marks)
