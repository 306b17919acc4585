"""A prefix cache by block ids: what an engine has computed before and still holds.

Least recently used blocks leave first, of one prompt its last ones before its first. An id stands for a block and all
that is before it, so a prompt's cached beginning is as long as its ids are known in a row.
"""

from collections import OrderedDict
from collections.abc import Sequence


class PrefixCache:
    """Of one engine. `capacity`: in blocks of the workload's size; None: unbounded, 0: none."""

    def __init__(self, capacity: int | None) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[int, None] = OrderedDict()  # next to leave first
        self.asked = 0  # blocks
        self.found = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def known(self, blocks: Sequence[int]) -> int:
        """Count the leading blocks that are here, and change nothing."""
        held = self._blocks
        for place, block in enumerate(blocks):
            if block not in held:
                return place
        return len(blocks)

    def match(self, blocks: Sequence[int]) -> int:
        """Count the leading blocks that are here; they are used by it."""
        known = self.known(blocks)
        for block in reversed(blocks[:known]):
            self._blocks.move_to_end(block)
        self.asked += len(blocks)
        self.found += known
        return known

    def add(self, blocks: Sequence[int]) -> None:
        """Hold a computed prompt's blocks."""
        if self._capacity == 0:
            return
        held = self._blocks
        for block in reversed(blocks):
            held[block] = None
            held.move_to_end(block)
        if self._capacity is not None:
            while len(held) > self._capacity:
                held.popitem(last=False)
