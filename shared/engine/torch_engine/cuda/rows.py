"""A plan as rows of numbers, the way the kernels read it.

Pure: numpy alone. Owns the order of rows: decoding sequences, then chunks, the short ones first.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.engine.torch_engine.cuda.slots import Slots
from shared.engine.torch_engine.scheduler import Chunk, Plan
from shared.engine.torch_engine.sequence import Run

Ints = NDArray[np.int32]
NOWHERE: Final = -1
DRAWN: Final = -1
"""In a token's place: it is on the device alone, see PagedLayout.keep."""
SHORT: Final = 8
"""Chunks of so many rows go through the kernel for one query per sequence: it shares out the keys."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One step. `fields` are token, position, slot and place of each row, see `begin_step`."""

    fields: Ints  # [4, rows]
    alone: int  # so many rows are attended one by one, the others in tiles
    tiles: list[tuple[int, int]]  # first row and number
    entries: list[int]  # of the block table, see Slots.assign
    samples: list[Run]
    sampled: list[int]  # rows

    @property
    def number(self) -> int:
        """Of rows."""
        return int(self.fields.shape[1])


def rows_of(plan: Plan, slots: Slots, block_size: int, tile_queries: int) -> Rows:
    """Lay out a plan."""
    chunks = sorted(plan.chunks, key=lambda chunk: chunk.stop - chunk.start > SHORT)
    runs = [*plan.decodes, *(chunk.run for chunk in chunks)]
    places, entries = slots.assign(runs)
    parts = [_decodes(plan.decodes, places, block_size)]
    samples, sampled = list(plan.decodes), list(range(len(plan.decodes)))
    row = alone = len(plan.decodes)
    tiles: list[tuple[int, int, int]] = []  # the last position too
    for chunk, slot in zip(chunks, places[row:], strict=True):
        parts.append(_chunk(chunk, slot, block_size))
        number = chunk.stop - chunk.start
        if number <= SHORT:
            alone += number
        else:
            for start in range(0, number, tile_queries):
                some = min(tile_queries, number - start)
                tiles.append((chunk.start + start + some, row + start, some))
        row += number
        if chunk.completes:
            samples.append(chunk.run)
            sampled.append(row - 1)
    tiles.sort(reverse=True)  # those with most keys start first, so that none is left running alone
    return Rows(np.concatenate(parts, axis=1), alone, [tile[1:] for tile in tiles], entries, samples, sampled)


def padding(rows: int, slot: int) -> Ints:
    """Rows that compute and leave nothing."""
    fields = np.full((4, rows), NOWHERE, np.int32)
    fields[0], fields[2] = 0, slot
    return fields


def _decodes(runs: list[Run], slots: list[int], size: int) -> Ints:
    fields = np.empty((4, len(runs)), np.int32)
    fields[0] = [run.tokens[run.computed] if run.computed < len(run.tokens) else DRAWN for run in runs]
    fields[1] = [run.computed for run in runs]
    fields[2] = slots[: len(runs)]
    fields[3] = [run.blocks[run.computed // size] * size + run.computed % size for run in runs]
    return fields


def _chunk(chunk: Chunk, slot: int, size: int) -> Ints:
    fields = np.empty((4, chunk.stop - chunk.start), np.int32)
    fields[0] = chunk.run.tokens[chunk.start : chunk.stop]
    fields[1] = positions = np.arange(chunk.start, chunk.stop, dtype=np.int32)
    fields[2] = slot
    first = chunk.start // size
    blocks = np.array(chunk.run.blocks[first : (chunk.stop - 1) // size + 1], np.int32)
    fields[3] = blocks[positions // size - first] * size + positions % size
    return fields
