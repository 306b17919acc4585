"""Counter-based randomness: the draw for a token is a function of (seed, choice, position) and nothing else.

Pure. No generator has a state, so a request that is continued elsewhere, in another batch or on another device draws
the numbers that it would have drawn.
"""

from typing import Final

MASK: Final = (1 << 64) - 1
GOLDEN: Final = 0x9E3779B97F4A7C15  # the increment of splitmix64
BITS: Final = 24  # what a float32 holds exactly
GREEDY_BELOW: Final = 1e-5
"""A temperature so low is 0: dividing by it would overflow."""


def _mix(value: int) -> int:
    """The finaliser of splitmix64: every input bit changes about half of the output bits."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def uniforms(seed: int, choice: int, position: int) -> tuple[float, float]:
    """Two independent numbers in [0, 1), each a multiple of 2^-24."""
    state = _mix((seed & MASK) + GOLDEN & MASK)
    state = _mix((state ^ (choice & MASK)) + GOLDEN & MASK)
    state = _mix((state ^ (position & MASK)) + GOLDEN & MASK)
    return (state >> (64 - BITS)) / (1 << BITS), (state & ((1 << BITS) - 1)) / (1 << BITS)
