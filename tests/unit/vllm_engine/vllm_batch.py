"""vLLM's batch as its first model runner keeps it: which rows change, in which order, and what processors are told."""

from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

from shared.engine import Sequence
from shared.engine.vllm_engine.draws import KEY, wanted
from shared.engine.vllm_engine.inside.batch import Added, Batch, Moved

EOS = frozenset({3})
UNSAID = 127


@dataclass(eq=False)
class Asked:
    """A request; `prompt` is vLLM's, `output` the list that it lets grow."""

    sequence: Sequence
    output: list[int] = field(default_factory=list)

    @property
    def told(self) -> dict[str, Any] | None:
        return wanted(self.sequence, EOS, UNSAID)

    @property
    def tokens(self) -> list[int]:
        return [*self.sequence.tokens, *self.output]


class VllmBatch:
    """Requests in rows, without holes between two steps."""

    def __init__(self, batch: Batch) -> None:
        self.rows: list[Asked] = []
        self._batch = batch

    def change(
        self, leaving: Items[int] = (), coming: Items[Asked] = (), swaps: Items[tuple[int, int]] = ()
    ) -> list[Asked]:
        """Before a step. Returns who left."""
        slots: list[Asked | None] = list(self.rows)
        empty = sorted(set(leaving))
        left = [self.rows[index] for index in empty]
        for index in empty:
            slots[index] = None
        added: list[Added] = []
        for asked in coming:
            place = empty.pop(0) if empty else len(slots)
            slots[place:] = [asked, *slots[place + 1 :]]
            extra = None if asked.told is None else {KEY: asked.told, "kv_transfer_params": {}}
            added.append(Added(place, extra, asked.sequence.tokens, asked.output))
        moved = self._condense(slots, empty)
        kept = [one for one in slots if one is not None]
        for one, other in swaps:
            first, second = one % max(1, len(kept)), other % max(1, len(kept))
            if first != second:
                kept[first], kept[second] = kept[second], kept[first]
                moved.append(Moved(first, second, swaps=True))
        self.rows = kept
        if empty or added or moved:
            self._batch.update(sorted(empty, reverse=True), added, moved)
        return left

    def _condense(self, slots: list[Asked | None], empty: list[int]) -> list[Moved]:
        """Fill the lowest hole from the end, and so on. What is filled is not told as removed."""
        moved: list[Moved] = []
        while empty:
            last = max((place for place, one in enumerate(slots) if one is not None), default=-1)
            if empty[0] > last:
                break
            hole = empty.pop(0)
            slots[hole], slots[last] = slots[last], None
            moved.append(Moved(last, hole, swaps=False))
        return moved
