"""How the attention kernels are cut for a model's heads and a device: measured choices, made once.

Pure.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch

LOG2_E: Final = math.log2(math.e)
FEWEST_ROWS: Final = 16
"""Of a tile that the tensor cores multiply."""
PROGRAMS_PER_PROCESSOR: Final = 2
MOST_SPLITS: Final = 16
PART_NUMBERS: Final = 8192
"""Of the splits' results, loaded at a time by two warps."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The sizes of a kernel's tiles and how it is run."""

    rows: int  # queries times the heads of a group
    keys: int
    warps: int
    stages: int  # loads under way at a time


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one model, or of one of its shards, and how they are stored."""

    heads: int
    kv_heads: int
    head_dim: int
    block_size: int

    @property
    def group(self) -> int:
        """Query heads per key head."""
        return self.heads // self.kv_heads

    @property
    def width(self) -> int:
        """Of a tile: head_dim rounded up to a power of two, as Triton wants it."""
        return max(FEWEST_ROWS, power_of_two(self.head_dim))

    @property
    def members(self) -> int:
        """The group rounded up to a power of two."""
        return power_of_two(self.group)

    def decode(self, dtype: torch.dtype) -> Cut:
        """The tile of one query's heads."""
        rows = max(FEWEST_ROWS, self.members)
        if dtype == torch.float32:
            return Cut(rows, 32, 2, 2)
        return Cut(rows, 64 if self.width <= 128 else 32, 2, 4)  # noqa: PLR2004

    def prompt(self, dtype: torch.dtype, queries: int, processors: int) -> Cut:
        """The tile of a step's chunks, which have so many queries: large tiles only where they leave nobody idle."""
        least = max(FEWEST_ROWS, self.members)
        if dtype == torch.float32:
            return Cut(max(least, 32), 32, 4, 1)
        if self.width <= 128:  # noqa: PLR2004
            if queries * self.group // 256 * self.kv_heads >= processors:
                return Cut(256, 64, 8, 4)
            return Cut(max(least, 128), 64, 4, 4)
        return Cut(max(least, 64), 32, 4, 2)

    def splits(self, rows: int, processors: int) -> int:
        """Among how many programs a sequence's keys are shared out where so many sequences decode."""
        wanted = -(-processors * PROGRAMS_PER_PROCESSOR // (rows * self.kv_heads))
        return power_of_two(max(1, min(wanted, MOST_SPLITS)))

    def parts(self, splits: int) -> int:
        """How many splits' results are put together at a time."""
        return max(1, min(splits, PART_NUMBERS // (self.members * self.width)))


def power_of_two(number: int) -> int:
    """The least that is not below it."""
    return 1 << (number - 1).bit_length()
