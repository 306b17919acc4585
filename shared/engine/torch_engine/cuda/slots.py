"""Which row of the device's block table a sequence has, and what the table does not know yet.

Pure. A sequence keeps its row, its slot, as long as it is in every plan, so that only new blocks travel: what a step
costs does not grow with the context.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.engine.torch_engine.sequence import Run


@dataclass(slots=True)
class _Place:
    slot: int
    known: int = 0  # blocks that are in the table


class Slots:
    """`number` of them, each with room for `width` blocks."""

    def __init__(self, number: int, width: int) -> None:
        self.number = number
        self._width = width
        self._places: dict[Run, _Place] = {}
        self._free = list(range(number))

    def assign(self, runs: Sequence[Run]) -> tuple[list[int], list[int]]:
        """The runs' slots, all other runs giving theirs up; and the entries that make the table know their blocks.

        Entries are pairs, one after the other: a place in the flat table and the block there. The caller writes them
        before the next call. A run's blocks are appended to, never changed.
        """
        for run in self._places.keys() - set(runs):
            self._free.append(self._places.pop(run).slot)
        slots: list[int] = []
        entries: list[int] = []
        for run in runs:
            place = self._places.get(run)
            if place is None:
                place = self._places[run] = _Place(self._free.pop())
            slots.append(place.slot)
            if len(run.blocks) > place.known:
                at = place.slot * self._width
                for number in range(place.known, len(run.blocks)):
                    entries += (at + number, run.blocks[number])
                place.known = len(run.blocks)
        return slots, entries
